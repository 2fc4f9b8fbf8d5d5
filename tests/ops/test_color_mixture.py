import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.ops import color_mixture, distributions
from gm_jax.ops.color_mixture import ColorMixture


def random_outputs(*shape, channels, components, scale=1.0, seed=0):
    q = color_mixture.parameters_per_pixel(channels=channels, components=components)
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=(*shape, q)))


@functools.partial(jax.jit, static_argnums=2)
def log_prob_of_each_color(x, mixture, levels):
    conditionals = color_mixture.mixture_of_each_color(x, mixture, levels=levels)
    return distributions.discretized_logistic_mixture_log_prob(x, *conditionals, levels=levels)


def joint_by_hand(x, mixture, levels):
    """Computes log p of one pixel, eq. 3 of the paper for three colours, by scipy's logistic."""
    y = 2.0 * x / (levels - 1) - 1.0
    half = 1.0 / (levels - 1)
    total = []
    for m, log_weight in enumerate(special.log_softmax(mixture.logit_weights)):
        k = mixture.coefficients[:, m]
        centre = mixture.means[:, m] + [0.0, k[0] * y[0], k[1] * y[0] + k[2] * y[1]]
        upper, lower = np.where(x == levels - 1, np.inf, y + half), np.where(x == 0, -np.inf, y - half)
        logistic = stats.logistic(loc=centre, scale=np.exp(mixture.log_scales[:, m]))
        left, right = logistic.cdf(upper) - logistic.cdf(lower), logistic.sf(lower) - logistic.sf(upper)
        total.append(log_weight + np.log(np.where(y < centre, left, right)).sum())  # the tail that does not cancel
    return special.logsumexp(total)


def test_the_conditionals_multiply_to_the_joint_mixture_of_the_paper(x64):
    levels = 256
    mixture = color_mixture.split_parameters(random_outputs(20, channels=3, components=4), channels=3)
    x = np.random.default_rng(1).integers(0, levels, size=(20, 3))
    x[0], x[1] = (0, levels - 1, 0), (levels - 1, 0, levels - 1)
    ours = log_prob_of_each_color(jnp.asarray(x), mixture, levels).sum(axis=-1)
    numbers = [ColorMixture(*(np.asarray(leaf[i]) for leaf in mixture)) for i in range(20)]
    expected = [joint_by_hand(row, of, levels) for row, of in zip(x, numbers, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_each_conditional_sums_to_one_over_256_levels(x64):
    mixture = color_mixture.split_parameters(random_outputs(256, channels=3, components=10), channels=3)
    mixture = ColorMixture(*(jnp.broadcast_to(leaf[:1], leaf.shape) for leaf in mixture))
    earlier = jnp.asarray([31, 200, 7])
    for c in range(3):
        x = jnp.broadcast_to(earlier, (256, 3)).at[:, c].set(jnp.arange(256))
        log_p = log_prob_of_each_color(x, mixture, 256)[:, c]
        assert special.logsumexp(log_p) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("channels", "levels"), [(3, 9), (2, 16), (4, 4)])
def test_the_mixture_sums_to_one_over_all_pixels(x64, channels, levels):
    x = jnp.asarray(list(itertools.product(range(levels), repeat=channels)))
    outputs = random_outputs(1, channels=channels, components=3, scale=2.0)
    mixture = color_mixture.split_parameters(jnp.broadcast_to(outputs, (len(x), outputs.shape[1])), channels=channels)
    log_p = log_prob_of_each_color(x, mixture, levels).sum(axis=-1)
    assert special.logsumexp(log_p) == pytest.approx(0.0, abs=1e-12)
    assert np.std(log_p) > 0.1


def test_a_color_depends_on_every_earlier_color_and_on_no_other():
    mixture = color_mixture.split_parameters(random_outputs(channels=3, components=2), channels=3)
    base = jnp.asarray([3, 8, 5])
    mixtures = jax.jit(lambda x: color_mixture.mixture_of_each_color(x, mixture, levels=17))
    before = mixtures(base)
    for d in range(3):
        after = mixtures(base.at[d].add(4))
        for ours, theirs in zip(before[:2], after[:2], strict=True):  # weights and means
            np.testing.assert_array_equal(np.any(np.asarray(ours != theirs), axis=-1), np.arange(3) > d)


def test_one_color_keeps_its_weights_and_means():
    outputs = random_outputs(5, channels=1, components=4)
    assert outputs.shape == (5, 12)
    logits, means, log_scales = color_mixture.mixture_of_each_color(
        jnp.arange(5)[:, None], color_mixture.split_parameters(outputs, channels=1), levels=17
    )
    np.testing.assert_allclose(jax.nn.softmax(logits[:, 0]), jax.nn.softmax(outputs[:, :4]), atol=1e-6)
    np.testing.assert_array_equal(means[:, 0], outputs[:, 4:8])
    np.testing.assert_array_equal(log_scales[:, 0], outputs[:, 8:])


def test_values_and_gradients_are_finite_at_the_extremes():
    x = jnp.asarray([[0, 255, 0], [255, 0, 255]])

    def total(outputs):
        mixture = color_mixture.split_parameters(outputs, channels=3)
        return jnp.sum(log_prob_of_each_color(x, mixture, 256))

    for scale in (0.0, 50.0):
        outputs = random_outputs(2, channels=3, components=5, scale=scale).astype(jnp.float32)
        value, gradient = jax.value_and_grad(total)(jnp.clip(outputs, -7.0, 50.0))
        assert np.isfinite(value)
        assert np.isfinite(np.asarray(gradient)).all()


def test_the_count_is_ten_per_component_of_three_colors_and_other_shapes_are_refused():
    assert color_mixture.parameters_per_pixel(channels=3, components=10) == 100
    with pytest.raises(AssertionError, match="10 M parameters for 3 channels; got 99"):
        color_mixture.split_parameters(jnp.zeros((2, 99)), channels=3)
    mixture = color_mixture.split_parameters(jnp.zeros((2, 100)), channels=3)
    with pytest.raises(AssertionError):
        color_mixture.mixture_of_each_color(jnp.zeros((2, 2), int), mixture, levels=17)
