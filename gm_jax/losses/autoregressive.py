"""Autoregressive models: the exact negative log-likelihood from the parameters of the conditionals.

Notation: x data, D positions, x_<i the positions before i in the model's ordering, L levels, M mixture components;
a network that cannot look ahead gives the parameters of all D conditionals in one pass.

    chain rule:            -log p(x) = -sum_i log p(x_i | x_<i)                                       (1)
    Bernoulli:             -log p(x_i | x_<i) = log(1 + exp logits_i) - x_i logits_i                  (2)
    categorical:           -log p(x_i = l | x_<i) = logsumexp(logits_i) - logits_il                   (3)
    discretised logistics: -log p(x_i | x_<i) = -log sum_m w_im P_im(bin of level x_i)                (4)

Each is the sum of (1) over all positions, in nats. A mean over pixels is nats for each dimension, and another number.

An ensemble of K orderings is a mixture: its log-likelihood is `ops.reductions.log_mean_exp` of the K values of
log p(x). Their mean is less (Jensen), and no model's likelihood.
"""

import chex

from gm_jax.ops import distributions, reductions
from gm_jax.types import Array


def bernoulli_nll(x: Array, logits: Array) -> Array:
    """Negative log-likelihood of binary data, eqs. (1) and (2).

    The logits go in as they leave the network. After a sigmoid of the network's own they would be the argument of a
    second one: every p(x_i = 1 | x_<i) is then within [0.5, 0.74], and a digit of MNIST never below some 500 nats.

    Args:
        x: [B, ...] values 0. or 1., floating.
        logits: [B, ...] log-odds of x_i = 1 given x_<i.
    Returns:
        [B] -log p(x), nats; smaller is better.
    Raises:
        AssertionError: no event axis, shapes differ or an array is not floating (at trace time).
    Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011, eq. 4;
        Germain, Gregor, Murray & Larochelle, "MADE", ICML 2015, arXiv:1502.03509, eq. 5.
    """
    _assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.bernoulli_log_prob(x, logits))


def categorical_nll(x: Array, logits: Array) -> Array:
    """Negative log-likelihood of levels that have no order among them, eqs. (1) and (3).

    Args:
        x: [B, ...] integer levels 0..L-1.
        logits: [B, ..., L] unnormalised log-probabilities given x_<i.
    Returns:
        [B] -log p(x), nats; smaller is better, at least 0.
    Raises:
        AssertionError: no event axis, `x` not integer, `logits` not floating or shapes differ (at trace time).
    Source: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759,
        section 2.
    """
    _assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.categorical_log_prob(x, logits))


def discretized_logistic_mixture_nll(
    x: Array, logit_weights: Array, means: Array, log_scales: Array, *, levels: int
) -> Array:
    """Negative log-likelihood of ordered levels, the bins of a mixture of logistics, eqs. (1) and (4).

    Args:
        x: [B, ...] integer levels 0..L-1.
        logit_weights: [B, ..., M] unnormalised log-weights given x_<i.
        means: [B, ..., M] locations, on the scale where the levels span [-1, 1].
        log_scales: [B, ..., M] log-scales, on the same scale.
        levels: L, at least 2.
    Returns:
        [B] -log p(x), nats; smaller is better, at least 0.
    Raises:
        AssertionError: no event axis, `x` not integer, shapes differ or a parameter is not floating (at trace time).
        ValueError: `levels` is smaller than 2.
    Source: Salimans, Karpathy, Chen & Kingma, "PixelCNN++", ICLR 2017, arXiv:1701.05517, eqs. 1-2.
    """
    _assert_batch_of_events(x)
    log_prob = distributions.discretized_logistic_mixture_log_prob(x, logit_weights, means, log_scales, levels=levels)
    return -reductions.sum_except_batch(log_prob)


def _assert_batch_of_events(x: Array) -> None:
    chex.assert_rank(x, set(range(2, 9)))
