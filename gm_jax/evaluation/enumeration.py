"""Exact numbers in worlds small enough to enumerate: n binary dimensions, 2^n states.

Notation: p is the data's distribution over states and q a model's; s is the state whose i-th dimension is bit i of s.

    cross-entropy  H(p, q) = -sum_s p(s) log q(s),      KL(p || q) = H(p, q) - H(p, p)             (1)
    total variation  TV(p, q) = 1/2 sum_s |p(s) - q(s)|                                            (2)

The cross-entropy is the model's expected negative log-likelihood, without the randomness of a test split. If a model
has a latent of two dimensions, and pixels that are independent given the latent, quadrature gives q,

    q(s) = int N(z; 0, I) prod_i Bernoulli(s_i; logits_i(z)) dz,                                   (3)

with the trapezoid rule on a square grid; its error falls faster than any power of the spacing, because the integrand
decays as a normal density. The product over dimensions splits into two halves, so (3) for all states is one matrix
product.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from gm_jax.evaluation.results import Record
from gm_jax.types import Key, Likelihood, LikelihoodKind

StateLogProbFn = Callable[[np.ndarray, Key], Likelihood]  # (states [N, ...], key) -> [N] nats, one draw of the noise

_MOST_BITS = 24
_CHUNK = 4096  # states evaluated at a time


class StateLogProb(NamedTuple):
    """The log-probabilities that a model gives to the states of a small world.

    Attributes:
        log_q: [S] float64 nats; NaN for a state that was not computed because the data never contain it.
        kind: kind of the statement, see `types.Likelihood`.
        method: how log_q was computed, e.g. "enumeration".
    """

    log_q: np.ndarray
    kind: LikelihoodKind
    method: str


def all_states(num_bits: int) -> np.ndarray:
    """Returns every state, [2^n, n] uint8 of 0 and 1, in the order of its index.

    Raises:
        ValueError: there are too many dimensions to enumerate.
    """
    if not 1 <= num_bits <= _MOST_BITS:
        raise ValueError(f"cannot enumerate states of {num_bits} bits: use 1 to {_MOST_BITS}")
    return ((np.arange(2**num_bits)[:, None] >> np.arange(num_bits)[None]) & 1).astype(np.uint8)


def state_index(x: ArrayLike) -> np.ndarray:
    """Returns the index [N] of each state x [N, ...] of 0 and 1: the inverse of `all_states`."""
    x = np.asarray(x)
    bits = x.reshape(len(x), -1)
    if bits.size and bits.max() > 1:
        raise ValueError(f"states must consist of 0 and 1, got {bits.max()}")
    return bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))


def frequencies(x: ArrayLike) -> np.ndarray:
    """Returns the relative frequency of each of the 2^n states among x [N, ...], a distribution [2^n]."""
    x = np.asarray(x)
    return np.bincount(state_index(x), minlength=2 ** math.prod(x.shape[1:])) / len(x)


def entropy(p: np.ndarray) -> float:
    """Computes H(p, p) of (1), nats."""
    seen = p[p > 0]
    return float(-np.sum(seen * np.log(seen)))


def cross_entropy(p: np.ndarray, log_q: np.ndarray) -> float:
    """Computes H(p, q) of (1), nats: the exact expected negative log-likelihood.

    Args:
        p: [S] probabilities.
        log_q: [S] nats; any value, also -inf and NaN, where p is 0.
    """
    seen = p > 0
    return float(-np.sum(p[seen] * np.asarray(log_q, np.float64)[seen]))


def kl_divergence(p: np.ndarray, log_q: np.ndarray) -> float:
    """Computes KL(p || q) of (1), nats: what the model costs in addition to the entropy."""
    return cross_entropy(p, log_q) - entropy(p)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Computes TV(p, q) of (2): between 0 and 1."""
    return float(0.5 * np.sum(np.abs(p - q)))


def expected_total_variation(
    q: np.ndarray, num_samples: int, *, num_repeats: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Simulates the total variation between q and the frequencies of exact draws: (mean, standard deviation).

    A sampler whose total variation is larger by many standard deviations does not draw from q.

    Args:
        q: [S] probabilities.
        num_samples: number of draws in each repeat.
        num_repeats: number of repeats.
        seed: seed of the draws.
    """
    q = q / q.sum()
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_samples, q, size=num_repeats) / num_samples
    distances = 0.5 * np.abs(drawn - q[None]).sum(axis=1)
    return float(distances.mean()), float(distances.std(ddof=1))


def enumerated(log_prob_fn: StateLogProbFn, states: np.ndarray) -> StateLogProb:
    """Evaluates an exact log-probability on all states [S, ...]."""
    chunks = [log_prob_fn(states[start : start + _CHUNK], jax.random.key(0)) for start in range(0, len(states), _CHUNK)]
    log_q = np.concatenate([np.asarray(chunk.log_prob, np.float64) for chunk in chunks])
    return StateLogProb(log_q, chunks[0].kind, "enumeration")


def averaged_probability(
    log_prob_fn: StateLogProbFn, states: np.ndarray, p: np.ndarray, *, num_draws: int = 256
) -> StateLogProb:
    """Averages exp(log_prob) over the noise, for a model whose exp(log_prob) is an unbiased estimate of q.

    Importance weights and dequantised densities are such estimates. The logarithm of their mean is an estimate.

    Args:
        log_prob_fn: gives one draw of the noise for each key.
        states: [S, ...].
        p: [S] probabilities under the data; states with p = 0 are not computed.
        num_draws: number of draws of the noise.
    """
    draws, _ = _draws(log_prob_fn, states[p > 0], num_draws)
    log_q = np.full(len(p), np.nan)
    log_q[p > 0] = np.logaddexp.reduce(draws, axis=0) - np.log(num_draws)
    return StateLogProb(log_q, "estimate", f"mean over {num_draws} draws of the noise")


def averaged_bound(
    log_prob_fn: StateLogProbFn, states: np.ndarray, p: np.ndarray, *, num_draws: int = 4
) -> StateLogProb:
    """Averages log_prob over the noise, for a model whose log_prob is an unbiased estimate of a bound on log q.

    The mean is again such a bound. See `averaged_probability` for the arguments.
    """
    draws, kind = _draws(log_prob_fn, states[p > 0], num_draws)
    log_q = np.full(len(p), np.nan)
    log_q[p > 0] = draws.mean(axis=0)
    return StateLogProb(log_q, kind, f"mean over {num_draws} draws of the noise")


def _draws(log_prob_fn: StateLogProbFn, states: np.ndarray, num_draws: int) -> tuple[np.ndarray, LikelihoodKind]:
    """Returns log-probabilities [num_draws, S] float64, each row with its own noise, and their kind."""
    draws = [log_prob_fn(states, key) for key in jax.random.split(jax.random.key(0), num_draws)]
    return np.stack([np.asarray(draw.log_prob, np.float64) for draw in draws]), draws[0].kind


def latent_log_prob(
    logits_fn: Callable[[np.ndarray], ArrayLike], *, num_bits: int, num_nodes: int = 241, reach: float = 6.5
) -> np.ndarray:
    """Computes log q of every state under a model with a latent plane, eq. (3).

    Args:
        logits_fn: z [N, 2] float32 -> logits [N, n] that each dimension is 1.
        num_bits: n, even.
        num_nodes: nodes along each side of the grid.
        reach: the grid spans [-reach, reach] standard deviations in each direction.
    Returns:
        [2^n] float64 nats. The probabilities sum to 1, up to the normal's mass outside the grid.
    Raises:
        ValueError: n is odd.
    """
    if num_bits % 2:
        raise ValueError(f"quadrature divides the bits into two halves: num_bits must be even, not odd as {num_bits}")
    axis = np.linspace(-reach, reach, num_nodes)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_weight = -0.5 * np.square(z).sum(axis=1) - math.log(2.0 * math.pi) + 2.0 * math.log(axis[1] - axis[0])
    half, states = num_bits // 2, all_states(num_bits // 2).astype(np.float64)
    total = np.zeros((len(states), len(states)))
    for start in range(0, len(z), 8192):
        nodes = slice(start, start + 8192)
        logits = np.asarray(logits_fn(z[nodes].astype(np.float32)), np.float64).reshape(-1, num_bits)
        log_off = -np.logaddexp(0.0, logits)
        # log p of half a state: that all its dimensions are 0, plus the logit of each dimension that is 1.
        low, high = (
            np.exp(logits[:, part] @ states.T + log_off[:, part].sum(axis=1, keepdims=True))
            for part in (slice(0, half), slice(half, num_bits))
        )
        total += (high * np.exp(log_weight[nodes])[:, None]).T @ low
    with np.errstate(divide="ignore"):
        return np.log(total.reshape(-1))


def measure(
    p: np.ndarray, samples: np.ndarray, log_prob: StateLogProb | None, *, data: str, settings: Mapping[str, Any]
) -> list[Record]:
    """Compares a model with the whole distribution of the data: its probabilities and its samples, as records.

    Args:
        p: [S] probabilities of the states under the data.
        samples: [N, ...] samples of the model.
        log_prob: the model's log-probabilities; None if it has none.
        data: name of the data set.
        settings: settings to add to every record.
    Returns:
        tv_samples_to_data; nll_of_world and kl_to_world if there are log-probabilities; and, if these are exact,
        tv_samples_to_model with the value that exact draws would have.
    """
    seen, num = frequencies(samples), len(samples)
    rows = [("tv_samples_to_data", total_variation(seen, p), "total variation", "score", num, {})]
    if log_prob is not None:
        kind, by = log_prob.kind, {"by": log_prob.method}
        rows.append(("nll_of_world", cross_entropy(p, log_prob.log_q), "nats", kind, len(p), by))
        rows.append(("kl_to_world", kl_divergence(p, log_prob.log_q), "nats", kind, len(p), by))
    if log_prob is not None and log_prob.kind == "exact":
        q = np.exp(log_prob.log_q)
        mean, deviation = expected_total_variation(q, num)
        expected = {"of_exact_draws": mean, "of_exact_draws_sd": deviation, "sum_of_q": float(q.sum())}
        rows.append(("tv_samples_to_model", total_variation(seen, q), "total variation", "score", num, expected))
    return [
        Record(
            name=name,
            value=value if np.isfinite(value) else None,
            unit=unit,
            kind=kind,
            data=data,
            measure="binary",
            split="the distribution itself",
            examples=examples,
            settings={**settings, **own},
        )
        for name, value, unit, kind, examples, own in rows
    ]
