"""Exact numbers in worlds small enough to count: n binary dimensions, 2^n states.

Notation: p the data's distribution over states, q a model's, s the state whose i-th dimension is bit i of s.

    cross-entropy  H(p, q) = -sum_s p(s) log q(s),      KL(p || q) = H(p, q) - H(p, p)             (1)
    total variation  TV(p, q) = 1/2 sum_s |p(s) - q(s)|                                            (2)

The cross-entropy is the expected negative log-likelihood of the model, without the chance of a test split. A model with
a latent of two dimensions and independent pixels given it has q by quadrature,

    q(s) = int N(z; 0, I) prod_i Bernoulli(s_i; logits_i(z)) dz,                                   (3)

by the trapezoid rule on a square grid, which is exact beyond all powers of its spacing for what falls off as a normal
does. The product over dimensions splits in two halves, so that (3) of all states is one product of matrices.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

_MOST_BITS = 24


def all_states(num_bits: int) -> np.ndarray:
    """Every state, [2^n, n] uint8 of 0 and 1, in the order of its index.

    Raises:
        ValueError: there are too many dimensions to count.
    """
    if not 1 <= num_bits <= _MOST_BITS:
        raise ValueError(f"states of {num_bits} bits cannot be counted: 1 to {_MOST_BITS}")
    return ((np.arange(2**num_bits)[:, None] >> np.arange(num_bits)[None]) & 1).astype(np.uint8)


def state_index(x: ArrayLike) -> np.ndarray:
    """The index [N] of each state x [N, ...] of 0 and 1, the inverse of `all_states`."""
    bits = np.asarray(x).reshape(len(x), -1)
    if bits.size and bits.max() > 1:
        raise ValueError("states are made of 0 and 1")
    return bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))


def frequencies(x: ArrayLike) -> np.ndarray:
    """How often each of the 2^n states is seen among x [N, ...], as a distribution [2^n]."""
    x = np.asarray(x)
    return np.bincount(state_index(x), minlength=2 ** math.prod(x.shape[1:])) / len(x)


def entropy(p: np.ndarray) -> float:
    """H(p, p) of (1), nats."""
    seen = p[p > 0]
    return float(-np.sum(seen * np.log(seen)))


def cross_entropy(p: np.ndarray, log_q: np.ndarray) -> float:
    """H(p, q) of (1), nats: the exact expected negative log-likelihood.

    Args:
        p: [S] probabilities; a state that never occurs may have any log q, -inf and NaN included.
        log_q: [S] nats.
    """
    seen = p > 0
    return float(-np.sum(p[seen] * np.asarray(log_q, np.float64)[seen]))


def kl_divergence(p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) of (1), nats: what the model costs beyond the entropy."""
    return cross_entropy(p, log_q) - entropy(p)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """TV(p, q) of (2): between 0 and 1."""
    return float(0.5 * np.sum(np.abs(p - q)))


def expected_total_variation(q: np.ndarray, num_samples: int, *, num_repeats: int = 20, seed: int = 0):
    """What the frequencies of exact draws of q have as their total variation from q: (mean, standard deviation).

    A sampler whose own is more by many deviations does not draw from q.

    Args:
        q: [S] probabilities.
        num_samples: how many are drawn each time.
        num_repeats: how often.
        seed: of the draws.
    """
    q = q / q.sum()
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_samples, q, size=num_repeats) / num_samples
    distances = 0.5 * np.abs(drawn - q[None]).sum(axis=1)
    return float(distances.mean()), float(distances.std(ddof=1))


def latent_log_prob(
    logits_fn: Callable[[np.ndarray], ArrayLike], *, num_bits: int, num_nodes: int = 241, reach: float = 6.5
) -> np.ndarray:
    """Log q of every state under a model with a latent plane, eq. (3).

    Args:
        logits_fn: z [N, 2] float32 -> logits [N, n] of the dimensions being 1.
        num_bits: n, even.
        num_nodes: of the grid, each way.
        reach: the grid spans [-reach, reach], in standard deviations.
    Returns:
        [2^n] float64 nats. The probabilities sum to 1 within the normal's mass outside the grid.
    Raises:
        ValueError: n is odd.
    """
    if num_bits % 2:
        raise ValueError(f"the states are cut in two halves: {num_bits} bits are odd")
    axis = np.linspace(-reach, reach, num_nodes)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_weight = -0.5 * np.square(z).sum(axis=1) - math.log(2.0 * math.pi) + 2.0 * math.log(axis[1] - axis[0])
    half, states = num_bits // 2, all_states(num_bits // 2).astype(np.float64)
    total = np.zeros((len(states), len(states)))
    for start in range(0, len(z), 8192):
        nodes = slice(start, start + 8192)
        logits = np.asarray(logits_fn(z[nodes].astype(np.float32)), np.float64).reshape(-1, num_bits)
        log_off = -np.logaddexp(0.0, logits)
        # log p of a half's state: of all its dimensions being 0, and the logit of each that is 1 on top.
        low, high = (
            np.exp(logits[:, part] @ states.T + log_off[:, part].sum(axis=1, keepdims=True))
            for part in (slice(0, half), slice(half, num_bits))
        )
        total += (high * np.exp(log_weight[nodes])[:, None]).T @ low
    with np.errstate(divide="ignore"):
        return np.log(total.reshape(-1))
