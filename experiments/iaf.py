"""The inverse autoregressive flow as a density (Kingma et al., NeurIPS 2016, arXiv:1606.04934).

python -m experiments.iaf                                # digits
python -m experiments.iaf --data.name toy:two_moons      # points

It samples in one pass. Training by maximum likelihood needs the latents of the data, which take a step for each
dimension: for the same networks, `experiments.maf` trains faster and samples more slowly.
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import AutoregressiveFlowConfig

CONFIG = AutoregressiveFlowConfig(
    train=TrainConfig(
        steps=1_000, batch_size=100, steps_per_call=10, checkpoint_every=100, ema_decay=0.995, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=100.0),
    inverted=True,
    hidden=(256, 256),
)

POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    train=dataclasses.replace(CONFIG.train, steps=6_000, batch_size=256, checkpoint_every=500, steps_per_call=50),
    hidden=(64, 64),
)

if __name__ == "__main__":
    runner.main(CONFIG)
