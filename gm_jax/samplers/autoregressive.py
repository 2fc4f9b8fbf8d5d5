"""Ancestral sampling of autoregressive models: each piece of work once, all of it in one compiled loop.

Notation: x [n, D] integer levels, its columns in the order of generation; position i in 0..D-1; P outputs
parametrise one conditional.

    p(x) = prod_i p(x_i | x_<i),    x_i ~ p(x_i | x_0 ... x_{i-1}),  i = 0 ... D-1                  (1)

In an image of C channels a position is a sub-pixel: D = H * W * C, and raster order is the order of
`x.reshape(n, D)`, channels fastest. A model with another ordering permutes before and after.

A network takes part by two functions, `Conditionals.init` and `Conditionals.step`. A step is told one new value,
x_{i-1}; what it needs of the earlier ones it keeps in its cache: a running activation, rows of feature maps, the state
of a recurrence, queues of a causal convolution. The cache may also hold what every step reads and no step changes,
such as kernels already masked: it costs nothing in the loop. Where work is shared by a whole row of an image,
`Conditionals.begin_row` does it once a row.

The noise of position i is `fold_in(key, i)`, a function of the position alone. So `sample` and `sample_naive`, which
runs the whole network again at every position, draw the same numbers; their outputs differ by rounding, and as draws
are discrete the samples are equal bit for bit, but for a draw that falls within rounding, some 1e-7, of the edge
between two levels: about one binary draw in a million, and of L levels, which have L - 1 edges, so many times more.
What follows such a draw is another sample of the same distribution.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array, Key, PyTree

# (key, outputs [n, P], temperature) -> levels [n] int32
DrawFn = Callable[[Key, Array, float | Array], Array]


class Conditionals(NamedTuple):
    """The conditionals of (1), one after the other.

    Attributes:
        init: (n) -> cache: any pytree of arrays, before anything is known of n samples.
        step: (cache, i, previous) -> (cache, outputs [n, P]): `i` is the position, a traced int32 scalar; `previous`
            [n] int32 is x_{i-1}, the one new piece of information (0 at i = 0, to be ignored there). The outputs
            parametrise p(x_i | x_<i). Called for every i in turn, the positions of a prefix included.
        begin_row: (cache, row, previous) -> cache, called before the first position of each row; `previous` is the
            last level of the row above (0 at row 0), which the first `step` of the row is handed too. None where
            there is no such work.
        row_length: positions in a row, W * C; needed with `begin_row`.
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
    """Draws from (1), one `step` a position.

    Args:
        conditionals: init and step.
        draw: one of this module's `draw_*`.
        key: position i draws with `fold_in(key, i)`.
        n: samples.
        num_positions: D.
        prefix: [n, m] integer levels of the first m <= D positions, kept as they are: the rest is drawn from
            p(x_m ... x_{D-1} | prefix). The top half of an image completes itself so.
        temperature: above 0; logits are divided by it. 1 is the model's distribution, less is more cautious.
    Returns:
        [n, D] int32 levels, in the order of generation.
    Raises:
        AssertionError: the prefix is not integer, not of n rows or longer than D (at trace time).
        ValueError: `begin_row` without a `row_length` that divides D.
    """
    num_given, given = _padded_prefix(prefix, n, num_positions)

    def visit(carry: tuple[PyTree, Array], position: tuple[Array, Key, Array]) -> tuple[tuple[PyTree, Array], Array]:
        (cache, previous), (i, key_i, given_i) = carry, position
        cache, outputs = conditionals.step(cache, i, previous)
        drawn = draw(key_i, outputs, temperature)
        x_i = jnp.where(i < num_given, given_i, drawn) if num_given else drawn
        return (cache, x_i), x_i

    def visit_row(carry: tuple[PyTree, Array], row: tuple[Array, tuple[Array, Key, Array]]):
        (cache, previous), (row_index, positions) = carry, row
        return jax.lax.scan(visit, (conditionals.begin_row(cache, row_index, previous), previous), positions)

    carry = (conditionals.init(n), jnp.zeros(n, jnp.int32))
    indices = jnp.arange(num_positions, dtype=jnp.int32)
    # All keys at once: a loop whose turn is microseconds is the shorter for every operation that it is spared.
    positions = (indices, jax.vmap(lambda i: jax.random.fold_in(key, i))(indices), given.T)
    if conditionals.begin_row is None:
        _, x = jax.lax.scan(visit, carry, positions)
        return x.T
    row_length = conditionals.row_length
    if not row_length or num_positions % row_length:
        raise ValueError(f"rows of {row_length} positions do not fill {num_positions}.")
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
    """The same draws from D passes through the whole network: what `sample` must equal, and is timed against.

    Args:
        outputs_fn: x [n, D] int32 -> outputs [n, D, P], positions in the order of generation: the pass that training
            uses. Output i must not depend on x_i, x_{i+1}, ..., which are 0 while they are unknown.
        draw: as in `sample`.
        key: as in `sample`.
        n: samples.
        num_positions: D.
        prefix: as in `sample`.
        temperature: as in `sample`.
    Returns:
        [n, D] int32 levels, in the order of generation.
    Raises:
        AssertionError: the prefix is not integer, not of n rows or longer than D (at trace time).
    """
    num_given, x = _padded_prefix(prefix, n, num_positions)

    def visit(i: Array, x: Array) -> Array:
        outputs = jax.lax.dynamic_index_in_dim(outputs_fn(x), i, axis=1, keepdims=False)
        return x.at[:, i].set(draw(jax.random.fold_in(key, i), outputs, temperature))

    return jax.lax.fori_loop(num_given, num_positions, visit, x)


def draw_bernoulli(key: Key, outputs: Array, temperature: float | Array = 1.0) -> Array:
    """Draws of 0 or 1.

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
    """Draws of one of L levels, by inverting the cumulative distribution: one uniform number a draw, not L.

    Args:
        key: noise.
        outputs: [n, L] unnormalised log-probabilities.
        temperature: divides them.
    Returns:
        [n] int32, 0 ... L-1.
    """
    chex.assert_rank(outputs, 2)
    cumulative = jnp.cumsum(jax.nn.softmax(outputs / temperature, axis=-1), axis=-1)
    uniform = jax.random.uniform(key, (outputs.shape[0], 1), outputs.dtype)
    # Relative to what the masses sum to in floating point, so that the last level is never overrun.
    x = jnp.sum(cumulative <= uniform * cumulative[:, -1:], axis=-1, dtype=jnp.int32)
    return jnp.minimum(x, outputs.shape[-1] - 1)


def draw_discretized_logistic_mixture(
    key: Key, outputs: Array, temperature: float | Array = 1.0, *, levels: int
) -> Array:
    """Draws of one of L levels from a mixture of logistics, rounded to the nearest: the open end bins take the rest.

    Args:
        key: noise.
        outputs: [n, 3 M]: logits of the weights, means and log-scales of the M components, on the scale where the
            levels span [-1, 1]; as `ops.distributions.discretized_logistic_mixture_log_prob` has them.
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
    return jnp.clip(jnp.round(0.5 * (x + 1.0) * (levels - 1)), 0, levels - 1).astype(jnp.int32)


def _padded_prefix(prefix: Array | None, n: int, num_positions: int) -> tuple[int, Array]:
    """How many positions are given, and [n, D] int32 of them followed by zeros."""
    if prefix is None:
        return 0, jnp.zeros((n, num_positions), jnp.int32)
    chex.assert_type(prefix, int)
    chex.assert_shape(prefix, (n, None))
    num_given = prefix.shape[1]
    if num_given > num_positions:
        raise AssertionError(f"a prefix of {num_given} positions is longer than {num_positions}.")
    return num_given, jnp.pad(prefix.astype(jnp.int32), [(0, 0), (0, num_positions - num_given)])
