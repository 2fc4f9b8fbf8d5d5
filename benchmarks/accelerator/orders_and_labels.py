"""Small models of orders, levels, codes, labels and captions, for `benchmarks.accelerator.families`.

Each builder takes the precision of the network's computation, None for float32; networks without a precision ignore it.
"""

from typing import TYPE_CHECKING, Any

from benchmarks.accelerator.densities import CLASSES, IMAGE, LEVELS, binarize

if TYPE_CHECKING:
    from gm_jax.types import Model, Objective

# Words of a caption for each class; 0 is padding.
CAPTIONS = ((1, 2, 3), (4, 0, 0), (5, 1, 0))
WORDS = 6


def autoregressive_flow(dtype: Any, *, inverted: bool) -> "Model":
    """A masked autoregressive flow of pixels, or an inverse one."""
    from gm_jax.models import flow
    from gm_jax.networks.autoregressive_flow import AutoregressiveFlow

    return flow.Flow(
        network=AutoregressiveFlow(IMAGE, (24,), blocks=1, inverted=inverted),
        prior=flow.standard_normal(),
        dequantization=flow.uniform_dequantization(levels=LEVELS, alpha=0.05),
    ).model


def masked_diffusion_of_levels(dtype: Any) -> "Model":
    """Masked diffusion, with a transformer."""
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.models import masked_diffusion
    from gm_jax.networks.masked_transformer import MaskedTransformer

    return masked_diffusion.MaskedDiffusion(
        network=MaskedTransformer(IMAGE, LEVELS, LEVELS, features=8, heads=2, layers=2, dropout=0.25, dtype=dtype),
        likelihood=ordered.categorical(levels=LEVELS),
        shape=IMAGE,
        bound_terms=4,
    ).model


def diffusion_of_levels(dtype: Any) -> "Model":
    """D3PM with Gaussian transitions and a U-Net."""
    from gm_jax.models import d3pm
    from gm_jax.networks.unet import UNet
    from gm_jax.ops import transitions

    return d3pm.D3PM(
        network=UNet((4, 8), groups=2, dropout=0.1, outputs=LEVELS, dtype=dtype),
        transitions=transitions.gaussian(transitions.linear_betas(5), num_states=LEVELS),
        levels=LEVELS,
        shape=IMAGE,
        cross_entropy=0.01,
    ).model


def pixelcnn_of_whole_pixels(dtype: Any) -> "Model":
    """PixelCNN++ with a mixture of two logistics."""
    from gm_jax.models import autoregressive, pixel_conditionals
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.networks.pixelcnn_pp import PixelCNNPlusPlus
    from gm_jax.ops import color_mixture

    outputs = color_mixture.parameters_per_pixel(channels=IMAGE[-1], components=2)
    network = PixelCNNPlusPlus(IMAGE, LEVELS, outputs, features=3, blocks=1, scales=2, dropout=0.25, dtype=dtype)
    return autoregressive.Autoregressive(
        network=pixel_conditionals.whole_pixel_network(network, pixel_conditionals.mixture_of_colors(LEVELS)),
        likelihood=ordered.discretized_logistic_mixture(levels=LEVELS),
        shape=IMAGE,
    ).model


def conditional_vae_of_labels(dtype: Any) -> "Model":
    """A VAE of p(x|y)."""
    from gm_jax.models import conditional_vae, decoder_likelihoods, vae
    from gm_jax.networks.class_conditional import LabelledInput
    from gm_jax.networks.mlp import MLPDecoder, MLPEncoder

    inner = vae.VAE(
        encoder=LabelledInput(MLPEncoder((12,), 3, dtype=dtype), CLASSES, flat=True),
        decoder=LabelledInput(MLPDecoder((12,), IMAGE, dtype=dtype), CLASSES),
        likelihood=decoder_likelihoods.bernoulli(binarize, levels=LEVELS),
        latent_dim=3,
        objective=vae.elbo_objective(),
        num_importance_samples=4,
    )
    return conditional_vae.ConditionalVAE(vae=inner, num_classes=CLASSES).model


def conditional_gan_of_labels(dtype: Any) -> "Model":
    """A GAN of p(x|y), whose discriminator projects on the label."""
    import jax.numpy as jnp

    from gm_jax.models import adversarial_objectives, conditional_gan, gan
    from gm_jax.networks.class_conditional import LabelledInput, ProjectionDiscriminator
    from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator

    game = gan.GAN(
        generator=LabelledInput(MLPGenerator((6,), IMAGE, output_activation=jnp.tanh), CLASSES),
        discriminator=ProjectionDiscriminator(MLPDiscriminator((6,)), CLASSES),
        losses=adversarial_objectives.non_saturating(),
        scaling=gan.images(levels=LEVELS),
        latent_dim=2,
    )
    return conditional_gan.ConditionalGAN(gan=game, num_classes=CLASSES).model


def autoencoder_of_codes(dtype: Any) -> "Model":
    """A VQ-VAE, with a transformer of its codes.

    Each of the five codes is used, and no place is near the border between two. The codes are fixed: a comparison of
    losses and gradients does not see what becomes of them.
    """
    from gm_jax.models import autoregressive, decoder_likelihoods, quantizers, vq_vae
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.networks.autoencoder import SpatialCodeEncoder, SpatialDecoder
    from gm_jax.networks.transformer import CausalTransformer

    likelihood = decoder_likelihoods.discretized_logistic(levels=LEVELS)
    quantizer = quantizers.EMACodebook(num_codes=5, dim=2, restart_below=0.0)
    places = (2, 2, 1)
    codes = CausalTransformer(
        places, quantizer.num_codes, quantizer.num_codes, features=8, heads=2, layers=1, dtype=dtype
    )
    prior = autoregressive.Autoregressive(
        network=ordered.sequence_network(codes, length=4),
        likelihood=ordered.codes(num_codes=quantizer.num_codes),
        shape=places,
    )
    settings = {"groups": 2, "dtype": dtype}
    return vq_vae.VQVAE(
        encoder=SpatialCodeEncoder((4, 4), quantizer.dim, **settings),
        decoder=SpatialDecoder((4, 4), IMAGE, quantizer.dim, likelihood.outputs_per_dim, **settings),
        likelihood=likelihood,
        quantizer=quantizer,
        prior=prior,
        vae_steps=2,
    ).model


def text_to_image(dtype: Any) -> "Model":
    """A latent diffusion of spatial latents with a DiT that reads captions, one of each class; samples are guided.

    The diffusion model learns the weight of its loss.
    """
    import jax.numpy as jnp

    from gm_jax.models import decoder_likelihoods, diffusion, diffusion_space, latent_diffusion, learned_weight, vae
    from gm_jax.networks.autoencoder import SpatialDecoder, SpatialEncoder
    from gm_jax.networks.dit import DiT
    from gm_jax.networks.log_error import LogError
    from gm_jax.networks.text_encoder import TextEncoder
    from gm_jax.ops import diffusion_process
    from gm_jax.samplers.ddim import ddim

    likelihood = decoder_likelihoods.discretized_logistic(levels=LEVELS)
    spatial = {"groups": 2, "attention": True, "patch": 2, "dtype": dtype}
    autoencoder = vae.VAE(
        encoder=SpatialEncoder((4,), 1, **spatial),
        decoder=SpatialDecoder((4,), IMAGE, 1, likelihood.outputs_per_dim, **spatial),
        likelihood=likelihood,
        latent_dim=4,
        objective=vae.elbo_objective(),
    )
    text = TextEncoder((len(CAPTIONS[0]),), WORDS, 8, features=8, heads=2, layers=1, dtype=dtype)
    schedule = diffusion_process.cosine_schedule(20)
    prior = learned_weight.WeightedDiffusion(
        log_error=LogError(WORDS, 8),
        network=DiT(8, layers=2, heads=2, patch=1, text=text, dtype=dtype),
        space=diffusion_space.points(),
        schedule=schedule,
        shape=(2, 2, 1),
        parameterization=diffusion.v_prediction(),
        sampler=ddim(schedule, 5),
        variance_fn=diffusion_process.posterior_variance,
        num_tokens=len(CAPTIONS[0]),
        drop_label=0.4,
        guidance=0.5,
        num_bound_terms=3,
    )
    family = latent_diffusion.LatentDiffusion(autoencoder=autoencoder, prior=prior, levels=LEVELS, vae_steps=2)
    captions = jnp.asarray(CAPTIONS, jnp.int32)

    def with_captions(objective: "Objective") -> "Objective":
        def loss(params: Any, model_state: Any, key: Any, batch: Any) -> Any:
            return objective.loss(params, model_state, key, {**batch, "tokens": captions[batch["label"]]})

        return objective._replace(loss=loss)

    def sample(params: Any, model_state: Any, key: Any, n: int) -> Any:
        return family.sample(params, model_state, key, n, label=captions[jnp.arange(n) % CLASSES])

    model = family.model
    return model._replace(objectives=tuple(map(with_captions, model.objectives)), sample=sample)
