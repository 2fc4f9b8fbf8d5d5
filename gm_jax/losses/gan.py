"""Generative adversarial networks: both players' losses, their penalties, and what the game is worth at its optimum.

Notation: x data, x~ = G(z) generated, p_d and p_g their densities; l the discriminator's logit, D = sigma(l) its
probability that an example is data, so log D = -softplus(-l) and log(1 - D) = -softplus(l); a and b its targets for
data and for what is generated; f a critic's score or, where it has an index, a feature; theta a player's parameters.

    value:               V(G, D) = E log D(x) + E log(1 - D(x~)),    D maximises it and G minimises it       (1)
    discriminator:       -a log D(x) - (1 - a) log(1 - D(x)) - b log D(x~) - (1 - b) log(1 - D(x~))         (2)
    saturating G:        log(1 - D(x~))                                                                     (3)
    non-saturating G:    -log D(x~)                                                                         (4)
    hinge:               D: max(0, 1 - l(x)) + max(0, 1 + l(x~));         G: -l(x~)                         (5)
    least squares:       D: 1/2 (l(x) - a)^2 + 1/2 (l(x~) - b)^2;         G: 1/2 (l(x~) - c)^2              (6)
    Wasserstein:         D: f(x~) - f(x);                                 G: -f(x~)                         (7)
    gradient penalty:    (|grad f(x^)| - 1)^2,    x^ = epsilon x + (1 - epsilon) x~                         (8)
    R1:                  1/2 |grad l(x)|^2                                                                  (9)
    optimal D:           D* = (a p_d + b p_g) / (p_d + p_g);    l* = log p_d - log p_g  at a = 1, b = 0    (10)
    Jensen-Shannon:      JSD = 1/2 KL(p_d || m) + 1/2 KL(p_g || m),    m = (p_d + p_g) / 2                 (11)
    value at D*:         max_D V(G, D) = -log 4 + 2 JSD                                                    (12)
    feature matching:    |E f(x) - E f(x~)|^2                                                              (13)
    historical average:  |theta_t - mean_t|^2,    mean_t = mean_(t-1) + (theta_t - mean_(t-1)) / t         (14)

Everything is computed from logits. A probability that went through a sigmoid loses its tail: with log(D + 1e-8) the
gradient of (4) at logit -20 is -0.17 in place of -1. A discriminator's loss pairs the examples of two equal batches.

No function stops a gradient between the players: the train step differentiates each `Objective` in the parameters of
its own player alone, so that the generator's moves no discriminator. In a loop of your own, differentiate each loss in
its player's parameters only (`jax.grad(loss, argnums=...)`), or stop the other's gradient.

Weights belong at the call site (scalars, as (13) and (14) are, join after the mean):

    terms = {"critic": wasserstein_critic_loss(f_real, f_fake), "penalty": gradient_penalty(f, x, x_fake, epsilon)}
    loss = combine.weighted_sum(terms, penalty=10.0).mean()
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import reductions
from gm_jax.types import Array, PyTree

ScoreFn = Callable[[Array], Array]  # [B, ...] -> [B]: each example's score depends on that example alone


def minimax_value(real_logits: Array, fake_logits: Array) -> Array:
    """The value of the game, eq. (1), at one example of data and one generated.

    Args:
        real_logits: [B] l(x) of data.
        fake_logits: [B] l(x~) of generated examples.
    Returns:
        [B] value, nats, at most 0; larger is better for the discriminator, smaller for the generator.
    Raises:
        AssertionError: the arrays are not floating [B] of one shape (at trace time).
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    """
    _assert_scores(real_logits, fake_logits)
    return jax.nn.log_sigmoid(real_logits) + jax.nn.log_sigmoid(-fake_logits)


def discriminator_loss(
    real_logits: Array, fake_logits: Array, *, real_target: float = 1.0, fake_target: float = 0.0
) -> Array:
    """Cross-entropy of the discriminator, eq. (2): minus the value (1), or with smoothed labels.

    One-sided label smoothing is a < 1 and b = 0. With b > 0 the optimum (10) has p_g in its numerator: far from data D*
    stays at b, and nothing tells what is generated there to move.

    Args:
        real_logits: [B] l(x) of data.
        fake_logits: [B] l(x~) of generated examples.
        real_target: a, in [0, 1].
        fake_target: b, in [0, 1].
    Returns:
        [B] loss, nats; smaller is better.
    Raises:
        AssertionError: the arrays are not floating [B] of one shape (at trace time).
    Source: Goodfellow et al., 2014, arXiv:1406.2661; with smoothing Salimans et al., 2016, arXiv:1606.03498.
    """
    _assert_scores(real_logits, fake_logits)
    return _cross_entropy(real_logits, real_target) + _cross_entropy(fake_logits, fake_target)


def saturating_generator_loss(fake_logits: Array) -> Array:
    """The generator's part of the value (1), eq. (3); its gradient -D(x~) vanishes where the generator is found out.

    Args:
        fake_logits: [B] l(x~) of generated examples.
    Returns:
        [B] loss, nats, at most 0; smaller is better.
    Raises:
        AssertionError: the array is not floating [B] (at trace time).
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    """
    _assert_scores(fake_logits)
    return jax.nn.log_sigmoid(-fake_logits)


def non_saturating_generator_loss(fake_logits: Array) -> Array:
    """The loss that does not saturate, eq. (4); its gradient D(x~) - 1 vanishes where the generator deceives.

    Args:
        fake_logits: [B] l(x~) of generated examples.
    Returns:
        [B] loss, nats, at least 0; smaller is better.
    Raises:
        AssertionError: the array is not floating [B] (at trace time).
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    """
    _assert_scores(fake_logits)
    return -jax.nn.log_sigmoid(fake_logits)


def hinge_discriminator_loss(real_scores: Array, fake_scores: Array) -> Array:
    """Hinge loss of the discriminator, eq. (5).

    Args:
        real_scores: [B] l(x) of data.
        fake_scores: [B] l(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores, at least 0; smaller is better.
    Raises:
        AssertionError: the arrays are not floating [B] of one shape (at trace time).
    Source: Lim & Ye, "Geometric GAN", 2017, arXiv:1705.02894.
    """
    _assert_scores(real_scores, fake_scores)
    return jax.nn.relu(1.0 - real_scores) + jax.nn.relu(1.0 + fake_scores)


def hinge_generator_loss(fake_scores: Array) -> Array:
    """The generator's loss beside the hinge, eq. (5).

    Args:
        fake_scores: [B] l(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores; smaller is better.
    Raises:
        AssertionError: the array is not floating [B] (at trace time).
    Source: Lim & Ye, "Geometric GAN", 2017, arXiv:1705.02894.
    """
    _assert_scores(fake_scores)
    return -fake_scores


def least_squares_discriminator_loss(
    real_scores: Array, fake_scores: Array, *, real_target: float = 1.0, fake_target: float = 0.0
) -> Array:
    """Least-squares loss of the discriminator, eq. (6), on scores that no sigmoid follows.

    Args:
        real_scores: [B] l(x) of data.
        fake_scores: [B] l(x~) of generated examples.
        real_target: a.
        fake_target: b.
    Returns:
        [B] loss, in the squared unit of the scores; smaller is better.
    Raises:
        AssertionError: the arrays are not floating [B] of one shape (at trace time).
    Source: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv:1611.04076.
    """
    _assert_scores(real_scores, fake_scores)
    return 0.5 * (jnp.square(real_scores - real_target) + jnp.square(fake_scores - fake_target))


def least_squares_generator_loss(fake_scores: Array, *, target: float = 1.0) -> Array:
    """Least-squares loss of the generator, eq. (6).

    Args:
        fake_scores: [B] l(x~) of generated examples.
        target: c, what the generator wants the discriminator to answer.
    Returns:
        [B] loss, in the squared unit of the scores; smaller is better.
    Raises:
        AssertionError: the array is not floating [B] (at trace time).
    Source: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv:1611.04076.
    """
    _assert_scores(fake_scores)
    return 0.5 * jnp.square(fake_scores - target)


def wasserstein_critic_loss(real_scores: Array, fake_scores: Array) -> Array:
    """The critic's loss, eq. (7): minus the Wasserstein distance where the critic is the best one that is 1-Lipschitz.

    Args:
        real_scores: [B] f(x) of data.
        fake_scores: [B] f(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores; smaller is better.
    Raises:
        AssertionError: the arrays are not floating [B] of one shape (at trace time).
    Source: Arjovsky, Chintala & Bottou, "Wasserstein GAN", ICML 2017, arXiv:1701.07875.
    """
    _assert_scores(real_scores, fake_scores)
    return fake_scores - real_scores


def wasserstein_generator_loss(fake_scores: Array) -> Array:
    """The generator's loss beside a critic, eq. (7).

    Args:
        fake_scores: [B] f(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores; smaller is better.
    Raises:
        AssertionError: the array is not floating [B] (at trace time).
    Source: Arjovsky, Chintala & Bottou, "Wasserstein GAN", ICML 2017, arXiv:1701.07875.
    """
    _assert_scores(fake_scores)
    return -fake_scores


def gradient_penalty(critic_fn: ScoreFn, real: Array, fake: Array, epsilon: Array) -> Array:
    """Penalty of WGAN-GP, eq. (8), on the norm of each example's own gradient; lambda is given at the call site.

    Args:
        critic_fn: [B, ...] -> [B] scores. An example's score must depend on that example alone: no batch
            normalisation, no minibatch discrimination.
        real: [B, ...] data.
        fake: [B, ...] generated examples, the shape of `real`.
        epsilon: [B] uniform noise in [0, 1), one number an example.
    Returns:
        [B] penalty; smaller is better. Where the gradient is 0 the penalty is 1 and its derivative 0, not NaN.
    Raises:
        AssertionError: the arrays are not floating, their shapes do not fit or the scores are not [B] (at trace time).
    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028.
    """
    chex.assert_equal_shape([real, fake])
    chex.assert_type([real, fake, epsilon], float)
    chex.assert_shape(epsilon, (real.shape[0],), custom_message="epsilon, one number an example, [B]")
    epsilon = epsilon.reshape(-1, *[1] * (real.ndim - 1))
    squared = _squared_gradient_norm(critic_fn, epsilon * real + (1.0 - epsilon) * fake)
    # The root's derivative is infinite at 0; the inner `where` keeps it out of the branch that is not taken.
    norm = jnp.where(squared == 0.0, 0.0, jnp.sqrt(jnp.where(squared == 0.0, 1.0, squared)))
    return jnp.square(norm - 1.0)


def r1_penalty(discriminator_fn: ScoreFn, real: Array) -> Array:
    """Zero-centred gradient penalty on data, eq. (9); gamma is given at the call site, the 1/2 is in here.

    Args:
        discriminator_fn: [B, ...] -> [B] logits, each of its example alone, as in `gradient_penalty`.
        real: [B, ...] data.
    Returns:
        [B] penalty, at least 0; smaller is better.
    Raises:
        AssertionError: `real` is not floating or the logits are not [B] (at trace time).
    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, arXiv:1801.04406.
    """
    chex.assert_type(real, float)
    return 0.5 * _squared_gradient_norm(discriminator_fn, real)


def optimal_discriminator(
    log_p_data: Array, log_p_g: Array, *, real_target: float = 1.0, fake_target: float = 0.0
) -> Array:
    """The probability that minimises the discriminator's loss (2) at each point, eq. (10).

    Args:
        log_p_data: [...] log p_d, nats, at points or atoms; -inf where there is no data.
        log_p_g: [...] log p_g, nats, at the same.
        real_target: a, in [0, 1].
        fake_target: b, in [0, 1].
    Returns:
        [...] D*, between b and a; NaN where neither density is positive.
    Raises:
        AssertionError: shapes differ or an array is not floating (at trace time).
    Source: Goodfellow et al., 2014, arXiv:1406.2661; with smoothing Salimans et al., 2016, arXiv:1606.03498.
    """
    chex.assert_equal_shape([log_p_data, log_p_g])
    chex.assert_type([log_p_data, log_p_g], float)
    logits = log_p_data - log_p_g
    return real_target * jax.nn.sigmoid(logits) + fake_target * jax.nn.sigmoid(-logits)


def jensen_shannon_divergence(log_p: Array, log_q: Array) -> Array:
    """Jensen-Shannon divergence of two distributions over K atoms, eq. (11).

    Args:
        log_p: [..., K] log-probabilities, nats, normalised over the last axis; -inf for an atom that has none.
        log_q: [..., K] those of the other distribution.
    Returns:
        [...] divergence, nats, between 0 and log 2.
    Raises:
        AssertionError: shapes differ or an array is not floating with an axis of atoms (at trace time).
    """
    chex.assert_equal_shape([log_p, log_q])
    chex.assert_type([log_p, log_q], float)
    chex.assert_axis_dimension_gt(log_p, -1, 0)
    return 0.5 * (_kl_to_mixture(log_p, log_q) + _kl_to_mixture(log_q, log_p))


def optimal_value(log_p_data: Array, log_p_g: Array) -> Array:
    """The value (1) at the optimal discriminator, eq. (12): what the generator can still win.

    Args:
        log_p_data: [..., K] log-probabilities of the data, nats, normalised over the last axis.
        log_p_g: [..., K] those of the generator.
    Returns:
        [...] value, nats, between -log 4, where the two agree, and 0; smaller is better for the generator.
    Raises:
        AssertionError: shapes differ or an array is not floating with an axis of atoms (at trace time).
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    """
    return -math.log(4.0) + 2.0 * jensen_shannon_divergence(log_p_data, log_p_g)


def feature_matching_loss(real_features: Array, fake_features: Array, *, axis_name: str | None = None) -> Array:
    """Squared distance of the mean features of data and of what is generated, eq. (13): one number for the batch.

    For the generator; no gradient may reach the discriminator, whose features these are (see the module's docstring).
    The mean of the squared differences of pairs is another loss: it adds the variance of both sides, and so pays the
    generator for losing its own. Over B examples the variances still enter, divided by B: let B be the whole batch.

    Args:
        real_features: [B, ...] features of data, from inside the discriminator.
        fake_features: [B', ...] the same features of generated examples.
        axis_name: the mapped axis over which the means are taken as well; None: over this device's examples.
    Returns:
        Scalar, summed over features; smaller is better.
    Raises:
        AssertionError: an array is not floating [B, ...] or the features differ in shape (at trace time).
    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
    """
    chex.assert_type([real_features, fake_features], float)
    chex.assert_equal_rank([real_features, fake_features])
    chex.assert_equal_shape_suffix([real_features, fake_features], real_features.ndim - 1)
    chex.assert_axis_dimension_gt(real_features, 1, 0)
    difference = jnp.mean(real_features, axis=0) - jnp.mean(fake_features, axis=0)
    if axis_name is not None:
        difference = jax.lax.pmean(difference, axis_name)
    return jnp.sum(jnp.square(difference))


def historical_averaging_penalty(params: PyTree, mean: PyTree) -> Array:
    """Squared distance of a player's parameters from their mean over the past, eq. (14).

    Args:
        params: theta_t, a pytree of floating arrays.
        mean: mean_t, the same pytree, from `update_historical_mean`; a constant, no gradient passes through it.
    Returns:
        Scalar, summed over all parameters; smaller is better. Add it, times lambda, to the player's loss: an update
            of its own by Adam, which divides by the gradient's size, would not depend on lambda.
    Raises:
        AssertionError: the trees differ or hold an array that is not floating (at trace time).
    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(params, mean)
    chex.assert_type(jax.tree.leaves(params), float)
    mean = jax.lax.stop_gradient(mean)
    squares = jax.tree.map(lambda theta, past: jnp.sum(jnp.square(theta - past)), params, mean)
    return jax.tree.reduce(jnp.add, squares)


def update_historical_mean(mean: PyTree, params: PyTree, count: Array) -> PyTree:
    """The mean of the parameters with one more of them, eq. (14), in constant memory.

    Args:
        mean: mean_(t-1), a pytree; zeros at first.
        params: theta_t, the same pytree.
        count: t - 1, scalar: how many parameters `mean` is the mean of. The caller counts on.
    Returns:
        mean_t, the same pytree; to be kept in the model's state.
    Raises:
        AssertionError: the trees differ, an array is not floating or `count` no scalar (at trace time).
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(params, mean)
    chex.assert_type(jax.tree.leaves(params), float)
    chex.assert_rank(count, 0)
    return jax.tree.map(lambda past, theta: past + (theta - past) / jnp.asarray(count + 1, theta.dtype), mean, params)


def _cross_entropy(logits: Array, target: float) -> Array:
    # softplus(l) - target l is shorter, and cancels where l is large: its gradient at 20 would be 0 in float32.
    return -(target * jax.nn.log_sigmoid(logits) + (1.0 - target) * jax.nn.log_sigmoid(-logits))


def _kl_to_mixture(log_p: Array, log_q: Array) -> Array:
    """KL(p || (p + q) / 2) = sum p (log 2 - log(1 + q / p)); an atom without p adds 0, and has a gradient of 0."""
    absent = jnp.isneginf(log_p)
    p, log_ratio = jnp.where(absent, 0.0, jnp.exp(log_p)), jnp.where(absent, 0.0, log_q - log_p)
    return jnp.sum(p * (math.log(2.0) - jax.nn.softplus(log_ratio)), axis=-1)


def _squared_gradient_norm(score_fn: ScoreFn, x: Array) -> Array:
    """|grad f(x_b)|^2 of each example, [B]."""
    scores, pullback = jax.vjp(score_fn, x)
    chex.assert_shape(scores, (x.shape[0],), custom_message="the scores, one an example, [B]")
    # The scores of a batch are independent, so the gradient of their sum holds each one's own.
    (gradient,) = pullback(jnp.ones_like(scores))
    return reductions.sum_except_batch(jnp.square(gradient))


def _assert_scores(*scores: Array) -> None:
    chex.assert_rank(scores, 1)
    chex.assert_type(scores, float)
    chex.assert_equal_shape(scores)
