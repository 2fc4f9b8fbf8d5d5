"""Likelihoods of data given the parameters that a network computed: -log p(x), summed over the event, in nats.

Two families share these functions: p(x | z), the decoder of a latent variable model, and p(x_i | x_<i), the
conditionals of an autoregressive model. They differ only in what the parameters were computed from.

Notation: x data, i a dimension of the event, L levels, M mixture components.

    Bernoulli:              -log p(x) = sum_i log(1 + exp logits_i) - x_i logits_i                        (1)
    categorical:            -log p(x) = sum_i logsumexp(logits_i) - logits_il,  l = x_i                   (2)
    normal:                 -log p(x) = 1/2 sum_i (log 2 pi + log_var_i + (x_i - mean_i)^2 / var_i)       (3)
    discretised logistic:   -log p(x) = -sum_i log P_i(bin of level x_i)                                  (4)
    discretised mixture:    -log p(x) = -sum_i log sum_m w_im P_im(bin of level x_i)                      (5)

Each function takes one x [B, ...] and one set of parameters. For K samples of the parameters, map over them:

    log_p_x = -jax.vmap(bernoulli_nll, in_axes=(None, 0))(x, logits)        # logits [K, B, ...] -> [K, B]
"""

from gm_jax.ops import checks, distributions, reductions
from gm_jax.types import Array


def bernoulli_nll(x: Array, logits: Array) -> Array:
    """Negative log-likelihood of binary data, eq. (1).

    Pass raw logits. If the network already applies a sigmoid, a second one is applied here, and every probability
    falls in [0.5, 0.74].

    Args:
        x: [B, ...] values 0. or 1., floating; grey levels are not data of this likelihood.
        logits: [B, ...] log-odds of x = 1, the shape of `x`.
    Returns:
        [B] -log p(x), nats; smaller is better.
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix C.1;
        Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011, eq. 4;
        Germain, Gregor, Murray & Larochelle, "MADE", ICML 2015, arXiv:1502.03509, eq. 5.
    Example:
        >>> losses.bernoulli_nll(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
        Array([2.8201], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.bernoulli_log_prob(x, logits))


def categorical_nll(x: Array, logits: Array) -> Array:
    """Negative log-likelihood of levels without an order, eq. (2).

    Args:
        x: [B, ...] integer levels 0..L-1.
        logits: [B, ..., L] unnormalised log-probabilities.
    Returns:
        [B] -log p(x), nats; smaller is better, at least 0.
    Source: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759,
        section 2.
    Example:
        >>> losses.categorical_nll(jnp.array([[2, 0]]), jnp.zeros((1, 2, 4)))  # 2 log 4
        Array([2.7726], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.categorical_log_prob(x, logits))


def normal_nll(x: Array, mean: Array, log_var: Array) -> Array:
    """Negative log-density of real data under a diagonal normal, eq. (3), constant included.

    The squared error alone drops the constant and, without the factor 1/2, assumes variance 1/2: its sum with a KL is
    not a bound on log p(x).

    Args:
        x: [B, ...] data, floating.
        mean: [B, ...] mean, the shape of `x`.
        log_var: [B, ...] log variance, the shape of `x`; if it is fixed, pass `jnp.full_like(mean, ...)`.
    Returns:
        [B] -log p(x), nats; smaller is better. It may be negative, because p is a density.
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix C.2.
    Example:
        >>> losses.normal_nll(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]), jnp.zeros((1, 2)))
        Array([3.8379], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.normal_log_prob(x, mean, log_var))


def discretized_logistic_nll(x: Array, mean: Array, log_scale: Array, *, levels: int) -> Array:
    """Negative log-likelihood of ordered levels, each the bin of a logistic, eq. (4).

    Args:
        x: [B, ...] integer levels 0..levels-1, as the data set ships them: an image scaled to [0, 1] is an error.
        mean: [B, ...] location, on the scale where the levels span [-1, 1].
        log_scale: [B, ...] log scale, on the same scale.
        levels: number of levels, at least 2.
    Returns:
        [B] -log p(x), nats; smaller is better, at least 0.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016,
        arXiv:1606.04934; end bins as in arXiv:1701.05517, eq. 2.
    Example:
        >>> x, mean = jnp.array([[0, 128]]), jnp.array([[-1.0, 0.0]])
        >>> losses.discretized_logistic_nll(x, mean, jnp.full((1, 2), -3.0), levels=256)
        Array([3.891], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    log_prob = distributions.discretized_logistic_log_prob(x, mean, log_scale, levels=levels)
    return -reductions.sum_except_batch(log_prob)


def discretized_logistic_mixture_nll(
    x: Array, logit_weights: Array, means: Array, log_scales: Array, *, levels: int
) -> Array:
    """Negative log-likelihood of ordered levels, each the bin of a mixture of logistics, eq. (5).

    Args:
        x: [B, ...] integer levels 0..L-1.
        logit_weights: [B, ..., M] unnormalised log-weights.
        means: [B, ..., M] locations, on the scale where the levels span [-1, 1].
        log_scales: [B, ..., M] log-scales, on the same scale.
        levels: L, at least 2.
    Returns:
        [B] -log p(x), nats; smaller is better, at least 0.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Salimans, Karpathy, Chen & Kingma, "PixelCNN++", ICLR 2017, arXiv:1701.05517, eqs. 1-2.
    Example:
        >>> weights, means, scales = jnp.zeros((1, 1, 2)), jnp.array([[[-0.5, 0.5]]]), jnp.full((1, 1, 2), -2.0)
        >>> losses.discretized_logistic_mixture_nll(jnp.array([[12]]), weights, means, scales, levels=17)
        Array([2.1738], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    log_prob = distributions.discretized_logistic_mixture_log_prob(x, logit_weights, means, log_scales, levels=levels)
    return -reductions.sum_except_batch(log_prob)
