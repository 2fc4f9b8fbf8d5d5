"""Normalisations of networks that play against one another: batch, virtual batch, spectral.

Notation: h [B, ..., C] activations, every axis but the last is counted over; W [I, O] a kernel, its taps flattened
into I; gamma and beta [C] learned; m and v mean and variance for each channel.

    batch norm:     y = gamma (h - m) / sqrt(v + eps) + beta,    m, v of the batch; of past ones after training   (1)
    virtual:        the same with m_i, v_i of R reference examples and of example i, R + 1 examples in all        (2)
    spectral norm:  W / sigma,    sigma = a^T W b,  a = W b / |W b|,  b = W^T a / |W^T a|                         (3)

What these layers keep besides parameters are Flax collections, which a model carries in its `model_state`:

    "batch_stats"        running mean and variance of (1)
    "reference_batch"    the fixed examples of (2), as they were given to `init`; never written again
    "spectral_norm"      b of (3), [O] for each layer; the power iteration goes on where it stopped

A network with such layers is applied, in training, with `mutable` naming the collections that its state has:

    variables = {"params": params[player], **model_state[player]}
    outputs, new_state = network.apply(variables, x, train=True, mutable=list(model_state[player]))

and with `train=False`, and no `mutable`, to sample and to evaluate.

A norm is given to a network as a factory, () -> module; the module is called as norm(h, train=...). The layer before it
needs no bias, for beta is one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.types import Array

NormFactory = Callable[[], nn.Module]

_EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Batch normalisation (1): h [B, ..., C] -> the same shape.

    Each example's output depends on the whole batch. Real and generated examples go through a discriminator in two
    calls, so that each is normalised among its own kind.

    Where the train step is mapped over devices, a device sees its part of the batch alone unless `axis_name` names the
    mapped axis; the running statistics are averaged over devices by the train step in any case.

    Attributes:
        axis_name: the mapped axis over which the statistics are taken as well; only inside such a map.
        momentum: of the running statistics.
        dtype: precision of the computation; statistics are float32 at least.

    Source: Ioffe & Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array, *, train: bool) -> Array:
        return nn.BatchNorm(
            use_running_average=not train,
            axis_name=self.axis_name,
            momentum=self.momentum,
            epsilon=_EPSILON,
            dtype=self.dtype,
        )(h)


class VirtualBatchNorm(nn.Module):
    """Virtual batch normalisation (2): h [R + B, ..., C], the reference examples first -> the same shape.

    An example is normalised by the R reference examples and by itself, so its output does not depend on the others of
    its batch. The reference examples are normalised by their own statistics alone. They go through the same network
    with the same parameters, so the gradient reaches the parameters through their statistics too.

    `WithReferenceBatch` puts the reference examples in front and takes them off again.

    Attributes:
        reference_size: R.
        dtype: precision of the result; statistics are float32 at least.

    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
    """

    reference_size: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array, *, train: bool) -> Array:
        del train  # the same in training and after
        size, channels = self.reference_size, h.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        dtype = h.dtype if self.dtype is None else self.dtype
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        reference, examples = h[:size], h[size:]

        def moments(h: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
            return jnp.mean(h, axes, keepdims=True), jnp.var(h, axes, keepdims=True)

        everywhere = tuple(range(h.ndim - 1))
        reference_mean, reference_var = moments(reference, everywhere)
        own_mean, own_var = moments(examples, everywhere[1:])
        # Of R + 1 examples: the mean of means, and the mean of variances plus the variance of means. The shorter
        # E[h^2] - m^2 cancels in float32.
        weight = 1.0 / (size + 1)
        mean = reference_mean + weight * (own_mean - reference_mean)
        var = (1.0 - weight) * (reference_var + jnp.square(reference_mean - mean))
        var = var + weight * (own_var + jnp.square(own_mean - mean))

        def normalize(h: Array, mean: Array, var: Array) -> Array:
            shape = (1,) * (h.ndim - 1) + (channels,)
            return (h - mean) * jax.lax.rsqrt(var + _EPSILON) * scale.reshape(shape) + bias.reshape(shape)

        normalized = (normalize(reference, reference_mean, reference_var), normalize(examples, mean, var))
        return jnp.concatenate(normalized).astype(dtype)


class WithReferenceBatch(nn.Module):
    """A network whose norms are virtual: from outside the network itself, x [B, ...] -> what it returns of them.

    The batch that `init` is called with becomes the reference batch, R examples: latents for a generator, data for a
    discriminator. It is kept in the state and goes through the network in front of every batch, which makes a call as
    dear as one of R + B examples.

    Not around a discriminator with minibatch discrimination: the reference examples would be among those that it
    compares.

    Attributes:
        make_network: (*, norm) -> the network, e.g. `partial(DCGANGenerator, event_shape, features)`.
    """

    make_network: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Any:
        reference = self.variable("reference_batch", "x", lambda: x).value
        size = reference.shape[0]
        if size < 2:
            raise ValueError(f"a reference batch needs at least 2 examples to have statistics: init was given {size}.")
        network = self.make_network(norm=partial(VirtualBatchNorm, reference_size=size))
        outputs = network(jnp.concatenate([reference.astype(x.dtype), x]), train=train)
        return jax.tree.map(lambda leaf: leaf[size:], outputs)


class SpectralNorm(nn.Module):
    """A layer whose kernel is divided by its largest singular value, estimated by power iteration (3).

    The gradient flows through sigma; a and b are constants in it. The iteration takes a step, or several, at each call
    and is kept when training: so it follows the kernel, and evaluation twice over gives the same.

    Attributes:
        layer: a module with a parameter "kernel" [..., O], such as `nn.Dense` or `nn.Conv`. A convolution is
            normalised as the matrix [taps * channels, O], as the paper does: that bounds its norm as an operator only
            up to a factor.
        num_iterations: steps of the power iteration at each call.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, arXiv:1802.05957.
    """

    layer: nn.Module
    num_iterations: int = 1

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        def normalize(variables: Any) -> Any:
            params = dict(variables["params"])
            if "kernel" not in params:  # asked before the layer has made its parameters
                return variables
            kernel = params["kernel"]
            matrix = kernel.reshape(-1, kernel.shape[-1])
            b = self.variable("spectral_norm", "b", self._random_direction, kernel.shape[-1:])
            sigma, new_b = spectral_norm(matrix, b.value, num_iterations=self.num_iterations)
            if self.is_initializing():
                return variables  # `init` stores what it sees here: the kernel, not the divided one
            if train:
                b.value = new_b
            return {"params": {**params, "kernel": kernel / sigma}}

        first = self.is_initializing()
        forward = nn.map_variables(
            lambda layer, x: layer(x), "params", trans_in_fn=normalize, init=first, mutable=first
        )
        return forward(self.layer, x)

    def _random_direction(self, shape: tuple[int, ...]) -> Array:
        return _unit(jax.random.normal(self.make_rng("params"), shape))


def spectral_norm(matrix: Array, b: Array, *, num_iterations: int) -> tuple[Array, Array]:
    """The largest singular value of a matrix by power iteration (3).

    Args:
        matrix: [I, O] W.
        b: [O] where the iteration starts: a unit vector, not orthogonal to the first right singular vector.
        num_iterations: steps, at least 1; an error in sigma shrinks by (sigma_2 / sigma_1)^4 with each.
    Returns:
        sigma, a scalar, differentiable in the matrix: its gradient is a b^T; and b [O] after the last step.
    """
    product = partial(jnp.matmul, precision="highest")  # accelerators would round sigma to three digits
    constant = jax.lax.stop_gradient(matrix)
    for _ in range(num_iterations):
        a = _unit(product(constant, b))
        b = _unit(product(a, constant))
    # A kernel of zeros stays one.
    return jnp.maximum(product(product(a, matrix), b), jnp.finfo(matrix.dtype).tiny), b


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(x.dtype).tiny)
