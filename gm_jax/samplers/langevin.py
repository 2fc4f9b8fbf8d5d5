"""Markov chains on continuous x for exp(-E(x) / T): Langevin approximately, MALA and Hamiltonian Monte Carlo exactly.

Notation: e is the step size, z is standard normal, T the temperature (1 for the model itself).

    Langevin:  x' = x - e/2 dE(x) + sqrt(e T) z                                                      (1)
    MALA:      propose by (1), T = 1, accept with min(1, exp(E(x) - E(x')) q(x | x') / q(x' | x))    (2)
    HMC:       momentum p ~ N(0, I), L leapfrog steps of length e, T = 1,
               accept with min(1, exp(-dH)),    H = E(x) + |p|^2 / 2                                 (3)

(1) has a bias that falls with e: for E = x^2 / 2 its stationary variance is 1 / (1 - e/4) in place of 1. (2) and (3)
have none. Step and noise of (1) belong together: a chain x - s dE(x) + n z samples exp(-E / T) with T = n^2 / (2 s).
With the s = 10 and n = 0.005 of Du & Mordatch (2019), T is about one millionth.

All functions take x [B, ...] and energy_fn: [B, ...] -> [B] nats. The examples are independent chains: each has its own
acceptance, and no example depends on its neighbours.

Source: Roberts & Tweedie, "Exponential convergence of Langevin distributions", Bernoulli 2, 1996; Neal, "MCMC using
Hamiltonian dynamics", 2011, arXiv:1206.1901.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array, Key

EnergyFn = Callable[[Array], Array]  # x [B, ...] -> [B] nats
Slope = tuple[Array, Array]  # E(x) [B] and its gradient [B, ...]


def langevin_step(
    key: Key, x: Array, energy_fn: EnergyFn, *, step_size: float | Array, temperature: float | Array = 1.0
) -> Array:
    """Takes one unadjusted step (1)."""
    return gradient_step(key, x, _slope(energy_fn, x)[1], step_size, temperature)


def langevin(
    key: Key,
    x: Array,
    energy_fn: EnergyFn,
    *,
    num_steps: int,
    step_size: float | Array,
    temperature: float | Array = 1.0,
    clip_gradient: float | None = None,
) -> Array:
    """Takes num_steps steps (1); the noise of step i is `fold_in(key, i)`.

    Args:
        key: noise.
        x: [B, ...].
        energy_fn: [B, ...] -> [B] nats.
        num_steps: steps.
        step_size: e.
        temperature: T.
        clip_gradient: largest absolute value of an entry of the gradient (Du & Mordatch 2019 use 0.01); None for any.
    """

    def step(i: Array, x: Array) -> Array:
        gradient = _slope(energy_fn, x)[1]
        if clip_gradient is not None:
            gradient = jnp.clip(gradient, -clip_gradient, clip_gradient)
        return gradient_step(jax.random.fold_in(key, i), x, gradient, step_size, temperature)

    return jax.lax.fori_loop(0, num_steps, step, x)


def mala_step(key: Key, x: Array, energy_fn: EnergyFn, *, step_size: float | Array) -> tuple[Array, Array]:
    """Takes one Metropolis-adjusted step (2) at T = 1.

    Returns:
        x [B, ...], and whether each proposal was accepted, bool [B].
    """
    x, _, accepted = _mala_step(key, x, _slope(energy_fn, x), energy_fn, step_size)
    return x, accepted


def mala(key: Key, x: Array, energy_fn: EnergyFn, *, num_steps: int, step_size: float | Array) -> tuple[Array, Array]:
    """Takes num_steps steps (2) with one gradient each; the noise of step i is `fold_in(key, i)`.

    Returns:
        x [B, ...], and the share of accepted proposals [B].
    """

    def step(key: Key, x: Array, slope: Slope) -> tuple[Array, Slope, Array]:
        return _mala_step(key, x, slope, energy_fn, step_size)

    return _many(key, x, energy_fn, step, num_steps)


def hmc_step(
    key: Key, x: Array, energy_fn: EnergyFn, *, step_size: float | Array, num_leapfrog: int
) -> tuple[Array, Array]:
    """Takes one step (3) of Hamiltonian Monte Carlo.

    Args:
        key: noise.
        x: [B, ...].
        energy_fn: [B, ...] -> [B] nats.
        step_size: e, length of a leapfrog step.
        num_leapfrog: L.
    Returns:
        x [B, ...], and whether each proposal was accepted, bool [B].
    """
    x, _, accepted = _hmc_step(key, x, _slope(energy_fn, x), energy_fn, step_size, num_leapfrog)
    return x, accepted


def hmc(
    key: Key, x: Array, energy_fn: EnergyFn, *, num_steps: int, step_size: float | Array, num_leapfrog: int
) -> tuple[Array, Array]:
    """Takes num_steps steps (3) with L gradients each; the noise of step i is `fold_in(key, i)`.

    See `hmc_step` for the arguments.

    Returns:
        x [B, ...], and the share of accepted proposals [B].
    """

    def step(key: Key, x: Array, slope: Slope) -> tuple[Array, Slope, Array]:
        return _hmc_step(key, x, slope, energy_fn, step_size, num_leapfrog)

    return _many(key, x, energy_fn, step, num_steps)


def leapfrog(
    x: Array, momentum: Array, energy_fn: EnergyFn, *, step_size: float | Array, num_steps: int
) -> tuple[Array, Array]:
    """Integrates Hamilton's equations; with the momentum reversed it runs back to its start."""
    return _leapfrog(x, momentum, _slope(energy_fn, x), energy_fn, step_size, num_steps)[:2]


def _mala_step(
    key: Key, x: Array, slope: Slope, energy_fn: EnergyFn, step_size: float | Array
) -> tuple[Array, Slope, Array]:
    noise_key, accept_key = jax.random.split(key)
    energy, gradient = slope
    proposal = gradient_step(noise_key, x, gradient, step_size, 1.0)
    new_energy, new_gradient = _slope(energy_fn, proposal)

    def log_q(to: Array, start: Array, gradient: Array) -> Array:
        return -sum_except_batch(jnp.square(to - start + 0.5 * step_size * gradient)) / (2.0 * step_size)

    log_ratio = energy - new_energy + log_q(x, proposal, new_gradient) - log_q(proposal, x, gradient)
    accepted = _accepted(accept_key, log_ratio)
    return _where(accepted, proposal, x), _where_slope(accepted, (new_energy, new_gradient), slope), accepted


def _hmc_step(
    key: Key, x: Array, slope: Slope, energy_fn: EnergyFn, step_size: float | Array, num_leapfrog: int
) -> tuple[Array, Slope, Array]:
    momentum_key, accept_key = jax.random.split(key)
    momentum = jax.random.normal(momentum_key, x.shape, x.dtype)
    proposal, new_momentum, new_slope = _leapfrog(x, momentum, slope, energy_fn, step_size, num_leapfrog)

    def hamiltonian(energy: Array, momentum: Array) -> Array:
        return energy + 0.5 * sum_except_batch(jnp.square(momentum))

    change = hamiltonian(slope[0], momentum) - hamiltonian(new_slope[0], new_momentum)
    accepted = _accepted(accept_key, change)
    return _where(accepted, proposal, x), _where_slope(accepted, new_slope, slope), accepted


def _leapfrog(
    x: Array, momentum: Array, slope: Slope, energy_fn: EnergyFn, step_size: float | Array, num_steps: int
) -> tuple[Array, Array, Slope]:
    """Carries the slope from step to step, so that each step computes one gradient."""

    def step(_: Array, state: tuple[Array, Array, Slope]) -> tuple[Array, Array, Slope]:
        x, momentum, (_, gradient) = state
        momentum = momentum - 0.5 * step_size * gradient
        x = x + step_size * momentum
        slope = _slope(energy_fn, x)
        return x, momentum - 0.5 * step_size * slope[1], slope

    return jax.lax.fori_loop(0, num_steps, step, (x, momentum, slope))


def _many(
    key: Key, x: Array, energy_fn: EnergyFn, step: Callable[..., tuple[Array, Slope, Array]], num_steps: int
) -> tuple[Array, Array]:
    """Takes steps (key, x, slope) -> (x, slope, accepted), and counts what is accepted."""

    def body(i: Array, state: tuple[Array, Slope, Array]) -> tuple[Array, Slope, Array]:
        x, slope, count = state
        x, slope, accepted = step(jax.random.fold_in(key, i), x, slope)
        return x, slope, count + accepted

    start = (x, _slope(energy_fn, x), jnp.zeros(x.shape[0], x.dtype))
    x, _, count = jax.lax.fori_loop(0, num_steps, body, start)
    return x, count / num_steps


def gradient_step(key: Key, x: Array, gradient: Array, step_size: float | Array, temperature: float | Array) -> Array:
    """Computes (1) from the gradient dE [B, ...], which is minus the score of the density."""
    noise = jax.random.normal(key, x.shape, x.dtype)
    return x - 0.5 * step_size * gradient + jnp.sqrt(step_size * temperature) * noise


def _slope(energy_fn: EnergyFn, x: Array) -> Slope:
    """Returns E(x) [B] and its gradient [B, ...]."""
    energy, pullback = jax.vjp(energy_fn, x)
    return energy, pullback(jnp.ones_like(energy))[0]


def _accepted(key: Key, log_ratio: Array) -> Array:
    """Accepts each proposal with probability min(1, exp(log_ratio)); one that is NaN is refused."""
    return jnp.log(jax.random.uniform(key, log_ratio.shape, log_ratio.dtype)) < log_ratio


def _where(accepted: Array, new: Array, old: Array) -> Array:
    return jnp.where(accepted.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def _where_slope(accepted: Array, new: Slope, old: Slope) -> Slope:
    return _where(accepted, new[0], old[0]), _where(accepted, new[1], old[1])
