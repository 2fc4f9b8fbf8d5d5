"""Autoregressive networks whose outputs define all colours of a pixel at once, as those of PixelCNN++ do.

A network maps images to outputs [B, H, W, Q], which depend on earlier pixels only. A `ColorsFn` turns the Q outputs of
a pixel, and the levels of its colours, into the parameters of one conditional for each colour given the earlier ones.
With it the network is an `OrderedNetwork` like any other, so that likelihoods, completions and samples need no second
way through `autoregressive.Autoregressive`.

Sampling keeps no features: it passes through the whole network once for each pixel, as the source's code does. A
sample of H x W pixels costs H W passes, and its colours only arithmetic.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.autoregressive_networks import OrderedNetwork
from gm_jax.models.decoder_likelihoods import MIN_LOG_SCALE, bounded_below
from gm_jax.ops import checks, color_mixture
from gm_jax.samplers import autoregressive as samplers
from gm_jax.types import Array, Key, PyTree

# (levels of a pixel [..., C], outputs [..., Q]) -> [..., C, P]; colour c reads the levels of earlier colours only.
ColorsFn = Callable[[Array, Array], Array]

INIT_EXAMPLES = 100  # of the batch whose statistics `init` takes, as in the source


def one_color(x: Array, outputs: Array) -> Array:
    """The conditional of images of one channel: the outputs themselves."""
    return outputs[..., None, :]


def mixture_of_colors(levels: int) -> ColorsFn:
    """Each colour has the mixture that the earlier colours leave of the pixel's one, `ops.color_mixture`.

    The results are what `autoregressive_networks.discretized_logistic_mixture` takes: its bound of the log-scales is
    the one used here.

    Args:
        levels: L, the number of levels of the raw data.
    """

    def of_each_color(x: Array, outputs: Array) -> Array:
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        mixture = color_mixture.split_parameters(outputs, channels=x.shape[-1])
        bounded = mixture._replace(log_scales=bounded_below(mixture.log_scales, MIN_LOG_SCALE))
        logit_weights, means, _ = color_mixture.mixture_of_each_color(x, bounded, levels=levels)
        return jnp.concatenate([logit_weights, means, mixture.log_scales], axis=-1)

    return of_each_color


def whole_pixel_network(module: nn.Module, of_each_color: ColorsFn) -> OrderedNetwork:
    """An `OrderedNetwork` of `networks.pixelcnn_pp`.

    Args:
        module: (x [B, H, W, C] levels, label) -> [B, H, W, Q]; it has `event_shape`.
        of_each_color: the conditionals that the outputs of a pixel define.
    """
    shape: tuple[int, int, int] = module.event_shape
    channels, num_dims = shape[-1], math.prod(shape)

    def of_pixels(params: PyTree, x: Array, label: Array | None, dropout_key: Key | None = None) -> Array:
        """Maps levels [B, D] to [B, H W, Q]."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        outputs = jnp.asarray(module.apply({"params": params}, x.reshape(-1, *shape), label, rngs=rngs))
        return outputs.reshape(x.shape[0], num_dims // channels, -1)

    def init(key: Key, x: Array, label: Array | None) -> PyTree:
        x = x.reshape(-1, *shape)
        outputs, variables = module.init_with_output(key, x, label)
        checks.check_outputs("the network", outputs, (*x.shape[:3], "Q"))
        return variables["params"]

    def outputs(params: PyTree, x: Array, label: Array | None, k: int | Array, dropout_key: Key | None = None) -> Array:
        given = of_pixels(params, x, label, dropout_key)
        of_colors = of_each_color(x.reshape(*given.shape[:2], channels), given)
        return of_colors.reshape(*x.shape, -1)

    def conditionals(params: PyTree, label: Array | None, k: int | Array) -> samplers.Conditionals:
        def begin(n: int) -> tuple[Array, Array]:
            x = jnp.zeros((n, num_dims), jnp.int32)
            first = jax.eval_shape(lambda x: of_pixels(params, x, label)[:, 0], x)
            return x, jnp.zeros(first.shape, first.dtype)

        def step(cache: tuple[Array, Array], i: Array, previous: Array) -> tuple[tuple[Array, Array], Array]:
            # At i = 0 this writes the last position, which no output reads.
            x, pixel = cache[0].at[:, i - 1].set(previous), i // channels
            given = jax.lax.cond(i % channels == 0, lambda: of_pixels(params, x, label)[:, pixel], lambda: cache[1])
            colors = jax.lax.dynamic_slice_in_dim(x, pixel * channels, channels, axis=1)
            return (x, given), of_each_color(colors, given)[:, i % channels]

        return samplers.Conditionals(init=begin, step=step)

    return OrderedNetwork(init, outputs, conditionals, np.arange(num_dims)[None], init_examples=INIT_EXAMPLES)
