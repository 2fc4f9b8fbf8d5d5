r"""NADE, the neural autoregressive distribution estimator (Larochelle & Murray, AISTATS 2011; JMLR 2016).

    python -m experiments.nade                                               # digits, about a minute
    python -m experiments.nade --data.name binarized_mnist --train.steps 24000 --train.checkpoint-every 1000 \
        --optimizer.learning-rate 2e-3 --optimizer.weight-decay 0.03
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import NADEConfig

CONFIG = NADEConfig(
    train=TrainConfig(
        steps=10_000, batch_size=100, steps_per_call=50, checkpoint_every=500, ema_decay=0.999, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
