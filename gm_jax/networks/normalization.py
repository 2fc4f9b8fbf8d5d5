"""Normalisations: group, batch, virtual batch, spectral and weight.

Notation: h [B, ..., C] activations, and every axis but the last counts as a place; W [I, O] a kernel whose taps are
flattened into I; gamma and beta [C] learned; m and v mean and variance.

    group norm:     y = gamma (h - m) / sqrt(v + eps) + beta,    m, v of the places and a group's channels        (1)
    batch norm:     m, v of each channel over the batch; running averages in evaluation                          (2)
    virtual:        m_i, v_i of each channel over R reference examples and example i, R + 1 examples in all       (3)
    spectral norm:  W / sigma,    sigma = a^T W b,  a = W b / |W b|,  b = W^T a / |W^T a|                         (4)
    weight norm:    g_o V_o / |V_o| for each output o, with V [I, O] and g [O] learned                           (5)

These layers keep their state in Flax collections, which a model carries in its `model_state`:

    "batch_stats"        running mean and variance of (2)
    "reference_batch"    the fixed examples of (3), which `init` was given; never written again
    "spectral_norm"      b of (4), [O] for each layer; the power iteration continues from it

In training, a network with such layers is applied with `mutable` naming its collections:

    variables = {"params": params[player], **model_state[player]}
    outputs, new_state = network.apply(variables, x, train=True, mutable=list(model_state[player]))

and with `train=False`, without `mutable`, to sample and to evaluate.

A network receives its norm as a factory, () -> module, and calls the module as norm(h, train=...). The layer before a
norm needs no bias, because beta is one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.ops.cpu import group_norm
from gm_jax.types import Array

NormFactory = Callable[[], nn.Module]

_EPSILON = 1e-5


class GroupNorm(nn.Module):
    """Group normalisation (1): h [B, ..., C] -> the same shape, independently for each example.

    Attributes:
        groups: number of groups of neighbouring channels; it divides C.
        dtype: precision of the result; statistics are float32 at least.

    Source: Wu & He, "Group Normalization", ECCV 2018, arXiv:1803.08494.
    """

    groups: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Maps h [B, ..., C] to the same shape.

        Raises:
            ValueError: `groups` does not divide C.
        """
        scale = self.param("scale", nn.initializers.ones, (h.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (h.shape[-1],))
        dtype = h.dtype if self.dtype is None else self.dtype
        return group_norm(h, scale, bias, groups=self.groups, epsilon=_EPSILON).astype(dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (2): h [B, ..., C] -> the same shape.

    Each example's output depends on the whole batch. Real and generated examples pass through a discriminator in two
    calls, so that each kind is normalised separately.

    If the train step is mapped over devices, a device sees only its part of the batch unless `axis_name` names the
    mapped axis. The train step averages the running statistics over devices in either case.

    Attributes:
        axis_name: the mapped axis over which statistics are averaged too; valid only inside such a map.
        momentum: decay of the running statistics.
        dtype: precision of the computation; statistics are float32 at least.

    Source: Ioffe & Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array, *, train: bool) -> Array:
        """Maps h [B, ..., C] to the same shape; `train` selects the batch's statistics or the running ones."""
        return nn.BatchNorm(
            use_running_average=not train,
            axis_name=self.axis_name,
            momentum=self.momentum,
            epsilon=_EPSILON,
            use_fast_variance=False,  # E[h^2] - m^2 cancels in float32 if the mean is large
            dtype=self.dtype,
        )(h)


class VirtualBatchNorm(nn.Module):
    """Virtual batch normalisation (3): h [R + B, ..., C], the reference examples first -> the same shape.

    Each example is normalised with the R reference examples and itself, so its output does not depend on the rest of
    its batch. The reference examples are normalised with their own statistics alone. They pass through the same network
    with the same parameters, so gradients flow through their statistics too.

    `WithReferenceBatch` prepends the reference examples and removes them again.

    Attributes:
        reference_size: R.
        dtype: precision of the result; statistics are float32 at least.

    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
    """

    reference_size: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array, *, train: bool) -> Array:
        """Maps h [R + B, ..., C] to the same shape, in training and in evaluation alike."""
        del train
        size, channels = self.reference_size, h.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        dtype = h.dtype if self.dtype is None else self.dtype
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        reference, examples = h[:size], h[size:]

        def moments(h: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
            return jnp.mean(h, axes, keepdims=True), jnp.var(h, axes, keepdims=True)

        all_axes = tuple(range(h.ndim - 1))
        reference_mean, reference_var = moments(reference, all_axes)
        own_mean, own_var = moments(examples, all_axes[1:])
        # The total variance is the mean of variances plus the variance of means; E[h^2] - m^2 cancels in float32.
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
    """A network with virtual batch norms, used like one without: x [B, ...] -> the network's outputs for x.

    The batch given to `init` becomes the reference batch of R examples: latents for a generator, data for a
    discriminator. It is kept in the state and passes through the network together with every batch, so a call costs as
    much as one on R + B examples.

    Do not wrap a discriminator with minibatch discrimination: it would compare the reference examples too.

    Attributes:
        make_network: (*, norm) -> the network, e.g. `partial(DCGANGenerator, event_shape, features)`.
    """

    make_network: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Any:
        """Maps x [B, ...] to the network's outputs.

        Raises:
            ValueError: `init` was given fewer than 2 examples.
        """
        reference = self.variable("reference_batch", "x", lambda: x).value
        size = reference.shape[0]
        if size < 2:
            raise ValueError(f"a reference batch needs at least 2 examples, but init got {size}: pass a larger batch.")
        network = self.make_network(norm=partial(VirtualBatchNorm, reference_size=size))
        outputs = network(jnp.concatenate([reference.astype(x.dtype), x]), train=train)
        return jax.tree.map(lambda leaf: leaf[size:], outputs)


class SpectralNorm(nn.Module):
    """A layer whose kernel is divided by its largest singular value, estimated by power iteration (4).

    The gradient flows through sigma, with a and b as constants. Each call takes `num_iterations` steps. Training stores
    the result, so the iteration follows the kernel; evaluation does not, so it is repeatable.

    Attributes:
        layer: a module with a parameter "kernel" [..., O], such as `nn.Dense` or `nn.Conv`. A convolution is
            normalised as the matrix [taps * channels, O], as in the paper, which bounds its operator norm only up to a
            factor.
        num_iterations: steps of the power iteration in each call.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, arXiv:1802.05957.
    """

    layer: nn.Module
    num_iterations: int = 1

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Applies the normalised layer to x; `train` stores the iteration's b."""

        def normalize(variables: Any) -> Any:
            params = dict(variables["params"])
            if "kernel" not in params:  # the layer has not created its parameters yet
                return variables
            kernel = params["kernel"]
            matrix = kernel.reshape(-1, kernel.shape[-1])
            b = self.variable("spectral_norm", "b", self._random_direction, kernel.shape[-1:])
            sigma, new_b = spectral_norm(matrix, b.value, num_iterations=self.num_iterations)
            if self.is_initializing():
                return variables  # `init` stores what it gets here: the kernel, not the normalised kernel
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
    """Estimates the largest singular value of a matrix by power iteration (4).

    Args:
        matrix: [I, O] W.
        b: [O] start of the iteration: a unit vector, not orthogonal to the first right singular vector.
        num_iterations: steps, at least 1; each shrinks an error in sigma by (sigma_2 / sigma_1)^4.
    Returns:
        sigma, a scalar, differentiable in the matrix: its gradient is a b^T; and b [O] after the last step.
    """
    product = partial(jnp.matmul, precision="highest")  # accelerators would round sigma to three digits
    constant = jax.lax.stop_gradient(matrix)
    for _ in range(num_iterations):
        a = _unit(product(constant, b))
        b = _unit(product(a, constant))
    # The lower bound keeps a kernel of zeros finite.
    return jnp.maximum(product(product(a, matrix), b), jnp.finfo(matrix.dtype).tiny), b


def weight_norm(kernel: Array, length: Array) -> Array:
    """Computes the weights (5), whose length and direction are parameters of their own.

    Args:
        kernel: [..., O] V, not zero for any output.
        length: [O] g.
    Returns:
        [..., O] weights.
    Source: Salimans & Kingma, "Weight Normalization", NeurIPS 2016, arXiv:1602.07868, eq. 2.
    """
    inputs = tuple(range(kernel.ndim - 1))
    return kernel * jnp.expand_dims(length / jnp.sqrt(jnp.sum(jnp.square(kernel), axis=inputs)), inputs)


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(x.dtype).tiny)
