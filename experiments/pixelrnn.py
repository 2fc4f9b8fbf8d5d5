r"""PixelRNN, with its Row LSTM and its Diagonal BiLSTM (van den Oord et al., ICML 2016, arXiv:1601.06759).

    python -m experiments.pixelrnn                                           # digits, about a minute
    python -m experiments.pixelrnn --lstm row
    python -m experiments.pixelrnn --data.name binarized_mnist --train.batch-size 16 --train.steps 70000 \
        --train.steps-per-call 25 --train.checkpoint-every 3500 --train.ema-decay 0.999 --train.patience 0 \
        --optimizer.learning-rate 4e-3                                       # two hours on one core
    python -m experiments.pixelrnn --preset mnist                            # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import PixelRNNConfig

CONFIG = PixelRNNConfig(
    train=TrainConfig(steps=2_000, batch_size=50, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
