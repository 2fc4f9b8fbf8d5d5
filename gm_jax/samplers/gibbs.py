"""Block Gibbs sampling of two sets of binary units, each independent given the other set.

    h ~ p(h | v),    v' ~ p(v' | h)                                                                  (1)

One sweep is (1). As a kernel on v it is reversible: p(v) K(v'|v) = sum_h p(v, h) p(v', h) / p(h) is symmetric.
"""

from collections.abc import Callable

import jax

from gm_jax.types import Array, Key

LogitsFn = Callable[[Array], Array]  # units [B, N] of one side -> log-odds [B, M] of the other side


def draw_units(key: Key, logits: Array) -> Array:
    """Draws 0 or 1 with the given log-odds, in their shape and dtype."""
    return (jax.random.uniform(key, logits.shape, logits.dtype) < jax.nn.sigmoid(logits)).astype(logits.dtype)


def block_gibbs_sweep(key: Key, v: Array, hidden_logits_fn: LogitsFn, visible_logits_fn: LogitsFn) -> Array:
    """Takes one sweep (1) from v [B, V] of 0 and 1, floating; the two draws have independent noise."""
    hidden_key, visible_key = jax.random.split(key)
    h = draw_units(hidden_key, hidden_logits_fn(v))
    return draw_units(visible_key, visible_logits_fn(h))


def block_gibbs(
    key: Key, v: Array, hidden_logits_fn: LogitsFn, visible_logits_fn: LogitsFn, *, num_sweeps: int
) -> Array:
    """Takes num_sweeps sweeps (1) from v [B, V]; the noise of sweep i is `fold_in(key, i)`."""

    def sweep(i: Array, v: Array) -> Array:
        return block_gibbs_sweep(jax.random.fold_in(key, i), v, hidden_logits_fn, visible_logits_fn)

    return jax.lax.fori_loop(0, num_sweeps, sweep, v)
