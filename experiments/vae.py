"""The variational autoencoder (Kingma & Welling, ICLR 2014, arXiv:1312.6114).

    python -m experiments.vae                                               # digits, about a minute
    python -m experiments.vae --data.name binarized_mnist --data.dir ../shared/tfds
    python -m experiments.vae --data.name toy:two_moons                     # points: a normal decoder
Measured: test NLL <= 89.19 nats (lower bound on log p, K = 500) on binarized_mnist, static, 10,000 test images, by the
second command; 20,000 steps, 2.5 minutes on two CPU cores. <= 88.62 with --train.steps 50000, stopped at 37,500.
"""

import dataclasses
from typing import Annotated, Literal

from experiments import likelihoods
from gm_jax import runner

_WIDTHS = {"mlp": (500, 500), "conv": (32, 64)}


@dataclasses.dataclass(frozen=True)
class NetworksConfig:
    """What every VAE experiment shares: all but the objective's. The defaults are of Burda et al.'s (2016) size."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(
        steps=20_000, batch_size=100, steps_per_call=50, checkpoint_every=1_000, ema_decay=0.999, patience=4
    )
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    network: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional (images whose sides are multiples of 4)."""
    hidden: runner.Widths | None = None
    """Widths of the fully connected hidden layers, by default 500 500; or channels of the convolutional stages, by
    default 32 64."""
    activation: Literal["silu", "relu", "tanh"] = "silu"
    """After each hidden layer."""
    latent_dim: runner.Count = 50
    """Dimensions of z."""
    decoder: Literal["bernoulli", "normal", "discretized_logistic"] | None = None
    """p(x|z): bernoulli for binarised images, normal for densities, discretized_logistic for levels. By default
    bernoulli for images of one channel, discretized_logistic for other data with levels, normal for points."""
    binarization: Literal["static", "dynamic", "threshold"] | None = None
    """For bernoulli: static as shipped, dynamic resampled at each step, threshold at half. By default static where the
    data are binary and dynamic where they are not."""
    log_var: float | None = None
    """For normal: a fixed log-variance; by default it is learned."""
    importance_samples: Annotated[runner.Count, runner.Measuring] = 500
    """K of the importance-weighted bound that the evaluation reports."""
    validation_samples: runner.Count = 10
    """K of the bound that chooses the best checkpoint while training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True)
class Config(NetworksConfig):
    """A VAE of two networks, trained on the ELBO."""

    beta: runner.RateOrZero = 1.0
    """Weight of the KL; 1 is the ELBO."""


def build(config: Config, spec) -> runner.Experiment:
    """A VAE trained on the beta-weighted ELBO."""
    from gm_jax.models import vae  # here, not above: --help must answer without importing jax

    return vae_experiment(config, spec, vae.elbo_objective(beta=config.beta))


def vae_experiment(config: NetworksConfig, spec, objective) -> runner.Experiment:
    """What every VAE experiment shares: all but the objective."""
    from gm_jax.models import vae
    from gm_jax.plotting import vae as plotting

    observation, binarization = likelihoods.of_decoder(config, spec)
    encoder, decoder = networks(config, spec, observation.outputs_per_dim)
    model = vae.VAE(
        encoder=encoder,
        decoder=decoder,
        likelihood=observation,
        latent_dim=config.latent_dim,
        objective=objective,
        num_importance_samples=config.importance_samples,
        num_elbo_samples=10,
    )
    named = {} if binarization is None else {"binarization": binarization}
    return runner.Experiment(
        model.model,
        optimizers={"vae": runner.make_optimizer(config.optimizer, config.train)},
        validation=dataclasses.replace(model, num_importance_samples=config.validation_samples).log_prob,
        evaluations={"negative_elbo": model.elbo},
        pictures=plotting.grids(model, spec.shape),
        settings=named,
    )


def networks(config: NetworksConfig, spec, outputs_per_dim: int):
    """Encoder and decoder."""
    import flax.linen as nn

    from gm_jax.networks import convnet, mlp

    settings = {"activation": getattr(nn, config.activation), "dtype": config.dtype}
    hidden = config.hidden or _WIDTHS[config.network]
    kinds = {"mlp": (mlp.MLPEncoder, mlp.MLPDecoder), "conv": (convnet.ConvEncoder, convnet.ConvDecoder)}
    make_encoder, make_decoder = kinds[config.network]
    return (
        make_encoder(hidden, config.latent_dim, **settings),
        make_decoder(hidden[::-1], spec.shape, outputs_per_dim, **settings),
    )


if __name__ == "__main__":
    runner.main(Config, build)
