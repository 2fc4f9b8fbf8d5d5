r"""PixelCNN and gated PixelCNN (van den Oord et al., ICML 2016, arXiv:1601.06759; NeurIPS 2016, arXiv:1606.05328).

    python -m experiments.pixelcnn                                           # digits, about a minute
    python -m experiments.pixelcnn --data.name binarized_mnist --layers 14 --features 24 --dropout 0.1 \
        --train.batch-size 16 --train.steps 60000 --train.steps-per-call 25 --train.checkpoint-every 3000 \
        --train.ema-decay 0.999 --train.patience 0 --optimizer.learning-rate 1.5e-3     # two hours on two cores
    python -m experiments.pixelcnn --no-gated --output categorical           # plain, on the levels themselves
    python -m experiments.pixelcnn --preset cifar10                          # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import PixelCNNConfig

CONFIG = PixelCNNConfig(
    train=TrainConfig(steps=2_000, batch_size=50, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
