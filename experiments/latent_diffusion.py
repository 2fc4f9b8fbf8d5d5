"""Latent diffusion (Rombach et al., CVPR 2022, arXiv:2112.10752): a VAE, then a diffusion model of its latents.

    python -m experiments.latent_diffusion                                   # digits, both stages
    python -m experiments.latent_diffusion --autoencoder.beta 1              # a VAE whose prior is learned afterwards
Measured: test NLL <= 144.0 nats (lower bound on log p, all 999 denoising terms) of the 180 test digits as points of
[0, 1]^64; a sample takes 0.9 ms and one of pixel diffusion, in as many steps, 27.5: 31 times as long. 1.2 minutes on
two CPU cores, both stages and the measuring, beside other work.
"""

import dataclasses
from typing import Annotated, Literal

from experiments import ddpm, diffusions, likelihoods, vae
from gm_jax import runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The first stage; its fields are those of experiments/vae.py."""

    steps: runner.Count = 4_000
    """Of --train.steps, the first so many train the VAE, the others the diffusion model."""
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    network: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional (images whose sides are multiples of 4)."""
    hidden: runner.Widths | None = (256, 256)
    """Widths of the fully connected hidden layers, or channels of the convolutional stages."""
    activation: Literal["silu", "relu", "tanh"] = "silu"
    """After each hidden layer."""
    latent_dim: runner.Count = 16
    """Dimensions of z."""
    decoder: Literal["bernoulli", "normal", "discretized_logistic"] | None = None
    """p(x|z); by default bernoulli for binary data, and normal for others."""
    binarization: Literal["static", "dynamic", "threshold"] | None = None
    """For bernoulli: static as shipped, dynamic resampled at each step, threshold at half."""
    log_var: float = -4.0
    """For normal: its log-variance, of pixels over [0, 1]; one that is learned overfits data that are few."""
    beta: runner.RateOrZero = 0.3
    """Weight of the KL; less than 1 leaves more for the diffusion model to say."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks' computation."""


@dataclasses.dataclass(frozen=True)
class Config(ddpm.Config):
    """Both stages; the latents' network is a perceptron.

    The fields of a U-Net (features, blocks, attention, head_dim) are those of a model of the pixels, which is not
    trained, but whose time per sample is measured beside this one's.
    """

    train: runner.TrainConfig = runner.TrainConfig(
        steps=12_000, batch_size=64, checkpoint_every=2_000, steps_per_call=20, ema_decay=0.999
    )
    prediction: Literal["noise", "data", "velocity"] = "velocity"
    """What the network predicts; velocity begins as the standard normal prior of the VAE."""
    dropout: runner.RateOrZero = 0.1
    """Rate, in training."""
    beta_min: runner.Rate | None = 1.0
    """Of the linear schedule, T beta_1, less than 20, and 0.1 in the paper; latents are drawn with noise of their own,
    which needs no finer steps."""
    blocks: runner.Count = 1
    """Residual blocks of each level of the pixels' U-Net."""
    validation_terms: runner.Count = 100
    """Of the bound's denoising terms, while training."""
    hidden: runner.Count = 256
    """Perceptron: width."""
    depth: runner.Count = 3
    """Perceptron: residual blocks."""
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    elbo_samples: Annotated[runner.Count, runner.Measuring] = 10
    """Latents of each example, for the reconstruction's part of the bound."""


def build(config: Config, spec) -> runner.Experiment:
    """A VAE and a diffusion model, in two stages of one run."""
    from gm_jax.models import latent_diffusion
    from gm_jax.models import vae as vae_model

    first = config.autoencoder
    if first.steps >= config.train.steps:
        raise UserError(f"--autoencoder.steps {first.steps} leave none of --train.steps {config.train.steps}.")
    decoder = first.decoder or ("bernoulli" if spec.levels == 2 else "normal")
    of_pixels = dataclasses.replace(first, decoder=decoder, log_var=first.log_var if decoder == "normal" else None)
    observation, binarization = likelihoods.of_decoder(of_pixels, spec)
    encoder_network, decoder_network = vae.networks(first, spec, observation.outputs_per_dim)
    autoencoder = vae_model.VAE(
        encoder=encoder_network,
        decoder=decoder_network,
        likelihood=observation,
        latent_dim=first.latent_dim,
        objective=vae_model.elbo_objective(beta=first.beta),
        num_elbo_samples=config.elbo_samples,
    )
    # To the diffusion model a latent is a point.
    of_latents = dataclasses.replace(config, blocks=config.depth)
    latent_spec = spec._replace(shape=(first.latent_dim,), levels=None)

    prior = diffusions.model(of_latents, latent_spec, num_classes=None, num_terms=config.bound_terms)
    model = latent_diffusion.LatentDiffusion(
        autoencoder=autoencoder, prior=prior, levels=spec.levels, vae_steps=first.steps
    )
    validated = dataclasses.replace(model, prior=dataclasses.replace(prior, num_bound_terms=config.validation_terms))
    of_first = dataclasses.replace(config.train, steps=first.steps)
    of_second = dataclasses.replace(config.train, steps=config.train.steps - first.steps)
    named = {} if binarization is None else {"binarization": binarization}
    return runner.Experiment(
        model.model,
        optimizers={
            "vae": runner.make_optimizer(first.optimizer, of_first),
            "diffusion": runner.make_optimizer(config.optimizer, of_second),
        },
        validation=validated.log_prob,
        settings={"variance": config.variance, **named},
        rivals={"pixel diffusion": diffusions.model(config, spec, num_classes=None, num_terms=0).model},
    )


if __name__ == "__main__":
    runner.main(Config, build)
