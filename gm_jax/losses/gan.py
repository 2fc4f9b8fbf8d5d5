"""Generative adversarial networks: both players' losses and their penalties.

Notation: x data, x~ = G(z) generated; l the discriminator's logit, D = sigma(l) its probability that an example is
data, so log D = -softplus(-l) and log(1 - D) = -softplus(l); a and b its targets for data and for generated examples;
f a critic's score or, with an index, a feature; theta a player's parameters.

    value:               V(G, D) = E log D(x) + E log(1 - D(x~)),    D maximises it and G minimises it       (1)
    discriminator:       -a log D(x) - (1 - a) log(1 - D(x)) - b log D(x~) - (1 - b) log(1 - D(x~))         (2)
    saturating G:        log(1 - D(x~))                                                                     (3)
    non-saturating G:    -log D(x~)                                                                         (4)
    hinge:               D: max(0, 1 - l(x)) + max(0, 1 + l(x~));         G: -l(x~)                         (5)
    least squares:       D: 1/2 (l(x) - a)^2 + 1/2 (l(x~) - b)^2;         G: 1/2 (l(x~) - c)^2              (6)
    Wasserstein:         D: f(x~) - f(x);                                 G: -f(x~)                         (7)
    gradient penalty:    (|grad f(x^)| - 1)^2,    x^ = epsilon x + (1 - epsilon) x~                         (8)
    R1:                  1/2 |grad l(x)|^2                                                                  (9)
    feature matching:    |E f(x) - E f(x~)|^2                                                              (10)
    historical average:  |theta_t - mean_t|^2,    mean_t = mean_(t-1) + (theta_t - mean_(t-1)) / t         (11)

All losses take logits. A sigmoid rounds small probabilities to 0: with log(D + 1e-8) the gradient of (4) at logit
-20 is -0.17 instead of -1. A discriminator's loss pairs the examples of two batches of equal size.

No function stops a gradient between the players: the train step differentiates each `Objective` with respect to the
parameters of its own player only. In a loop of your own, differentiate each loss with respect to its player's
parameters (`jax.grad(loss, argnums=...)`), or stop the gradient of the other player.

Weights belong at the call site (scalars such as (10) and (11) are added after the mean):

    terms = {"critic": wasserstein_critic_loss(f_real, f_fake), "penalty": gradient_penalty(f, x, x_fake, epsilon)}
    loss = combine.weighted_sum(terms, penalty=10.0).mean()
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import reductions
from gm_jax.types import Array, PyTree

ScoreFn = Callable[[Array], Array]  # [B, ...] -> [B]: each example's score depends on that example alone


def minimax_value(real_logits: Array, fake_logits: Array) -> Array:
    """Value of the game, eq. (1), at one example of data and one generated example.

    Args:
        real_logits: [B] l(x) of data.
        fake_logits: [B] l(x~) of generated examples.
    Returns:
        [B] value, nats, at most 0; larger is better for the discriminator, smaller for the generator.
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    Example:
        >>> losses.minimax_value(jnp.array([0.0]), jnp.array([0.0]))  # -log 4
        Array([-1.3863], dtype=float32)
    """
    _assert_scores(real_logits, fake_logits)
    return jax.nn.log_sigmoid(real_logits) + jax.nn.log_sigmoid(-fake_logits)


def discriminator_loss(
    real_logits: Array, fake_logits: Array, *, real_target: float = 1.0, fake_target: float = 0.0
) -> Array:
    """Cross-entropy of the discriminator, eq. (2): the negative of the value (1), optionally with smoothed labels.

    One-sided label smoothing is a < 1 and b = 0. With b > 0 the optimal D (`gan_optimum`, eq. (1)) stays at b
    far from the data, so generated examples there receive no gradient.

    Args:
        real_logits: [B] l(x) of data.
        fake_logits: [B] l(x~) of generated examples.
        real_target: a, in [0, 1].
        fake_target: b, in [0, 1].
    Returns:
        [B] loss, nats; smaller is better.
    Source: Goodfellow et al., 2014, arXiv:1406.2661; with smoothing Salimans et al., 2016, arXiv:1606.03498.
    Example:
        >>> losses.discriminator_loss(jnp.array([2.0]), jnp.array([-2.0]), real_target=0.9)
        Array([0.4539], dtype=float32)
    """
    _assert_scores(real_logits, fake_logits)
    return _cross_entropy(real_logits, real_target) + _cross_entropy(fake_logits, fake_target)


def saturating_generator_loss(fake_logits: Array) -> Array:
    """The generator's part of the value (1), eq. (3).

    Its gradient -D(x~) vanishes when the discriminator recognises the generated examples.

    Args:
        fake_logits: [B] l(x~) of generated examples.
    Returns:
        [B] loss, nats, at most 0; smaller is better.
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    Example:
        >>> losses.saturating_generator_loss(jnp.array([-5.0, 0.0]))
        Array([-0.0067, -0.6931], dtype=float32)
    """
    _assert_scores(fake_logits)
    return jax.nn.log_sigmoid(-fake_logits)


def non_saturating_generator_loss(fake_logits: Array) -> Array:
    """The generator's loss that does not saturate, eq. (4).

    Its gradient D(x~) - 1 vanishes when the generator deceives the discriminator.

    Args:
        fake_logits: [B] l(x~) of generated examples.
    Returns:
        [B] loss, nats, at least 0; smaller is better.
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    Example:
        >>> losses.non_saturating_generator_loss(jnp.array([-5.0, 0.0]))
        Array([5.0067, 0.6931], dtype=float32)
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
    Source: Lim & Ye, "Geometric GAN", 2017, arXiv:1705.02894.
    Example:
        >>> losses.hinge_discriminator_loss(jnp.array([0.25]), jnp.array([-2.0]))
        Array([0.75], dtype=float32)
    """
    _assert_scores(real_scores, fake_scores)
    return jax.nn.relu(1.0 - real_scores) + jax.nn.relu(1.0 + fake_scores)


def hinge_generator_loss(fake_scores: Array) -> Array:
    """The generator's loss that accompanies the hinge, eq. (5).

    Args:
        fake_scores: [B] l(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores; smaller is better.
    Source: Lim & Ye, "Geometric GAN", 2017, arXiv:1705.02894.
    Example:
        >>> losses.hinge_generator_loss(jnp.array([0.5]))
        Array([-0.5], dtype=float32)
    """
    _assert_scores(fake_scores)
    return -fake_scores


def least_squares_discriminator_loss(
    real_scores: Array, fake_scores: Array, *, real_target: float = 1.0, fake_target: float = 0.0
) -> Array:
    """Least-squares loss of the discriminator, eq. (6), on scores without a sigmoid.

    Args:
        real_scores: [B] l(x) of data.
        fake_scores: [B] l(x~) of generated examples.
        real_target: a.
        fake_target: b.
    Returns:
        [B] loss, in the squared unit of the scores; smaller is better.
    Source: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv:1611.04076.
    Example:
        >>> losses.least_squares_discriminator_loss(jnp.array([0.0]), jnp.array([2.0]))
        Array([2.5], dtype=float32)
    """
    _assert_scores(real_scores, fake_scores)
    return 0.5 * (jnp.square(real_scores - real_target) + jnp.square(fake_scores - fake_target))


def least_squares_generator_loss(fake_scores: Array, *, target: float = 1.0) -> Array:
    """Least-squares loss of the generator, eq. (6).

    Args:
        fake_scores: [B] l(x~) of generated examples.
        target: c, the score that the generator wants from the discriminator.
    Returns:
        [B] loss, in the squared unit of the scores; smaller is better.
    Source: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv:1611.04076.
    Example:
        >>> losses.least_squares_generator_loss(jnp.array([0.0]))
        Array([0.5], dtype=float32)
    """
    _assert_scores(fake_scores)
    return 0.5 * jnp.square(fake_scores - target)


def wasserstein_critic_loss(real_scores: Array, fake_scores: Array) -> Array:
    """The critic's loss, eq. (7); for the best 1-Lipschitz critic it is the negative Wasserstein distance.

    Args:
        real_scores: [B] f(x) of data.
        fake_scores: [B] f(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores; smaller is better.
    Source: Arjovsky, Chintala & Bottou, "Wasserstein GAN", ICML 2017, arXiv:1701.07875.
    Example:
        >>> losses.wasserstein_critic_loss(jnp.array([3.0]), jnp.array([1.0]))
        Array([-2.], dtype=float32)
    """
    _assert_scores(real_scores, fake_scores)
    return fake_scores - real_scores


def wasserstein_generator_loss(fake_scores: Array) -> Array:
    """The generator's loss that accompanies a critic, eq. (7).

    Args:
        fake_scores: [B] f(x~) of generated examples.
    Returns:
        [B] loss, in the unit of the scores; smaller is better.
    Source: Arjovsky, Chintala & Bottou, "Wasserstein GAN", ICML 2017, arXiv:1701.07875.
    Example:
        >>> losses.wasserstein_generator_loss(jnp.array([1.0]))
        Array([-1.], dtype=float32)
    """
    _assert_scores(fake_scores)
    return -fake_scores


def gradient_penalty(critic_fn: ScoreFn, real: Array, fake: Array, epsilon: Array) -> Array:
    """Penalty of WGAN-GP on the norm of each example's own gradient, eq. (8), without its weight lambda.

    Args:
        critic_fn: [B, ...] -> [B] scores. An example's score must depend on that example alone: no batch
            normalisation, no minibatch discrimination.
        real: [B, ...] data.
        fake: [B, ...] generated examples, the shape of `real`.
        epsilon: [B] uniform noise in [0, 1), one number per example.
    Returns:
        [B] penalty; smaller is better. If the gradient is 0, the penalty is 1 and its derivative is 0, not NaN.
    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028.
    Example:
        >>> x, x_fake, epsilon = jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.array([0.5])
        >>> losses.gradient_penalty(lambda x: 3.0 * x[:, 0], x, x_fake, epsilon)  # (3 - 1)^2
        Array([4.], dtype=float32)
    """
    chex.assert_equal_shape([real, fake])
    chex.assert_type([real, fake, epsilon], float)
    chex.assert_shape(epsilon, (real.shape[0],), custom_message="epsilon must be [B], one number per example")
    epsilon = epsilon.reshape(-1, *[1] * (real.ndim - 1))
    squared = _squared_gradient_norm(critic_fn, epsilon * real + (1.0 - epsilon) * fake)
    # The root's derivative is infinite at 0; the inner `where` keeps it out of the branch that is not taken.
    norm = jnp.where(squared == 0.0, 0.0, jnp.sqrt(jnp.where(squared == 0.0, 1.0, squared)))
    return jnp.square(norm - 1.0)


def r1_penalty(discriminator_fn: ScoreFn, real: Array) -> Array:
    """Zero-centred gradient penalty on data, eq. (9); it includes the factor 1/2 but not the weight gamma.

    Args:
        discriminator_fn: [B, ...] -> [B] logits, each of its example alone, as in `gradient_penalty`.
        real: [B, ...] data.
    Returns:
        [B] penalty, at least 0; smaller is better.
    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, arXiv:1801.04406.
    Example:
        >>> losses.r1_penalty(lambda x: 3.0 * x[:, 0], jnp.ones((1, 2)))
        Array([4.5], dtype=float32)
    """
    chex.assert_type(real, float)
    return 0.5 * _squared_gradient_norm(discriminator_fn, real)


def feature_matching_loss(real_features: Array, fake_features: Array, *, axis_name: str | None = None) -> Array:
    """Squared distance between the mean features of data and of generated examples, eq. (10): one number per batch.

    This trains the generator only. The features come from the discriminator, which must receive no gradient (see the
    module's docstring). The mean squared difference of pairs is another loss: it adds the variance of both sides, and
    so rewards a generator that loses variance. With B examples the variances still enter, divided by B, so let B be
    the whole batch.

    Args:
        real_features: [B, ...] features of data, from inside the discriminator.
        fake_features: [B', ...] the same features of generated examples.
        axis_name: a mapped axis over which the means are also taken; None takes them over this device's examples.
    Returns:
        Scalar, summed over features; smaller is better.
    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
    Example:
        >>> losses.feature_matching_loss(jnp.array([[1.0, 0.0], [3.0, 0.0]]), jnp.zeros((2, 2)))
        Array(4., dtype=float32)
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
    """Squared distance between a player's parameters and their mean over the past, eq. (11).

    Args:
        params: theta_t, a pytree of floating arrays.
        mean: mean_t, the same pytree, from `update_historical_mean`; no gradient passes through it.
    Returns:
        Scalar, summed over all parameters; smaller is better. Add it, times lambda, to the player's loss: in a
            separate Adam update, which divides by the gradient's size, lambda would have no effect.
    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
    Example:
        >>> losses.historical_averaging_penalty({"w": jnp.array([3.0])}, {"w": jnp.array([1.0])})
        Array(4., dtype=float32)
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(params, mean)
    chex.assert_type(jax.tree.leaves(params), float)
    mean = jax.lax.stop_gradient(mean)
    squares = jax.tree.map(lambda theta, past: jnp.sum(jnp.square(theta - past)), params, mean)
    return jax.tree.reduce(jnp.add, squares)


def update_historical_mean(mean: PyTree, params: PyTree, count: Array) -> PyTree:
    """Adds one set of parameters to their running mean, eq. (11), in constant memory.

    Args:
        mean: mean_(t-1), a pytree; zeros at first.
        params: theta_t, the same pytree.
        count: t - 1, scalar: the number of sets that `mean` averages. The caller increments it.
    Returns:
        mean_t, the same pytree, to be kept in the model's state.
    Example:
        >>> losses.update_historical_mean({"w": jnp.array([1.0])}, {"w": jnp.array([4.0])}, jnp.array(2))
        {'w': Array([2.], dtype=float32)}
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(params, mean)
    chex.assert_type(jax.tree.leaves(params), float)
    chex.assert_rank(count, 0)
    return jax.tree.map(lambda past, theta: past + (theta - past) / jnp.asarray(count + 1, theta.dtype), mean, params)


def _cross_entropy(logits: Array, target: float) -> Array:
    # softplus(l) - target l is shorter but cancels for large l: in float32 its gradient at 20 would be 0.
    return -(target * jax.nn.log_sigmoid(logits) + (1.0 - target) * jax.nn.log_sigmoid(-logits))


def _squared_gradient_norm(score_fn: ScoreFn, x: Array) -> Array:
    """|grad f(x_b)|^2 of each example, [B]."""
    scores, pullback = jax.vjp(score_fn, x)
    chex.assert_shape(scores, (x.shape[0],), custom_message="the scores must be [B], one per example")
    # The scores of a batch are independent, so the gradient of their sum holds each example's own gradient.
    (gradient,) = pullback(jnp.ones_like(scores))
    return reductions.sum_except_batch(jnp.square(gradient))


def _assert_scores(*scores: Array) -> None:
    chex.assert_rank(scores, 1)
    chex.assert_type(scores, float)
    chex.assert_equal_shape(scores)
