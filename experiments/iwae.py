r"""The importance-weighted autoencoder (Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519).

    python -m experiments.iwae                                                             # digits, K = 10
    python -m experiments.iwae --data.name binarized_mnist --num-samples 50 --num-resampled 2 --train.steps 36000 \
        --train.checkpoint-every 2000 --train.patience 0 --optimizer.weight-decay 0.05 --importance-samples 5000
    python -m experiments.iwae --preset mnist                                # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import IWAEConfig

CONFIG = IWAEConfig(
    train=TrainConfig(
        steps=20_000, batch_size=100, steps_per_call=50, checkpoint_every=1_000, ema_decay=0.999, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
