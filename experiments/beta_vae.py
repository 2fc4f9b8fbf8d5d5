"""The beta-VAE (Higgins et al., ICLR 2017): the KL weighted by beta, for latents that vary one thing at a time.

    python -m experiments.beta_vae                              # digits, beta 4
    python -m experiments.beta_vae evaluate                     # its bounds on log p are those of beta 1
Measured: test NLL <= 26.85 nats (K = 500) on digits, dynamic, 180 test images, by the first command; a minute of
computing on two CPU cores.
"""

import dataclasses

from experiments import vae
from gm_jax import runner


@dataclasses.dataclass(frozen=True)
class Config(vae.Config):
    """A VAE whose KL weighs more, and whose traversal shows what each latent does."""

    latent_dim: runner.Count = 10
    """Dimensions of z."""
    beta: runner.RateOrZero = 4.0
    """Weight of the KL; 1 is the ELBO."""


build = vae.build

if __name__ == "__main__":
    runner.main(Config, build)
