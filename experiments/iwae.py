"""The importance-weighted autoencoder (Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519).

python -m experiments.iwae                                  # digits, K = 10
"""

import dataclasses

from experiments import vae
from gm_jax import runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config(vae.Config):
    """A VAE trained on the bound of K samples instead of the ELBO."""

    num_samples: runner.Count = 10
    """K of the bound that training maximises."""
    num_resampled: runner.Count | None = None
    """Take the gradient through this many of the K, drawn by their weights: cheaper and noisier. By default all K."""


def build(config: Config, spec) -> runner.Experiment:
    """A VAE trained on the importance-weighted bound."""
    from gm_jax.models import vae as model

    if config.beta != 1.0:
        raise UserError("the importance-weighted bound has no KL to weigh: leave --beta at 1.")
    if config.num_resampled is None:
        objective = model.iwae_objective(num_samples=config.num_samples)
    else:
        objective = model.resampled_iwae_objective(num_samples=config.num_samples, num_resampled=config.num_resampled)
    return vae.vae_experiment(config, spec, objective)


if __name__ == "__main__":
    runner.main(Config, build)
