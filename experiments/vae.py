"""The variational autoencoder (Kingma & Welling, ICLR 2014, arXiv:1312.6114).

    python -m experiments.vae                                               # digits, about a minute
    python -m experiments.vae --data.name binarized_mnist --data.dir ../shared/tfds
    python -m experiments.vae --data.name toy:two_moons --decoder normal
Measured: test NLL <= 89.19 nats (lower bound on log p, K = 500) on binarized_mnist, static, 10,000 test images, by the
second command; 20,000 steps, 2.5 minutes on two CPU cores. <= 88.62 with --train.steps 50000, stopped at 37,500.
"""

import dataclasses
import functools
from typing import Literal

from gm_jax import runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """A VAE of two networks; the defaults are of Burda et al.'s (2016) size."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(
        steps=20_000, batch_size=100, steps_per_call=50, checkpoint_every=1_000, ema_decay=0.999, patience=4
    )
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    network: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional (images whose sides are multiples of 4)."""
    hidden: runner.Widths = (500, 500)
    """Widths of the fully connected hidden layers, or channels of the convolutional stages."""
    activation: Literal["silu", "relu", "tanh"] = "silu"
    """After each hidden layer."""
    latent_dim: runner.Count = 50
    """Dimensions of z."""
    decoder: Literal["bernoulli", "normal", "discretized_logistic"] = "bernoulli"
    """p(x|z): bernoulli for binarised images, normal for densities, discretized_logistic for images with levels."""
    binarization: Literal["static", "dynamic", "threshold"] | None = None
    """For bernoulli: static as shipped, dynamic resampled at each step, threshold at half. By default static where the
    data are binary and dynamic where they are not."""
    log_var: float | None = None
    """For normal: a fixed log-variance; by default it is learned."""
    beta: runner.RateOrZero = 1.0
    """Weight of the KL; 1 is the ELBO."""
    importance_samples: runner.Count = 500
    """K of the importance-weighted bound that the evaluation reports."""
    validation_samples: runner.Count = 10
    """K of the bound that chooses the best checkpoint while training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


def build(config: Config, spec) -> runner.Experiment:
    """A VAE trained on the beta-weighted ELBO."""
    from gm_jax.models import vae  # here, not above: --help must answer without importing jax

    return vae_experiment(config, spec, vae.elbo_objective(beta=config.beta))


def vae_experiment(config: Config, spec, objective) -> runner.Experiment:
    """What every VAE experiment shares: all but the objective."""
    from gm_jax.models import latent_space, vae

    observation, binarization = observation_model(config, spec)
    encoder, decoder = networks(config, spec, observation.outputs_per_dim)
    make = functools.partial(
        vae.vae, encoder, decoder, observation, latent_dim=config.latent_dim, objective=objective, num_elbo_samples=10
    )
    model = make(num_importance_samples=config.importance_samples)
    named = {} if binarization is None else {"binarization": binarization}
    return runner.Experiment(
        model.model,
        optimizers={"vae": runner.make_optimizer(config.optimizer, config.train)},
        validation=make(num_importance_samples=config.validation_samples).model.log_prob,
        evaluations={"negative_elbo": model.elbo},
        pictures=latent_space.grids(model, spec.shape),
        settings={"measure": observation.measure, **named},
    )


def observation_model(config: Config, spec):
    """The decoder's likelihood, and the name of the binarisation where there is one."""
    import jax

    from gm_jax.models import observations
    from gm_jax.ops import binarization

    if config.decoder == "normal":
        return observations.normal(levels=spec.levels, log_var=config.log_var), None
    if spec.levels is None:
        raise UserError(f"a {config.decoder} decoder is for images with levels, not for {spec.name}: --decoder normal")
    if config.decoder == "discretized_logistic":
        return observations.discretized_logistic(levels=spec.levels), None
    name = config.binarization or ("static" if spec.levels == 2 else "dynamic")
    if (name == "static") != (spec.levels == 2):
        raise UserError(f"{spec.name} has {spec.levels} levels: static binarisation is for binary data, and only it.")
    binarize = {
        "static": lambda key, x: binarization.static(x),
        "dynamic": lambda key, x: binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=spec.levels),
        "threshold": lambda key, x: binarization.threshold(x, levels=spec.levels),
    }
    return observations.bernoulli(binarize[name], levels=spec.levels), name


def networks(config: Config, spec, outputs_per_dim: int):
    """Encoder and decoder."""
    import flax.linen as nn

    from gm_jax.networks import convnet, mlp

    settings = {"activation": getattr(nn, config.activation), "dtype": config.dtype}
    mirrored = config.hidden[::-1]
    if config.network == "mlp":
        encoder = mlp.MLPEncoder(config.hidden, config.latent_dim, **settings)
        return encoder, mlp.MLPDecoder(mirrored, spec.shape, outputs_per_dim, **settings)
    encoder = convnet.ConvEncoder(config.hidden, config.latent_dim, **settings)
    return encoder, convnet.ConvDecoder(mirrored, spec.shape, outputs_per_dim, **settings)


if __name__ == "__main__":
    runner.main(Config, build)
