"""Small models of every family, on which a device is compared with the CPU.

Each builder takes the precision of the network's computation, and each model is as small as its family allows. Their
parameters are drawn by numpy's frozen generator, so that they are the same on every machine and none is zero.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.accelerator import densities, orders_and_labels
from benchmarks.accelerator.densities import BATCH, CLASSES, IMAGE, LEVELS, POINT, binarize

if TYPE_CHECKING:
    from gm_jax.types import Model


class Family(NamedTuple):
    """A small model.

    Attributes:
        make: precision of the computation, None for float32 -> the model.
        shape: of one example; images have LEVELS levels, points are real.
        has_dtype: whether its networks compute in a chosen precision.
        scale: of its random parameters.
    """

    make: Callable[[Any], "Model"]
    shape: tuple[int, ...] = IMAGE
    has_dtype: bool = False
    scale: float = 0.5


def batch(family: Family) -> dict[str, np.ndarray]:
    """Returns {"x": [BATCH, ...], "label": [BATCH]}: uint8 levels or float32 points, and labels, which few read."""
    rng, label = np.random.RandomState(0), np.arange(BATCH, dtype=np.int32) % CLASSES
    if family.shape == POINT:
        return {"x": rng.normal(size=(BATCH, *POINT)).astype(np.float32), "label": label}
    return {"x": rng.randint(0, LEVELS, (BATCH, *family.shape)).astype(np.uint8), "label": label}


def random_params(family: Family, shapes: Any) -> Any:
    """Draws parameters with the given shapes: normal, with the scale over the root of the fan-in."""
    import jax

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        rng = np.random.RandomState(zlib.crc32(jax.tree_util.keystr(path).encode()))
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4.0
        return (family.scale * rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _vae(dtype: Any, *, convolutional: bool = False, samples: int = 1) -> "Model":
    from gm_jax.models import decoder_likelihoods as likelihoods
    from gm_jax.models import vae
    from gm_jax.networks.convnet import ConvDecoder, ConvEncoder
    from gm_jax.networks.mlp import MLPDecoder, MLPEncoder

    if convolutional:
        likelihood = likelihoods.discretized_logistic(levels=LEVELS)
        encoder = ConvEncoder((4,), 3, hidden=8, dtype=dtype)
        decoder = ConvDecoder((4,), IMAGE, likelihood.outputs_per_dim, hidden=8, dtype=dtype)
    else:
        likelihood = likelihoods.bernoulli(binarize, levels=LEVELS)
        encoder, decoder = MLPEncoder((12,), 3, dtype=dtype), MLPDecoder((12,), IMAGE, dtype=dtype)
    objective = vae.elbo_objective() if samples == 1 else vae.iwae_objective(num_samples=samples)
    return vae.VAE(
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood,
        latent_dim=3,
        objective=objective,
        num_importance_samples=4,
    ).model


def _autoregressive(network: Any, *, categorical: bool = False) -> "Model":
    from gm_jax.models import autoregressive
    from gm_jax.models import autoregressive_networks as ordered

    levels = ordered.categorical(levels=LEVELS) if categorical else ordered.bernoulli(binarize, levels=LEVELS)
    return autoregressive.Autoregressive(network=network, likelihood=levels, shape=IMAGE).model


def _dense(name: str) -> "Model":
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.networks import fvsbn, made, nade

    orders = np.arange(16)[None]
    if name == "made":
        orders = np.stack([np.arange(16), np.arange(16)[::-1]])
        network = made.MADE(16, (24,), direct=True)
        return _autoregressive(ordered.masked_network(network, made.mask_sets(orders, (24,)), orders))
    network = fvsbn.FVSBN(16) if name == "fvsbn" else nade.NADE(16, 12)
    return _autoregressive(ordered.masked_network(network, orders, orders))


def _pixels(dtype: Any, *, name: str) -> "Model":
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.networks import pixelcnn, pixelrnn

    levels = {"levels": 2, "outputs_per_dim": 1}
    if name in ("diagonal", "row"):
        lstm = pixelrnn.DiagonalBiLSTM if name == "diagonal" else pixelrnn.RowLSTM
        return _autoregressive(ordered.image_network(pixelrnn.PixelRNN(IMAGE, **levels, lstm=lstm, hidden=3, layers=1)))
    network = pixelcnn.GatedPixelCNN if name == "gated" else pixelcnn.PixelCNN
    module = network(IMAGE, **levels, features=4, layers=2, first_size=3, dropout=0.25, dtype=dtype)
    return _autoregressive(ordered.image_network(module))


def _wavenet(dtype: Any) -> "Model":
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.networks.wavenet import WaveNet

    network = WaveNet(LEVELS, LEVELS, features=4, skip=6, dilations=(1, 2), dtype=dtype)
    return _autoregressive(ordered.sequence_network(network, length=16), categorical=True)


def _transformer(dtype: Any) -> "Model":
    from gm_jax.models import autoregressive_networks as ordered
    from gm_jax.networks.transformer import CausalTransformer

    network = CausalTransformer(IMAGE, 2, 1, features=8, heads=2, layers=2, dropout=0.25, dtype=dtype)
    return _autoregressive(ordered.sequence_network(network, length=16))


def _flow(network: Any, *, points: bool = False, logistic: bool = False) -> "Model":
    from gm_jax.models import flow

    dequantization = flow.no_dequantization() if points else flow.uniform_dequantization(levels=LEVELS, alpha=0.05)
    prior = flow.standard_logistic() if logistic else flow.standard_normal()
    return flow.Flow(network=network, prior=prior, dequantization=dequantization).model


def _image_flow(dtype: Any, *, name: str) -> "Model":
    from gm_jax.networks.glow import Glow
    from gm_jax.networks.nice import NICE
    from gm_jax.networks.realnvp import ImageRealNVP

    if name == "nice":
        return _flow(NICE(IMAGE, (12,), dtype=dtype), logistic=True)
    if name == "glow":
        return _flow(Glow(IMAGE, scales=1, steps=2, features=4, dtype=dtype))
    return _flow(ImageRealNVP(IMAGE, scales=1, features=4, blocks=1, dtype=dtype))


def _flow_of_points(dtype: Any, *, name: str) -> "Model":
    from gm_jax.networks.realnvp import RealNVP
    from gm_jax.networks.spline_flow import SplineFlow

    if name == "splines":
        return _flow(SplineFlow(POINT, (12,), blocks=2, num_bins=5, dtype=dtype), points=True)
    return _flow(RealNVP(POINT, (12,), pairs=2, dtype=dtype), points=True)


def _diffusion(dtype: Any, *, points: bool = False) -> Any:
    from gm_jax.models import diffusion, diffusion_space
    from gm_jax.networks.diffusion_mlp import DiffusionMLP
    from gm_jax.networks.unet import UNet
    from gm_jax.ops import diffusion_process
    from gm_jax.samplers.ddim import ddim
    from gm_jax.samplers.ddpm import ancestral

    schedule, variance_fn = diffusion_process.cosine_schedule(20), diffusion_process.posterior_variance
    network = DiffusionMLP(16, 1, dtype=dtype) if points else UNet((4, 8), groups=2, dropout=0.1, dtype=dtype)
    return diffusion.Diffusion(
        network=network,
        space=diffusion_space.points() if points else diffusion_space.pixels(levels=LEVELS),
        schedule=schedule,
        shape=POINT if points else IMAGE,
        parameterization=diffusion.v_prediction() if points else diffusion.noise_prediction(),
        sampler=ancestral(schedule, 5, variance_fn=variance_fn) if points else ddim(schedule, 5),
        variance_fn=variance_fn,
    )


def _conditional_diffusion(dtype: Any) -> "Model":
    import dataclasses

    from gm_jax.networks.unet import UNet

    network = UNet((4, 8), groups=2, num_classes=CLASSES + 1, dtype=dtype)
    family = dataclasses.replace(_diffusion(dtype), network=network, num_classes=CLASSES, drop_label=0.4, guidance=0.5)
    return family.model


def _latent_diffusion(dtype: Any) -> "Model":
    import dataclasses

    from gm_jax.models import decoder_likelihoods, latent_diffusion, vae
    from gm_jax.networks.mlp import MLPDecoder, MLPEncoder

    autoencoder = vae.VAE(
        encoder=MLPEncoder((12,), 2, dtype=dtype),
        decoder=MLPDecoder((12,), IMAGE, dtype=dtype),
        likelihood=decoder_likelihoods.bernoulli(binarize, levels=LEVELS),
        latent_dim=2,
        objective=vae.elbo_objective(),
        num_importance_samples=4,
    )
    prior = dataclasses.replace(_diffusion(dtype, points=True), num_bound_terms=3)
    return latent_diffusion.LatentDiffusion(autoencoder=autoencoder, prior=prior, levels=LEVELS, vae_steps=2).model


def _gan(dtype: Any, *, name: str) -> "Model":
    import jax.numpy as jnp

    from gm_jax.models import adversarial_objectives as objectives
    from gm_jax.models import gan
    from gm_jax.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
    from gm_jax.networks.normalization import WithReferenceBatch

    if name == "dcgan":
        generator, discriminator = DCGANGenerator(IMAGE, (4,), dtype=dtype), DCGANDiscriminator((4,), dtype=dtype)
    else:
        make = functools.partial(MLPGenerator, (6,), IMAGE, output_activation=jnp.tanh)
        generator, discriminator = WithReferenceBatch(make), MLPDiscriminator((6,))
    wasserstein = name == "wgan_gp"
    return gan.GAN(
        generator=generator,
        discriminator=discriminator,
        losses=objectives.wasserstein() if wasserstein else objectives.non_saturating(),
        scaling=gan.images(levels=LEVELS),
        latent_dim=2,
        penalties={"gradient_penalty": objectives.gradient_penalty(weight=1.0)} if wasserstein else {},
        feature_matching=name == "improved_gan",
    ).model


def _with_dtype(make: Callable, *, scale: float = 0.5, **settings: Any) -> Family:
    return Family(functools.partial(make, **settings), has_dtype=True, scale=scale)


FAMILIES: Mapping[str, Family] = {
    "vae": _with_dtype(_vae),
    "iwae": _with_dtype(_vae, samples=3),
    "vae, convolutional": _with_dtype(_vae, convolutional=True),
    "fvsbn": Family(lambda dtype: _dense("fvsbn")),
    "nade": Family(lambda dtype: _dense("nade")),
    "made": Family(lambda dtype: _dense("made")),
    "pixelcnn": _with_dtype(_pixels, name="plain"),
    "gated pixelcnn": _with_dtype(_pixels, name="gated"),
    "pixelrnn, diagonal": Family(functools.partial(_pixels, name="diagonal")),
    "pixelrnn, row": Family(functools.partial(_pixels, name="row")),
    "wavenet": _with_dtype(_wavenet),
    "transformer": _with_dtype(_transformer),
    "nice": _with_dtype(_image_flow, name="nice"),
    "realnvp": _with_dtype(_image_flow, name="realnvp"),
    "glow": _with_dtype(_image_flow, name="glow"),
    "realnvp of points": Family(functools.partial(_flow_of_points, name="couplings"), POINT, has_dtype=True),
    "spline flow": Family(functools.partial(_flow_of_points, name="splines"), POINT, has_dtype=True),
    "ddpm": _with_dtype(lambda dtype: _diffusion(dtype).model),
    "ddpm, conditional": _with_dtype(_conditional_diffusion),
    "ddpm of points": Family(lambda dtype: _diffusion(dtype, points=True).model, POINT, has_dtype=True),
    "latent diffusion": _with_dtype(_latent_diffusion),
    "dcgan": _with_dtype(_gan, name="dcgan", scale=2.0),
    "improved gan": Family(functools.partial(_gan, name="improved_gan"), scale=2.0),
    "wgan-gp": Family(functools.partial(_gan, name="wgan_gp"), scale=2.0),
    "score": _with_dtype(densities.score_of_images),
    "edm of points": Family(densities.edm, POINT, has_dtype=True),
    "flow matching of points": Family(densities.flow_matching, POINT, has_dtype=True),
    "meanflow of points": Family(densities.mean_flow, POINT, has_dtype=True),
    "consistency of points": Family(densities.consistency_model, POINT, has_dtype=True),
    "ebm": Family(densities.energy_with_chains, POINT, has_dtype=True),
    "ebm, noise contrastive": Family(densities.noise_contrastive_model, POINT, has_dtype=True),
    "jem": Family(densities.joint_energy_model, POINT, has_dtype=True),
    "minimax ebm": Family(densities.minimax_energy_model, POINT, has_dtype=True),
    "rbm": Family(densities.boltzmann_machine),
    "maf": Family(functools.partial(orders_and_labels.autoregressive_flow, inverted=False)),
    "iaf": Family(functools.partial(orders_and_labels.autoregressive_flow, inverted=True)),
    "masked diffusion": _with_dtype(orders_and_labels.masked_diffusion_of_levels),
    "d3pm": _with_dtype(orders_and_labels.diffusion_of_levels),
    "pixelcnn++": _with_dtype(orders_and_labels.pixelcnn_of_whole_pixels),
    "vae, conditional": _with_dtype(orders_and_labels.conditional_vae_of_labels),
    "gan, conditional": Family(orders_and_labels.conditional_gan_of_labels, scale=2.0),
    "vq-vae": _with_dtype(orders_and_labels.autoencoder_of_codes, scale=4.0),
    "text to image": _with_dtype(orders_and_labels.text_to_image),
    "optimal transport of points": Family(densities.optimal_transport, POINT, has_dtype=True),
}
