"""The normalising constant of a deep energy-based model: by quadrature in the plane, else by annealed chains.

    Z = integral of exp(-E)                                                                          (1)
    log f_beta(h) = (1 - beta) log q(h) - beta E(h),    Z_0 = 1                                      (2)

q is a normal density with the mean and the covariance of samples of the model, such as the chains of its training: a
path from there is far shorter than one from noise. Any q gives an unbiased estimate of Z if it does not depend on the
noise of the path. Chains move along (2) by Hamiltonian Monte Carlo, whose step size is the same at every temperature:
one that adapts during the run would make the weights biased.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.losses.flow import standard_normal_log_prob
from gm_jax.samplers import annealing, langevin
from gm_jax.types import Array, Key

_WIDER = 0.1  # share of the variances that the covariance of q has in addition
_FLOOR = 1e-3, 1e-6  # share of the mean variance, and variance, that every dimension of q has at least


class Normal(NamedTuple):
    """A normal density of h [B, ...].

    Attributes:
        mean: [...].
        root: [D, D] lower triangular root of the covariance.
    """

    mean: Array
    root: Array

    def sample(self, key: Key, n: int) -> Array:
        """Draws [n, ...]."""
        z = jax.random.normal(key, (n, self.root.shape[0]), self.root.dtype)
        return self.mean[None] + (z @ self.root.T).reshape(n, *self.mean.shape)

    def log_prob(self, h: Array) -> Array:
        """Computes log q(h) [B], nats."""
        flat = (h - self.mean[None]).reshape(h.shape[0], -1)
        z = jax.scipy.linalg.solve_triangular(self.root, flat.T, lower=True)
        return standard_normal_log_prob(z.T) - jnp.sum(jnp.log(jnp.diag(self.root)))


def fitted_normal(samples: Array) -> Normal:
    """Returns the normal density with the moments of samples [M, ...], a little wider.

    The covariance is diagonal if there are fewer than two samples for each dimension.
    """
    num_samples, dim = samples.shape[0], math.prod(samples.shape[1:])
    flat = samples.reshape(num_samples, dim)
    centred = flat - jnp.mean(flat, axis=0)[None]
    variance = jnp.mean(jnp.square(centred), axis=0)
    covariance = centred.T @ centred / num_samples if num_samples >= 2 * dim else jnp.diag(variance)
    wider = _WIDER * variance + _FLOOR[0] * jnp.mean(variance) + _FLOOR[1]
    return Normal(jnp.mean(samples, axis=0), jnp.linalg.cholesky(covariance + jnp.diag(wider)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """How log Z is computed.

    Attributes:
        summarize: (log Z_0, forward log-weights [R], reverse log-weights [R]) -> a record, such as
            `evaluation.partition.LogPartition`, of scalars, among them log_z, low, high and converged.
        num_temperatures: of the path (2), its ends included.
        num_runs: R, chains in each direction.
        step_size: of a leapfrog step.
        num_leapfrog: leapfrog steps at each temperature.
        num_cells: along each side of the grid in the plane.
        reach: the grid spans [-reach, reach] in both directions.
    """

    summarize: Callable[[Array, Array, Array], Any]
    num_temperatures: int = 500
    num_runs: int = 100
    step_size: float = 0.05
    num_leapfrog: int = 5
    num_cells: int = 400
    reach: float = 6.0

    @property
    def num_transitions(self) -> int:
        """Transitions of Hamiltonian Monte Carlo from the data to the starts of the reversed chains.

        Four for each temperature: chains that still resemble the data when they are reversed put the high end below
        log Z.
        """
        return 4 * self.num_temperatures

    def settings(self, shape: tuple[int, ...], *, is_reversed: bool = False) -> tuple[tuple[str, Any], ...]:
        """Returns what the reader of a likelihood must know of its log Z, or of the end from the reversed chains."""
        if shape == (2,):
            return (("by", "quadrature"), ("cells", self.num_cells**2))
        reversed_chains = f"reversed chains from data after {self.num_transitions:,} transitions"
        by = reversed_chains if is_reversed else "annealed chains"
        return (("temperatures", self.num_temperatures), ("runs", self.num_runs), ("by", by))

    def estimate(
        self, key: Key, energy_fn: langevin.EnergyFn, h: Array, *, samples: Array | None = None
    ) -> dict[str, Array]:
        """Returns log_z and what is known of its error, by name.

        Args:
            key: noise.
            energy_fn: E, [B, ...] -> [B] nats.
            h: [N, ...] data, from which chains run to the starts of the reversed ones.
            samples: [M, ...] about the model's, to which q is fitted; None for h.
        """
        if h.shape[1:] == (2,):
            coarse = dataclasses.replace(self, num_cells=self.num_cells // 2).quadrature(energy_fn)
            log_z, inner = self.quadrature(energy_fn), self.quadrature(energy_fn, share=0.9)
            # The grid is too coarse, or mass lies at its edge and so beyond it.
            doubtful = (jnp.abs(log_z - coarse) > 1e-3) | (log_z - inner > 1e-3)
            return {"log_z": log_z, "not_converged": doubtful}

        def kernel_fn(key: Key, h: Array, beta: Array | float) -> Array:
            step = {"step_size": self.step_size, "num_leapfrog": self.num_leapfrog}
            return langevin.hmc_step(key, h, lambda h: -log_density_fn(h, beta), **step)[0]

        q = fitted_normal(h if samples is None else samples)

        def log_density_fn(h: Array, beta: Array | float) -> Array:
            return (1.0 - beta) * q.log_prob(h) - beta * energy_fn(h)

        start_key, forward_key, end_key, reverse_key = jax.random.split(key, 4)
        path = {"log_density_fn": log_density_fn, "kernel_fn": kernel_fn}
        betas = np.linspace(0.0, 1.0, self.num_temperatures)
        starts = q.sample(start_key, self.num_runs)
        forward, _ = annealing.annealed_importance_sampling(forward_key, starts, betas, **path)

        def move(i: Array, h: Array) -> Array:
            return kernel_fn(jax.random.fold_in(end_key, i), h, 1.0)

        ends = jnp.resize(h, (self.num_runs, *h.shape[1:]))
        ends = jax.lax.fori_loop(0, self.num_transitions, move, ends)
        reverse, _ = annealing.annealed_importance_sampling(reverse_key, ends, betas[::-1], **path)
        found = self.summarize(jnp.zeros((), h.dtype), forward, reverse)._asdict()
        not_converged = ~found.pop("converged")
        found = {name if name == "log_z" else f"log_z_{name}": value for name, value in found.items()}
        return {**found, "not_converged": not_converged}

    def quadrature(self, energy_fn: langevin.EnergyFn, *, share: float = 1.0) -> Array:
        """Computes log Z in the plane by the midpoint rule, or the part of it in a share of the grid's sides.

        Its error falls with the square of the cells, or faster.
        """
        cell = 2.0 * self.reach / self.num_cells
        middles = -self.reach + cell * (jnp.arange(self.num_cells) + 0.5)
        is_inside = jnp.abs(middles) <= share * self.reach

        def log_sum(row: Array) -> Array:
            log_f = -energy_fn(jnp.stack([jnp.full_like(middles, row), middles], axis=1))
            return jax.nn.logsumexp(jnp.where(is_inside & (jnp.abs(row) <= share * self.reach), log_f, -jnp.inf))

        return jax.nn.logsumexp(jax.lax.map(log_sum, middles)) + 2.0 * math.log(cell)
