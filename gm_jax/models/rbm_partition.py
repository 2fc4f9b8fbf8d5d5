"""The normalising constant of a restricted Boltzmann machine: an exact sum, or annealed importance sampling.

Z is a sum over the states of the smaller side:

    log Z = logsumexp_v -F(v) = logsumexp_h b.h + sum_i softplus(a_i + W_i.h)                        (1)

The annealed path from independent visible units with log-odds b_A and fair hidden units (Salakhutdinov & Murray, ICML
2008) is

    log f_beta(v) = (1 - beta) b_A.v + beta a.v + sum_j softplus(beta (b_j + v.W_j))                 (2)
    log Z_0 = sum_i softplus(b_A,i) + H log 2                                                        (3)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from gm_jax.losses.energy import rbm_free_energy
from gm_jax.networks.rbm import RBM
from gm_jax.samplers import annealing, gibbs
from gm_jax.types import Array, Key, PyTree

MOST_EXACT_UNITS = 20
_CHUNK = 2**12  # states whose free energies are computed at a time


class Path(NamedTuple):
    """The annealed path (2).

    Attributes:
        log_density_fn: (v [R, V], beta) -> log f_beta(v) [R], nats.
        kernel_fn: (key, v, beta) -> v after a sweep of block Gibbs sampling at beta, which is reversible.
        log_z_0: (3), scalar, nats.
    """

    log_density_fn: annealing.LogDensityFn
    kernel_fn: annealing.KernelFn
    log_z_0: Array


def path(network: RBM, params: PyTree, base_logits: Array) -> Path:
    """Returns the path (2) to the model from independent units with log-odds base_logits [V]."""

    def log_density_fn(v: Array, beta: Array) -> Array:
        bias_term, hidden_logits = apply(network, params, v)
        return -rbm_free_energy((1.0 - beta) * (v @ base_logits) + beta * bias_term, beta * hidden_logits)

    def kernel_fn(key: Key, v: Array, beta: Array) -> Array:
        def visible_logits(h: Array) -> Array:
            return (1.0 - beta) * base_logits[None] + beta * apply(network, params, h, "from_hidden")[1]

        return gibbs.block_gibbs_sweep(key, v, lambda v: beta * apply(network, params, v)[1], visible_logits)

    log_2 = jnp.log(jnp.asarray(2.0, base_logits.dtype))
    return Path(log_density_fn, kernel_fn, jnp.sum(jax.nn.softplus(base_logits)) + network.num_hidden * log_2)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AnnealedPartition:
    """How log Z is estimated if no exact sum is possible.

    Attributes:
        summarize: (log Z_0, forward log-weights [R], reverse log-weights [R]) -> a record, such as
            `evaluation.partition.LogPartition`, of scalars, among them log_z, low, high and converged.
        num_temperatures: of the path (2), its ends included.
        num_runs: R, chains in each direction.
        num_sweeps: sweeps from the data to the starts of the reversed chains.
    """

    summarize: Callable[[Array, Array, Array], Any]
    num_temperatures: int = 1_000
    num_runs: int = 100
    num_sweeps: int = 200

    @property
    def starts(self) -> str:
        """Where the reversed chains start, in words."""
        return f"data after {self.num_sweeps:,} sweeps"

    def estimate(self, key: Key, network: RBM, params: PyTree, base_logits: Array, ends: Array) -> Any:
        """Runs chains along the path (2) in both directions, and summarises their weights.

        Args:
            key: noise.
            network: the RBM.
            params: its parameters.
            base_logits: b_A [V].
            ends: [R, V] samples of the model, or what comes close to them: the starts of the reversed chains.
        """
        start_key, forward_key, reverse_key = jax.random.split(key, 3)
        way, betas = path(network, params, base_logits), annealing.spaced_betas(self.num_temperatures)
        starts = gibbs.draw_units(start_key, jnp.broadcast_to(base_logits, (self.num_runs, base_logits.shape[0])))
        functions = {"log_density_fn": way.log_density_fn, "kernel_fn": way.kernel_fn}
        forward, _ = annealing.annealed_importance_sampling(forward_key, starts, betas, **functions)
        reverse, _ = annealing.annealed_importance_sampling(reverse_key, ends, betas[::-1], **functions)
        return self.summarize(way.log_z_0, forward, reverse)


def apply(network: RBM, params: PyTree, units: Array, side: str = "__call__") -> tuple[Array, Array]:
    """Computes the bias term [B] of units [B, N] of one side, and the log-odds [B, M] of the other side."""
    return cast(tuple[Array, Array], network.apply({"params": params}, units, method=side))


def is_exact(network: RBM) -> bool:
    """Returns whether one side has few enough units for `exact_log_z`."""
    return min(network.num_visible, network.num_hidden) <= MOST_EXACT_UNITS


def exact_log_z(network: RBM, params: PyTree) -> Array:
    """Computes (1), nats, by the smaller side, in chunks.

    Raises:
        ValueError: both sides have more than 20 units.
    """
    num_units = min(network.num_visible, network.num_hidden)
    if num_units > MOST_EXACT_UNITS:
        raise ValueError(
            f"log Z is a sum over 2^{num_units} states: one side must have at most {MOST_EXACT_UNITS} units"
        )
    side = "from_hidden" if num_units == network.num_hidden else "__call__"
    chunk, dtype = min(_CHUNK, 2**num_units), jax.tree.leaves(params)[0].dtype

    def log_sum(start: Array) -> Array:
        index = start + jnp.arange(chunk)
        states = ((index[:, None] >> jnp.arange(num_units)[None]) & 1).astype(dtype)
        return jax.nn.logsumexp(-rbm_free_energy(*apply(network, params, states, side)))

    return jax.nn.logsumexp(jax.lax.map(log_sum, jnp.arange(0, 2**num_units, chunk)))
