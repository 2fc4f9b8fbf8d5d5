"""Discrete diffusion of levels by matrices: the forward process, its posterior, and the reverse step of a prediction.

Notation: K states of a dimension; x_t its state at t = 0 ... T, x_0 the data; beta_t the noise of step t; Q_t [K, K]
with Q_t[i, j] = q(x_t = j | x_(t-1) = i); Qbar_t = Q_1 Q_2 ... Q_t, so Qbar_t[i, j] = q(x_t = j | x_0 = i).

    uniform:     Q_t = (1 - beta_t) I + beta_t / K                                                        (1)
    Gaussian:    Q_t[i, j] = exp(-4 (i - j)^2 / ((K - 1)^2 beta_t)) / Z,  i != j;  the rest stays         (2)
                 Z = sum of the same over n = -(K - 1) ... K - 1 in place of i - j
    absorbing:   Q_t = (1 - beta_t) I + beta_t (everything to the last state, the mask)                   (3)

    posterior:   q(x_(t-1) = i | x_t = j, x_0) = Q_t[i, j] Qbar_(t-1)[x_0, i] / Qbar_t[x_0, j]            (4)
    reverse:     p(x_(t-1) = i | x_t = j) ~ Q_t[i, j] sum_k p(x_0 = k | x_t = j) Qbar_(t-1)[k, i]         (5)

(1) and (2) are doubly stochastic, so that x_T is nearly uniform over the states; (3) ends in the mask. (5) is the
source's: posteriors weighted by the prediction and by q(x_t | x_0 = k). So it is the true reverse step if the
prediction is q(x_0 | x_t) / q(x_t | x_0), up to a factor; with (3) this is q(x_0 | x_t) itself. At t = 1, Qbar_0 = I.

The matrices of all steps are kept: 2 T K^2 numbers, half a gigabyte for K = 256 and T = 1,000.

Source: Austin, Johnson, Ho, Tarlow & van den Berg, "Structured Denoising Diffusion Models in Discrete State-Spaces",
NeurIPS 2021, arXiv:2107.03006, sections 3.1-3.3 and appendix A.2.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array, Key


class Transitions(NamedTuple):
    """A discrete forward process of T steps.

    Attributes:
        log_steps: [T, K, K] log Q_t at index t - 1; impossible transitions are a large negative number.
        log_cumulative: [T + 1, K, K] log Qbar_t at index t.
        log_stationary: [K] log p(x_T), the distribution that the reverse process starts from.
    """

    log_steps: Array
    log_cumulative: Array
    log_stationary: Array

    @property
    def num_steps(self) -> int:
        """T."""
        return self.log_steps.shape[0]

    @property
    def num_states(self) -> int:
        """K."""
        return self.log_steps.shape[1]


_LOG_ZERO = -1e4  # finite, so that differences and gradients are; exp is exactly 0


def linear_betas(num_steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """Returns beta_t [T], a straight line; `beta_min` and `beta_max` are those of 1,000 steps, scaled to T."""
    return np.minimum(np.linspace(beta_min, beta_max, num_steps) * 1_000 / num_steps, 1.0)


def cosine_betas(num_steps: int, *, offset: float = 0.008) -> np.ndarray:
    """Returns beta_t [T] for which prod (1 - beta) falls as the square of a cosine; the last is 1 - 1e-3 at most.

    Source: Nichol & Dhariwal, ICML 2021, arXiv:2102.09672, eq. 17, which D3PM takes for (1).
    """
    phase = (np.arange(num_steps + 1) / num_steps + offset) / (1.0 + offset)
    kept = np.cos(0.5 * np.pi * phase) ** 2
    return np.minimum(1.0 - kept[1:] / kept[:-1], 0.999)


def masking_betas(num_steps: int) -> np.ndarray:
    """Returns beta_t [T] = 1 / (T - t + 1), for which a share t / T is masked at t."""
    return 1.0 / np.arange(num_steps, 0, -1)


def uniform(betas: np.ndarray, *, num_states: int) -> Transitions:
    """Makes the process (1)."""
    identity, others = np.eye(num_states), np.full((num_states, num_states), 1.0 / num_states)
    return from_matrices(np.stack([(1.0 - beta) * identity + beta * others for beta in betas]))


def gaussian(betas: np.ndarray, *, num_states: int) -> Transitions:
    """Makes the process (2), which moves to near levels more often than to far ones."""
    distances = np.arange(1 - num_states, num_states) / max(num_states - 1, 1)
    offsets = np.arange(num_states)[None] - np.arange(num_states)[:, None] + num_states - 1
    steps = []
    for beta in betas:
        weights = np.exp(-4.0 * distances**2 / beta)
        matrix = (weights / weights.sum())[offsets]
        np.fill_diagonal(matrix, 0.0)
        np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
        steps.append(matrix)
    return from_matrices(np.stack(steps))


def absorbing(betas: np.ndarray, *, num_levels: int) -> Transitions:
    """Makes the process (3) of K = `num_levels` + 1 states; the last one is the mask."""
    to_mask = np.zeros((num_levels + 1, num_levels + 1))
    to_mask[:, -1] = 1.0
    steps = np.stack([(1.0 - beta) * np.eye(num_levels + 1) + beta * to_mask for beta in betas])
    return from_matrices(steps, stationary=to_mask[0])


def from_matrices(steps: np.ndarray, *, stationary: np.ndarray | None = None) -> Transitions:
    """Makes a process from Q_t [T, K, K], float64, whose rows sum to 1.

    Args:
        steps: Q_t at index t - 1.
        stationary: [K] distribution of x_T in the reverse process; None for the uniform one.

    Raises:
        ValueError: a row is not a distribution.
    """
    if steps.ndim != 3 or steps.min() < 0.0 or np.abs(steps.sum(axis=2) - 1.0).max() > 1e-9:
        raise ValueError("the rows of each transition matrix must be probabilities that sum to 1.")
    num_states = steps.shape[1]
    cumulative = [np.eye(num_states)]
    for step in steps:
        cumulative.append(cumulative[-1] @ step)
    stationary = np.full(num_states, 1.0 / num_states) if stationary is None else stationary
    return Transitions(*(_log(table) for table in (steps, np.stack(cumulative), stationary)))


def end_divergence(transitions: Transitions) -> float:
    """Returns how far x_T is from p(x_T): the largest KL(q(x_T | x_0) || p(x_T)) over x_0, nats per dimension."""
    log_q = np.asarray(transitions.log_cumulative[-1], np.float64)
    return float(np.sum(np.exp(log_q) * (log_q - np.asarray(transitions.log_stationary)), axis=1).max())


def diffuse(key: Key, transitions: Transitions, x_0: Array, t: Array) -> Array:
    """Draws x_t ~ q(x_t | x_0).

    Args:
        key: noise.
        transitions: the process.
        x_0: [B, D] states.
        t: [B] times, 0 ... T.
    Returns:
        [B, D] int32 states.
    """
    chex.assert_rank([x_0, t], [2, 1])
    log_q = transitions.log_cumulative[t[:, None], x_0]
    return jax.random.categorical(key, log_q, axis=-1).astype(jnp.int32)


def posterior_log_prob(transitions: Transitions, x_0: Array, x_t: Array, t: Array) -> Array:
    """Computes log q(x_(t-1) | x_t, x_0), eq. (4).

    Args:
        transitions: the process.
        x_0: [B, D] states.
        x_t: [B, D] states that x_0 can become.
        t: [B] times, 1 ... T.
    Returns:
        [B, D, K] log-probabilities of x_(t-1).
    """
    chex.assert_equal_shape([x_0, x_t])
    log_p = _log_to(transitions, x_t, t) + transitions.log_cumulative[t[:, None] - 1, x_0]
    return jax.nn.log_softmax(log_p, axis=-1)


def reverse_log_prob(transitions: Transitions, logits: Array, x_t: Array, t: Array) -> Array:
    """Computes log p(x_(t-1) | x_t) of a prediction of x_0, eq. (5).

    Args:
        transitions: the process.
        logits: [B, D, L] of p(x_0 | x_t); L is K, or less if x_0 is never one of the last states, such as the mask.
        x_t: [B, D] states.
        t: [B] times, 1 ... T.
    Returns:
        [B, D, K] log-probabilities of x_(t-1).
    """
    chex.assert_shape(logits, (*x_t.shape, None))
    before = jnp.exp(transitions.log_cumulative[t - 1, : logits.shape[-1]])
    mixed = jnp.einsum("bdl,blk->bdk", jax.nn.softmax(logits, axis=-1), before, precision="highest")
    # The floor keeps the gradient of an impossible state finite.
    log_mixed = jnp.log(jnp.maximum(mixed, jnp.finfo(mixed.dtype).tiny))
    return jax.nn.log_softmax(_log_to(transitions, x_t, t) + log_mixed, axis=-1)


def _log_to(transitions: Transitions, x_t: Array, t: Array) -> Array:
    """Log Q_t[:, x_t] [B, D, K]."""
    return jnp.swapaxes(transitions.log_steps, 1, 2)[t[:, None] - 1, x_t]


def _log(table: np.ndarray) -> Array:
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.maximum(np.log(table), _LOG_ZERO))
