"""The normalising constant of a deep energy-based model: by quadrature in the plane, else by annealed chains.

    E(h) = f(h) + |h|^2 / (2 s^2),    Z = integral of exp(-E)                                        (1)
    log f_beta(h) = -|h|^2 / (2 s^2) - beta f(h),    Z_0 = (2 pi s^2)^(D/2)                          (2)

Chains move along (2) by Hamiltonian Monte Carlo, whose step size is the same at every temperature: one that adapts
during the run would make the weights biased.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops.reductions import sum_except_batch
from gm_jax.samplers import annealing, langevin
from gm_jax.types import Array, Key


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

    def settings(self, shape: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """Returns what the reader of a likelihood must know of its log Z."""
        if shape == (2,):
            return (("by", "quadrature"), ("cells", self.num_cells**2))
        return (("temperatures", self.num_temperatures), ("runs", self.num_runs))

    def estimate(self, key: Key, network_fn: langevin.EnergyFn, base_std: float, h: Array) -> dict[str, Array]:
        """Returns log_z and what is known of its error, by name.

        Args:
            key: noise.
            network_fn: f, [B, ...] -> [B] nats.
            base_std: s.
            h: [N, ...] data, from which chains run to the starts of the reversed ones.
        """

        def energy_at(beta: Array | float) -> langevin.EnergyFn:
            return lambda h: sum_except_batch(jnp.square(h)) / (2.0 * base_std**2) + beta * network_fn(h)

        if h.shape[1:] == (2,):
            coarse = dataclasses.replace(self, num_cells=self.num_cells // 2).quadrature(energy_at(1.0))
            log_z, inner = self.quadrature(energy_at(1.0)), self.quadrature(energy_at(1.0), share=0.9)
            # The grid is too coarse, or mass lies at its edge and so beyond it.
            doubtful = (jnp.abs(log_z - coarse) > 1e-3) | (log_z - inner > 1e-3)
            return {"log_z": log_z, "not_converged": doubtful}

        def kernel_fn(key: Key, h: Array, beta: Array | float) -> Array:
            step = {"step_size": self.step_size, "num_leapfrog": self.num_leapfrog}
            return langevin.hmc_step(key, h, energy_at(beta), **step)[0]

        start_key, forward_key, end_key, reverse_key = jax.random.split(key, 4)
        path = {"log_density_fn": lambda h, beta: -energy_at(beta)(h), "kernel_fn": kernel_fn}
        betas = np.linspace(0.0, 1.0, self.num_temperatures)
        starts = base_std * jax.random.normal(start_key, (self.num_runs, *h.shape[1:]))
        forward, _ = annealing.annealed_importance_sampling(forward_key, starts, betas, **path)

        def move(i: Array, h: Array) -> Array:
            return kernel_fn(jax.random.fold_in(end_key, i), h, 1.0)

        ends = jnp.resize(h, (self.num_runs, *h.shape[1:]))
        ends = jax.lax.fori_loop(0, self.num_temperatures // 5 + 1, move, ends)
        reverse, _ = annealing.annealed_importance_sampling(reverse_key, ends, betas[::-1], **path)
        log_z_0 = math.prod(h.shape[1:]) * math.log(base_std * math.sqrt(2.0 * math.pi))
        found = self.summarize(jnp.asarray(log_z_0, h.dtype), forward, reverse)._asdict()
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
