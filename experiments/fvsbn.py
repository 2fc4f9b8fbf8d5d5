r"""The fully visible sigmoid belief network (Neal 1992; Frey, Hinton & Dayan 1995): D logistic regressions.

python -m experiments.fvsbn                                              # digits, half a minute
python -m experiments.fvsbn --data.name binarized_mnist --order random --train.steps 50000 \
    --train.checkpoint-every 2500 --optimizer.eps 1e-3 --optimizer.learning-rate 3e-3
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import FVSBNConfig

CONFIG = FVSBNConfig(
    train=TrainConfig(
        steps=10_000, batch_size=100, steps_per_call=50, checkpoint_every=500, ema_decay=0.999, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
