"""Annealed importance sampling: log-weights whose mean exponential estimates a ratio of normalising constants.

Notation: unnormalised densities f_0 ... f_K along a path of inverse temperatures b_0 ... b_K, with normalising
constants Z_0 ... Z_K; T_k is a kernel that leaves f_k / Z_k invariant, and is reversible where a docstring asks for it.

    x_0 ~ f_0 / Z_0,    x_k ~ T_k(. | x_(k-1)),    log w = sum_(k=1)^K log f_k(x_(k-1)) - log f_(k-1)(x_(k-1))     (1)
    E w = Z_K / Z_0,    E log w <= log Z_K - log Z_0                                                               (2)

Run from exact samples of f_K with the path reversed, (1) gives log w' with E log w' <= log Z_0 - log Z_K. So the means
of log w and of -log w' bracket the difference of the log Z from both sides (Grosse, Ghahramani & Adams 2015), and the
two logs of mean exponentials do not: both are estimates, and they may cross.

    log p^(x) = log f_0(x_0) / Z_0 + sum_(k=1)^K log f_k(x_k) - log f_k(x_(k-1)),    x_K = x, downwards            (3)

is a stochastic lower bound of the log-probability that (1) ends in x, the annealed model's (RAISE).

The noise of the step k is `fold_in(key, k)`. f_k and T_k must have the same temperature: weights of another temperature
than that of the draws estimate nothing.

Source: Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; Salakhutdinov & Murray, "On the
quantitative analysis of deep belief networks", ICML 2008; Burda, Grosse & Salakhutdinov, "Accurate and conservative
estimates of MRF log-likelihood using reverse annealing", AISTATS 2015, arXiv:1412.8566.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array, Key

LogDensityFn = Callable[[Array, Array], Array]  # (x [R, ...], beta) -> log f_beta(x) [R], nats, unnormalised
KernelFn = Callable[[Key, Array, Array], Array]  # (key, x [R, ...], beta) -> x [R, ...]


def annealed_importance_sampling(
    key: Key, x_0: Array, betas: Array | np.ndarray, *, log_density_fn: LogDensityFn, kernel_fn: KernelFn
) -> tuple[Array, Array]:
    """Runs R annealed chains along a path, eq. (1).

    Args:
        key: noise of the kernels.
        x_0: [R, ...] exact samples of the density at betas[0].
        betas: [K + 1] inverse temperatures; reversed, with samples of the target, for the other end of the bracket.
        log_density_fn: log f_beta, nats.
        kernel_fn: leaves f_beta invariant.
    Returns:
        log w [R], nats, and the end states [R, ...], after a kernel at the last temperature.
    Raises:
        ValueError: there are fewer than two temperatures.
    """
    betas = _checked(betas, x_0.dtype)

    def step(carry: tuple[Array, Array, Array], at: tuple[Array, Array, Array]) -> tuple[tuple, None]:
        (x, log_w, lost), (k, before, beta) = carry, at
        change = log_density_fn(x, beta) - log_density_fn(x, before)
        log_w, lost = _add(log_w, lost, change)
        return (kernel_fn(jax.random.fold_in(key, k), x, beta), log_w, lost), None

    zeros = jnp.zeros(x_0.shape[0], x_0.dtype)
    (x, log_w, _), _ = jax.lax.scan(step, (x_0, zeros, zeros), (jnp.arange(1, len(betas)), betas[:-1], betas[1:]))
    return log_w, x


def annealed_log_prob(
    key: Key,
    x: Array,
    betas: Array | np.ndarray,
    *,
    log_density_fn: LogDensityFn,
    kernel_fn: KernelFn,
    log_z_0: Array,
) -> Array:
    """Computes the stochastic lower bound (3) on the log-probability of x under the annealed model (RAISE).

    Args:
        key: noise of the kernels.
        x: [B, ...].
        betas: [K + 1] inverse temperatures, rising to the target's.
        log_density_fn: log f_beta, nats.
        kernel_fn: leaves f_beta invariant and is reversible.
        log_z_0: log of the normalising constant at betas[0], scalar.
    Returns:
        [B] nats. The annealed model tends to the target as the path gets finer.
    Raises:
        ValueError: there are fewer than two temperatures.
    """
    betas = _checked(betas, x.dtype)

    def step(carry: tuple[Array, Array, Array], at: tuple[Array, Array]) -> tuple[tuple, None]:
        (x, log_w, lost), (k, beta) = carry, at
        before = kernel_fn(jax.random.fold_in(key, k), x, beta)
        log_w, lost = _add(log_w, lost, log_density_fn(x, beta) - log_density_fn(before, beta))
        return (before, log_w, lost), None

    zeros = jnp.zeros(x.shape[0], x.dtype)
    (x_0, log_w, _), _ = jax.lax.scan(step, (x, zeros, zeros), (jnp.arange(1, len(betas)), betas[1:]), reverse=True)
    return log_w + log_density_fn(x_0, betas[0]) - log_z_0


def spaced_betas(num_temperatures: int) -> np.ndarray:
    """Returns a path from 0 to 1 that spreads what a finite path wastes, as measured on a machine of MNIST.

    The width of the bracket is the sum over the path of what each stretch wastes. With n_i of N temperatures, a stretch
    wastes c_i / n_i, so that n_i in proportion to sqrt(c_i) is best. `published_betas` has 3 % of its temperatures in
    [0, 0.5], where more than half of the width came from; here it is 18 %.

    Args:
        num_temperatures: K + 1, the ends included.
    Returns:
        [K + 1] float64, rising.
    Raises:
        ValueError: there are fewer than two temperatures.
    """
    return _spaced(num_temperatures, [0.0, 0.10, 0.18, 0.30, 0.41, 0.62, 1.0], [0.0, 0.2, 0.5, 0.8, 0.9, 0.96, 1.0])


def published_betas(num_temperatures: int) -> np.ndarray:
    """Returns a path from 0 to 1 in the proportions of Salakhutdinov & Murray (2008).

    500 of 14,500 temperatures lie in [0, 0.5], 4,000 in [0.5, 0.9] and 10,000 in [0.9, 1]. See `spaced_betas` for the
    argument, the result and the error.
    """
    return _spaced(num_temperatures, [0.0, 500 / 14_500, 4_500 / 14_500, 1.0], [0.0, 0.5, 0.9, 1.0])


def _spaced(num_temperatures: int, shares: list[float], betas: list[float]) -> np.ndarray:
    """Returns a path of which the shares of temperatures lie below the given betas."""
    if num_temperatures < 2:
        raise ValueError(f"a path needs at least 2 temperatures, got {num_temperatures}")
    return np.interp(np.linspace(0.0, 1.0, num_temperatures), shares, betas)


def _checked(betas: Array | np.ndarray, dtype: jnp.dtype) -> Array:
    if len(betas) < 2:
        raise ValueError(f"a path needs at least 2 temperatures, got {len(betas)}")
    return jnp.asarray(betas, dtype)


def _add(total: Array, lost: Array, change: Array) -> tuple[Array, Array]:
    """Adds with Kahan's compensation: thousands of small changes of a large float32 lose digits otherwise."""
    change = change - lost
    new = total + change
    return new, (new - total) - change
