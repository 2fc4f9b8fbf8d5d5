"""The restricted Boltzmann machine (Smolensky 1986; Hinton, Neural Computation 14, 2002).

    python -m experiments.rbm                                                # digits, about a minute
    python -m experiments.rbm --hidden 20                                    # an exact likelihood
    python -m experiments.rbm --no-persistent --sweeps 1                     # CD-1 in place of PCD-1
    python -m experiments.rbm --data.name binarized_mnist --hidden 500 --train.steps 30000 --temperatures 14500

The likelihood is an estimate with a bracket: log Z is estimated by annealed importance sampling, forwards and reversed.
"""

from gm_jax import runner
from gm_jax.config import SGDConfig, TrainConfig
from gm_jax.recipes.configs import RBMConfig

CONFIG = RBMConfig(
    train=TrainConfig(steps=20_000, batch_size=100, steps_per_call=50, checkpoint_every=2_000),
    optimizer=SGDConfig(learning_rate=0.1, schedule="linear"),
    hidden=128,
)

if __name__ == "__main__":
    runner.main(CONFIG)
