"""The rows of the contract: one small model per family, in `MODELS`. A new family joins by one row here.

Diffusion, adversarial and energy-based models have theirs in `contract_rows_of_noise`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import (
    autoregressive,
    autoregressive_networks,
    conditional_vae,
    d3pm,
    decoder_likelihoods,
    flow,
    masked_diffusion,
    pixel_conditionals,
    quantizers,
    vae,
    vq_vae,
)
from gm_jax.networks import fvsbn, made, nade, pixelcnn, pixelrnn, transformer, wavenet
from gm_jax.networks.autoencoder import SpatialCodeEncoder, SpatialDecoder
from gm_jax.networks.autoregressive_flow import AutoregressiveFlow
from gm_jax.networks.class_conditional import LabelledInput
from gm_jax.networks.convnet import ConvDecoder, ConvEncoder
from gm_jax.networks.glow import Glow
from gm_jax.networks.masked_transformer import MaskedTransformer
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.networks.nice import NICE
from gm_jax.networks.pixelcnn_pp import PixelCNNPlusPlus
from gm_jax.networks.realnvp import ImageRealNVP, RealNVP
from gm_jax.networks.spline_flow import SplineFlow
from gm_jax.networks.unet import UNet
from gm_jax.ops import binarization, transitions
from tests.models.contract_row import BATCH, STEPS, Row, with_labels
from tests.models.contract_rows_of_noise import ROWS

__all__ = ["BATCH", "MODELS", "STEPS", "Row"]


def _vae(networks, likelihood, objective, *, latent_dim):
    encoder, decoder = networks
    return vae.VAE(
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood,
        latent_dim=latent_dim,
        objective=objective,
        num_importance_samples=4,
    ).model


def _bernoulli_vae():
    likelihood = decoder_likelihoods.bernoulli(
        lambda key, x: binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=17), levels=17
    )
    networks = MLPEncoder((12,), 3), MLPDecoder((12,), (4, 4, 1))
    return _vae(networks, likelihood, vae.elbo_objective(), latent_dim=3)


def _iwae_of_points():
    likelihood = decoder_likelihoods.normal(levels=None)
    networks = MLPEncoder((12,), 2), MLPDecoder((12,), (2,), likelihood.outputs_per_dim)
    objective = vae.iwae_objective(num_samples=3)
    return _vae(networks, likelihood, objective, latent_dim=2)


def _convolutional_vae():
    likelihood = decoder_likelihoods.discretized_logistic(levels=17)
    networks = ConvEncoder((4,), 3, hidden=8), ConvDecoder((4,), (4, 4, 1), likelihood.outputs_per_dim, hidden=8)
    objective = vae.resampled_iwae_objective(num_samples=3)
    return _vae(networks, likelihood, objective, latent_dim=3)


def _conditional_vae():
    likelihood = decoder_likelihoods.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17)
    inner = vae.VAE(
        encoder=LabelledInput(MLPEncoder((12,), 3), 3, flat=True),
        decoder=LabelledInput(MLPDecoder((12,), (4, 4, 1)), 3),
        likelihood=likelihood,
        latent_dim=3,
        objective=vae.elbo_objective(),
        num_importance_samples=4,
    )
    model = conditional_vae.ConditionalVAE(vae=inner, num_classes=3).model
    return with_labels(model, lambda x: x[:, 0, 0, 0].astype(jnp.int32) % 3)


def _binary_pixels(network):
    likelihood = autoregressive_networks.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17)
    return autoregressive.Autoregressive(network=network, likelihood=likelihood, shape=(4, 4, 1)).model


def _fvsbn():
    order = np.arange(16)[None]
    return _binary_pixels(autoregressive_networks.masked_network(fvsbn.FVSBN(16), order, order))


def _nade():
    order = np.arange(16)[None]
    return _binary_pixels(autoregressive_networks.masked_network(nade.NADE(16, 12), order, order))


def _made():
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(16), (2, 1)), axis=1)
    masks = made.mask_sets(orders, (24,))
    return _binary_pixels(autoregressive_networks.masked_network(made.MADE(16, (24,)), masks, orders))


def _gated_pixelcnn():
    network = pixelcnn.GatedPixelCNN((4, 4, 1), levels=2, outputs_per_dim=1, features=4, layers=1, first_size=3)
    return _binary_pixels(autoregressive_networks.image_network(network))


def _pixelcnn_pp():
    network = PixelCNNPlusPlus((4, 4, 1), 17, 6, features=3, blocks=1, scales=2, dropout=0.25)
    return autoregressive.Autoregressive(
        network=pixel_conditionals.whole_pixel_network(network, pixel_conditionals.mixture_of_colors(17)),
        likelihood=autoregressive_networks.discretized_logistic_mixture(levels=17),
        shape=(4, 4, 1),
    ).model


def _pixelrnn():
    network = pixelrnn.PixelRNN(
        (4, 4, 1), levels=2, outputs_per_dim=1, lstm=pixelrnn.DiagonalBiLSTM, hidden=3, layers=1
    )
    return _binary_pixels(autoregressive_networks.image_network(network))


def _masked_diffusion():
    return masked_diffusion.MaskedDiffusion(
        network=MaskedTransformer((4, 4, 1), levels=17, outputs_per_dim=17, features=8, heads=2, layers=1),
        likelihood=autoregressive_networks.categorical(levels=17),
        shape=(4, 4, 1),
        bound_terms=4,
    ).model


def _d3pm():
    return d3pm.D3PM(
        network=UNet((4,), groups=2, dropout=0.1, outputs=17),
        transitions=transitions.gaussian(transitions.linear_betas(5), num_states=17),
        levels=17,
        shape=(4, 4, 1),
        cross_entropy=0.01,
    ).model


def _wavenet():
    network = wavenet.WaveNet(levels=17, outputs_per_dim=17, features=4, skip=6, dilations=(1, 2), kernel_size=2)
    return autoregressive.Autoregressive(
        network=autoregressive_networks.sequence_network(network, length=16),
        likelihood=autoregressive_networks.categorical(levels=17),
        shape=(4, 4, 1),
    ).model


def _transformer():
    network = transformer.CausalTransformer((4, 4, 1), 2, 1, features=8, heads=2, layers=1, dropout=0.25)
    return _binary_pixels(autoregressive_networks.sequence_network(network, length=16))


def _flow(network, *, levels=17):
    dequantization = (
        flow.no_dequantization() if levels is None else flow.uniform_dequantization(levels=levels, alpha=0.05)
    )
    return flow.Flow(network=network, prior=flow.standard_normal(), dequantization=dequantization).model


def _nice():
    return _flow(NICE((4, 4, 1), (12,)))


def _realnvp():
    return _flow(ImageRealNVP((4, 4, 1), scales=1, features=4, blocks=1))


def _realnvp_of_points():
    return _flow(RealNVP((2,), (12,), pairs=2), levels=None)


def _glow():
    return _flow(Glow((4, 4, 1), scales=1, steps=2, features=4))


def _autoregressive_flow(*, inverted):
    return _flow(AutoregressiveFlow((4,), (12,), blocks=2, inverted=inverted), levels=None)


def _spline_flow():
    return _flow(SplineFlow((2,), (12,), blocks=2, num_bins=5), levels=None)


def _vq_vae():
    settings = {"groups": 2}
    network = transformer.CausalTransformer((2, 2, 1), 6, 6, 8, 2, 1)
    return vq_vae.VQVAE(
        encoder=SpatialCodeEncoder((4, 6), 3, **settings),
        decoder=SpatialDecoder((4, 6), (4, 4, 1), 3, **settings),
        likelihood=decoder_likelihoods.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17),
        quantizer=quantizers.EMACodebook(num_codes=6, dim=3),
        prior=autoregressive.Autoregressive(
            network=autoregressive_networks.sequence_network(network, length=4),
            likelihood=autoregressive_networks.codes(num_codes=6),
            shape=(2, 2, 1),
        ),
        vae_steps=100,
    ).model


MODELS = {
    "vae[bernoulli]": Row(_bernoulli_vae, (4, 4, 1), 17, "lower_bound", "binary"),
    "iwae[points]": Row(_iwae_of_points, (2,), None, "lower_bound", "continuous"),
    "vae[conv, discretized_logistic]": Row(_convolutional_vae, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "vae[labels]": Row(_conditional_vae, (4, 4, 1), 17, "lower_bound", "binary"),
    "vq_vae": Row(_vq_vae, (4, 4, 1), 17, "lower_bound", "binary", loss="vae/nll"),
    "fvsbn": Row(_fvsbn, (4, 4, 1), 17, "exact", "binary"),
    "nade": Row(_nade, (4, 4, 1), 17, "exact", "binary"),
    "made[two orderings]": Row(_made, (4, 4, 1), 17, "exact", "binary"),
    "gated pixelcnn": Row(_gated_pixelcnn, (4, 4, 1), 17, "exact", "binary"),
    "pixelcnn++": Row(_pixelcnn_pp, (4, 4, 1), 17, "exact", "17 levels"),
    "pixelrnn": Row(_pixelrnn, (4, 4, 1), 17, "exact", "binary"),
    "d3pm": Row(_d3pm, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "wavenet": Row(_wavenet, (4, 4, 1), 17, "exact", "17 levels"),
    "masked diffusion": Row(_masked_diffusion, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "transformer": Row(_transformer, (4, 4, 1), 17, "exact", "binary"),
    "nice": Row(_nice, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "realnvp": Row(_realnvp, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "realnvp[points]": Row(_realnvp_of_points, (2,), None, "exact", "continuous"),
    "glow": Row(_glow, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "spline flow[points]": Row(_spline_flow, (2,), None, "exact", "continuous"),
    "MAF[points]": Row(functools.partial(_autoregressive_flow, inverted=False), (4,), None, "exact", "continuous"),
    "IAF[points]": Row(functools.partial(_autoregressive_flow, inverted=True), (4,), None, "exact", "continuous"),
    **ROWS,
}
# These compile for half a minute and more; each has a cheaper relative that is always tested.
