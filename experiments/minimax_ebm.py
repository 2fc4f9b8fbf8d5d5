"""An energy-based model and a generator as two players (Kim & Bengio 2016, arXiv:1606.03439), without Markov chains.

python -m experiments.minimax_ebm                                       # toy:eight_gaussians
python -m experiments.minimax_ebm --data.name digits

The generator is a flow, so that its exact entropy bounds log p from above. `nll` is that bound; it flatters.
"""

from gm_jax import runner
from gm_jax.config import AdamConfig, DataConfig, TrainConfig
from gm_jax.recipes.configs import MinimaxEBMConfig

CONFIG = MinimaxEBMConfig(
    data=DataConfig(name="toy:eight_gaussians"),
    train=TrainConfig(steps=4_000, batch_size=256, steps_per_call=50, checkpoint_every=1_000, ema_decay=0.995),
    energy=AdamConfig(learning_rate=1e-3, b1=0.5),
    generator=AdamConfig(learning_rate=1e-3, b1=0.5),
    network="mlp",
    generator_steps=2,
)

if __name__ == "__main__":
    runner.main(CONFIG)
