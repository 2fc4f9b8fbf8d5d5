r"""MADE, the masked autoencoder for distribution estimation (Germain et al., ICML 2015, arXiv:1502.03509).

    python -m experiments.made                                               # digits, half a minute
    python -m experiments.made --data.name binarized_mnist --train.steps 30000 --train.checkpoint-every 1500 \
        --optimizer.weight-decay 0.02
    python -m experiments.made --hidden 500 500 --order random --orderings 32
    python -m experiments.made --data.name binarized_mnist --hidden 4000 --order random --orderings 32 \
        --train.steps 120000 --train.checkpoint-every 10000 --train.patience 100 --optimizer.weight-decay 0.03
    python -m experiments.made --preset mnist                                # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MADEConfig

CONFIG = MADEConfig(
    train=TrainConfig(
        steps=10_000, batch_size=100, steps_per_call=50, checkpoint_every=500, ema_decay=0.999, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
