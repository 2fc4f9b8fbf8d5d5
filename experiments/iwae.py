"""The importance-weighted autoencoder (Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519).

python -m experiments.iwae                                  # digits, K = 10
"""

import dataclasses

from experiments import vae
from gm_jax import runner


@dataclasses.dataclass(frozen=True)
class Config(vae.Config):
    """A VAE trained on the bound of K samples instead of the ELBO."""

    num_samples: int = 10
    """K of the bound that training maximises."""


def build(config: Config, spec) -> runner.Experiment:
    """A VAE trained on the importance-weighted bound."""
    from gm_jax.models import vae as model

    return vae.vae_experiment(config, spec, model.iwae_objective(num_samples=config.num_samples))


if __name__ == "__main__":
    runner.main(Config, build)
