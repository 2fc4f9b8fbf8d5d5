r"""The importance-weighted autoencoder (Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519).

    python -m experiments.iwae                                                             # digits, K = 10
    python -m experiments.iwae --data.name binarized_mnist --data.dir ../shared/tfds --num-samples 50 \
        --num-resampled 2 --train.steps 36000 --train.checkpoint-every 2000 --train.patience 0 \
        --optimizer.weight-decay 0.05 --importance-samples 5000
Measured: test NLL <= 86.78 nats (lower bound on log p, K = 5,000) on binarized_mnist, static, 10,000 test images, by
the second command; 130 minutes on two CPU cores with much other work beside. Published: 87.1.
"""

import dataclasses

from experiments import vae
from gm_jax import runner


@dataclasses.dataclass(frozen=True)
class Config(vae.NetworksConfig):
    """A VAE trained on the bound of K samples instead of the ELBO."""

    num_samples: runner.Count = 10
    """K of the bound that training maximises."""
    num_resampled: runner.Count | None = None
    """Take the gradient through this many of the K, drawn by their weights: cheaper and noisier. By default all K."""


def build(config: Config, spec) -> runner.Experiment:
    """A VAE trained on the importance-weighted bound."""
    from gm_jax.models import vae as model

    if config.num_resampled is None:
        objective = model.iwae_objective(num_samples=config.num_samples)
    else:
        objective = model.resampled_iwae_objective(num_samples=config.num_samples, num_resampled=config.num_resampled)
    return vae.vae_experiment(config, spec, objective)


if __name__ == "__main__":
    runner.main(Config, build)
