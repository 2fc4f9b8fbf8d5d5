"""Ancestral sampling of autoregressive models in one compiled loop that repeats no work.

Notation: x [n, D] integer levels, its columns in the order of generation; position i in 0..D-1; P outputs
parametrise one conditional.

    p(x) = prod_i p(x_i | x_<i),    x_i ~ p(x_i | x_0 ... x_{i-1}),  i = 0 ... D-1                  (1)

In an image of C channels a position is a sub-pixel: D = H * W * C, and raster order is the order of
`x.reshape(n, D)`, channels fastest. A model with another ordering permutes before and after.

A network provides two functions, `Conditionals.init` and `Conditionals.step`. A step receives one new value, x_{i-1},
and keeps what it needs of the earlier values in its cache: a running activation, rows of feature maps, the state of a
recurrence, queues of a causal convolution. The cache may also hold constants that every step reads, such as masked
kernels; they cost nothing in the loop. `Conditionals.begin_row` does the work that a whole row of an image shares, once
per row.

The noise of position i is `fold_in(key, i)`, a function of the position alone. `sample` and `sample_naive`, which runs
the whole network again at every position, therefore draw the same numbers. Their outputs differ by rounding, but draws
are discrete, so the samples are equal bit for bit unless a draw falls within rounding error (about 1e-7) of the edge
between two levels: about one binary draw in a million, and L - 1 times as many for L levels. After such a draw, the
rest is another sample of the same distribution.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops.levels import from_symmetric
from gm_jax.types import Array, Key, PyTree

# (key, outputs [n, P], temperature) -> levels [n] int32
DrawFn = Callable[[Key, Array, float | Array], Array]


class Conditionals(NamedTuple):
    """The conditionals of (1), evaluated one after the other.

    Attributes:
        init: (n) -> cache: any pytree of arrays, for n samples of which no value is known yet.
        step: (cache, i, previous) -> (cache, outputs [n, P]): `i` is the position, a traced int32 scalar; `previous`
            [n] int32 is x_{i-1}, the one new value (at i = 0 it is 0 and must be ignored). The outputs parametrise
            p(x_i | x_<i). It is called for every i in turn, the positions of a prefix included.
        begin_row: (cache, row, previous) -> cache, called before the first position of each row; `previous` is the
            last level of the row above (0 at row 0), which the first `step` of the row receives too. None if a row
            has no shared work.
        row_length: positions in a row, W * C; required with `begin_row`.
    """

    init: Callable[[int], PyTree]
    step: Callable[[PyTree, Array, Array], tuple[PyTree, Array]]
    begin_row: Callable[[PyTree, Array, Array], PyTree] | None = None
    row_length: int | None = None


def sample(
    conditionals: Conditionals,
    draw: DrawFn,
    key: Key,
    n: int,
    num_positions: int,
    *,
    prefix: Array | None = None,
    temperature: float | Array = 1.0,
) -> Array:
    """Draws samples of (1), one `step` per position.

    Args:
        conditionals: init and step.
        draw: one of this module's `draw_*`.
        key: position i draws with `fold_in(key, i)`.
        n: number of samples.
        num_positions: D.
        prefix: [n, m] integer levels of the first m <= D positions, kept unchanged: the rest is drawn from
            p(x_m ... x_{D-1} | prefix). This completes an image from its top half.
        temperature: above 0; it divides the logits. 1 gives the model's distribution, less gives likelier samples.
    Returns:
        [n, D] int32 levels, in the order of generation.
    Raises:
        ValueError: `begin_row` without a `row_length` that divides D.
    """
    num_given, given = _padded_prefix(prefix, n, num_positions)

    def visit(carry: tuple[PyTree, Array], position: tuple[Array, Key, Array]) -> tuple[tuple[PyTree, Array], Array]:
        (cache, previous), (i, key_i, given_i) = carry, position
        cache, outputs = conditionals.step(cache, i, previous)
        drawn = draw(key_i, outputs, temperature)
        x_i = jnp.where(i < num_given, given_i, drawn) if num_given else drawn
        return (cache, x_i), x_i

    carry = (conditionals.init(n), jnp.zeros(n, jnp.int32))
    indices = jnp.arange(num_positions, dtype=jnp.int32)
    # All keys at once: an iteration takes microseconds, so every operation moved out of it counts.
    positions = (indices, jax.vmap(lambda i: jax.random.fold_in(key, i))(indices), given.T)
    begin_row, row_length = conditionals.begin_row, conditionals.row_length
    if begin_row is None:
        _, x = jax.lax.scan(visit, carry, positions)
        return x.T
    if not row_length or num_positions % row_length:
        raise ValueError(f"row_length must divide the {num_positions} positions; got {row_length}.")

    def visit_row(
        carry: tuple[PyTree, Array], row: tuple[Array, tuple[Array, Key, Array]]
    ) -> tuple[tuple[PyTree, Array], Array]:
        (cache, previous), (row_index, positions) = carry, row
        return jax.lax.scan(visit, (begin_row(cache, row_index, previous), previous), positions)

    num_rows = num_positions // row_length
    rows = jax.tree.map(lambda leaf: leaf.reshape(num_rows, row_length, *leaf.shape[1:]), positions)
    _, x = jax.lax.scan(visit_row, carry, (jnp.arange(num_rows, dtype=jnp.int32), rows))
    return x.reshape(num_positions, n).T


def sample_naive(
    outputs_fn: Callable[[Array], Array],
    draw: DrawFn,
    key: Key,
    n: int,
    num_positions: int,
    *,
    prefix: Array | None = None,
    temperature: float | Array = 1.0,
) -> Array:
    """Draws the same samples as `sample` by D passes through the whole network: its test oracle and baseline.

    Args:
        outputs_fn: x [n, D] int32 -> outputs [n, D, P], positions in the order of generation: the pass that training
            uses. Output i must not depend on x_i, x_{i+1}, ..., which are 0 until they are drawn.
        draw: as in `sample`.
        key: as in `sample`.
        n: number of samples.
        num_positions: D.
        prefix: as in `sample`.
        temperature: as in `sample`.
    Returns:
        [n, D] int32 levels, in the order of generation.
    """
    num_given, x = _padded_prefix(prefix, n, num_positions)

    def visit(i: Array, x: Array) -> Array:
        outputs = jax.lax.dynamic_index_in_dim(outputs_fn(x), i, axis=1, keepdims=False)
        return x.at[:, i].set(draw(jax.random.fold_in(key, i), outputs, temperature))

    return jax.lax.fori_loop(num_given, num_positions, visit, x)


def draw_bernoulli(key: Key, outputs: Array, temperature: float | Array = 1.0) -> Array:
    """Draws 0 or 1 from a Bernoulli.

    Args:
        key: noise.
        outputs: [n, 1] log-odds of 1.
        temperature: divides the log-odds.
    Returns:
        [n] int32, 0 or 1.
    """
    chex.assert_shape(outputs, (None, 1))
    logits = outputs[:, 0] / temperature
    return (jax.random.uniform(key, logits.shape, logits.dtype) < jax.nn.sigmoid(logits)).astype(jnp.int32)


def draw_categorical(key: Key, outputs: Array, temperature: float | Array = 1.0) -> Array:
    """Draws one of L levels by inverting the cumulative distribution: one uniform number per draw, not L.

    Args:
        key: noise.
        outputs: [n, L] unnormalised log-probabilities.
        temperature: divides the log-probabilities.
    Returns:
        [n] int32, 0 ... L-1.
    """
    chex.assert_rank(outputs, 2)
    cumulative = jnp.cumsum(jax.nn.softmax(outputs / temperature, axis=-1), axis=-1)
    uniform = jax.random.uniform(key, (outputs.shape[0], 1), outputs.dtype)
    # Relative to the floating-point sum of the masses, so that the draw never runs past the last level.
    x = jnp.sum(cumulative <= uniform * cumulative[:, -1:], axis=-1, dtype=jnp.int32)
    return jnp.minimum(x, outputs.shape[-1] - 1)


def draw_discretized_logistic_mixture(
    key: Key, outputs: Array, temperature: float | Array = 1.0, *, levels: int
) -> Array:
    """Draws one of L levels from a mixture of logistics, rounded to the nearest level; the end bins are open.

    Args:
        key: noise.
        outputs: [n, 3 M]: logits of the weights, means and log-scales of the M components, on the scale where the
            levels span [-1, 1], as in `ops.distributions.discretized_logistic_mixture_log_prob`.
        temperature: divides the weights' logits and multiplies the scales.
        levels: L, at least 2.
    Returns:
        [n] int32, 0 ... L-1.
    """
    chex.assert_rank(outputs, 2)
    logit_weights, means, log_scales = jnp.split(outputs, 3, axis=-1)
    component_key, noise_key = jax.random.split(key)
    component = draw_categorical(component_key, logit_weights, temperature)[:, None]
    mean, log_scale = (jnp.take_along_axis(leaf, component, axis=-1)[:, 0] for leaf in (means, log_scales))
    noise = jax.random.logistic(noise_key, mean.shape, mean.dtype)
    x = mean + temperature * jnp.exp(log_scale) * noise
    return from_symmetric(x, levels=levels, dtype=jnp.int32)


def _padded_prefix(prefix: Array | None, n: int, num_positions: int) -> tuple[int, Array]:
    """Returns the number of given positions, and [n, D] int32 levels: the prefix followed by zeros."""
    if prefix is None:
        return 0, jnp.zeros((n, num_positions), jnp.int32)
    chex.assert_type(prefix, int)
    chex.assert_shape(prefix, (n, None))
    num_given = prefix.shape[1]
    if num_given > num_positions:
        raise AssertionError(f"The prefix must have at most {num_positions} positions; got {num_given}.")
    return num_given, jnp.pad(prefix.astype(jnp.int32), [(0, 0), (0, num_positions - num_given)])
