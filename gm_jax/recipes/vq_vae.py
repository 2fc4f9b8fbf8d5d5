"""The recipe of a VQ-VAE: an autoencoder of codes, and a transformer of the codes, in two stages of one run."""

import math

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import autoregressive, autoregressive_networks, quantizers, vq_vae
from gm_jax.networks import autoencoder, transformer
from gm_jax.plotting import vq_vae as plotting
from gm_jax.recipes import image_shapes, labels, likelihoods
from gm_jax.recipes.configs.vq_vae import CodebookConfig, CodePriorConfig, FSQConfig, VQVAEConfig
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.optimizers import make_adam, make_optimizer
from gm_jax.recipes.run_length import second_stage_steps

_MOST_CODES = 2**16


def build_vq_vae(config: VQVAEConfig, spec: Spec) -> Experiment:
    """Builds an autoencoder of discrete codes and a causal transformer of the codes.

    Raises:
        UserError: the data are not images, or the fields contradict each other.
    """
    first, image = config.autoencoder, image_shapes.image_shape(spec)
    rest = second_stage_steps(first, num_steps=config.train.steps)
    decoder = config.decoder or ("bernoulli" if spec.levels == 2 else "discretized_logistic")
    likelihood, facts = likelihoods.decoder_likelihood(spec, decoder=decoder, binarization=config.binarization)
    quantizer, commitment = make_quantizer(config.quantizer)
    settings = {
        "blocks": first.blocks,
        "groups": first.groups,
        "attention": first.attention,
        "patch": first.patch,
        "dtype": first.dtype,
    }
    grid = autoencoder.latent_shape(image, levels=len(first.features), channels=1, patch=first.patch)
    num_classes = labels.num_classes(spec) if config.conditional else None
    family = vq_vae.VQVAE(
        encoder=autoencoder.SpatialCodeEncoder(first.features, quantizer.dim, **settings),
        decoder=autoencoder.SpatialDecoder(
            first.features, image, quantizer.dim, likelihood.outputs_per_dim, **settings
        ),
        likelihood=likelihood,
        quantizer=quantizer,
        prior=model_of_codes(config.prior, grid, num_codes=quantizer.num_codes, num_classes=num_classes),
        commitment=commitment,
        vae_steps=config.train.steps - rest,
    )
    return Experiment(
        family.model,
        family=family,
        optimizers={
            "vae": make_adam(first.optimizer, num_updates=config.train.steps - rest, section="autoencoder.optimizer"),
            "autoregressive": make_optimizer(config.optimizer, num_steps=rest),
        },
        evaluations=(LogProbEvaluation("uniform_prior_nll", family.uniform_prior_bound),),
        pictures=plotting.grids(family),
        sample_mean=family.sample_mean,
        settings={**facts, "codes": quantizer.num_codes, "places": math.prod(grid)},
        observation=likelihoods.observation(likelihood, spec),
        uses_labels=config.conditional,
    )


def make_quantizer(config: CodebookConfig | FSQConfig) -> tuple[quantizers.Quantizer, float]:
    """Returns the quantiser and the weight of the commitment, which FSQ does not need.

    Raises:
        UserError: a number of FSQ has fewer than two levels, or there are too many codes.
    """
    if isinstance(config, FSQConfig):
        if min(config.levels) < 2:
            raise UserError(f"--quantizer.levels {min(config.levels)} cannot code anything: use 2 or more, better 5.")
        if math.prod(config.levels) > _MOST_CODES:
            raise UserError(
                f"--quantizer.levels have {math.prod(config.levels):,} codes, more than the {_MOST_CODES:,} whose "
                "probabilities a model can hold: use fewer or smaller levels."
            )
        return quantizers.FSQ(levels=config.levels), 0.0
    codebook = quantizers.EMACodebook(
        num_codes=config.codes, dim=config.dim, decay=config.decay, restart_below=config.restart_below
    )
    return codebook, config.commitment


def model_of_codes(
    config: CodePriorConfig, grid: tuple[int, int, int], *, num_codes: int, num_classes: int | None
) -> autoregressive.Autoregressive:
    """Returns a causal transformer of codes on a grid (H, W, 1).

    Raises:
        UserError: the heads do not divide the width.
    """
    if config.features % config.heads:
        raise UserError(
            f"--prior.heads {config.heads} do not divide --prior.features {config.features}: use a divisor."
        )
    network = transformer.CausalTransformer(
        grid,
        num_codes,
        num_codes,
        config.features,
        config.heads,
        config.layers,
        dropout=config.dropout,
        num_classes=num_classes,
    )
    return autoregressive.Autoregressive(
        network=autoregressive_networks.sequence_network(network, length=math.prod(grid)),
        likelihood=autoregressive_networks.codes(num_codes=num_codes),
        shape=grid,
        num_classes=num_classes,
    )
