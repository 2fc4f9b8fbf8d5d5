import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.models import autoregressive, autoregressive_networks, pixel_conditionals
from gm_jax.networks.pixelcnn_pp import PixelCNNPlusPlus
from gm_jax.ops import binarization, color_mixture
from tests.models.naive_autoregressive import log_prob, naive


def pixelcnn_pp(shape, levels, kind, classes=None, *, scales=2):
    """Returns a model with weights that are drawn at random, and those."""
    if kind == "mixture":
        likelihood = autoregressive_networks.discretized_logistic_mixture(levels=levels)
        num_outputs = color_mixture.parameters_per_pixel(channels=shape[2], components=2)
        of_each_color = pixel_conditionals.mixture_of_colors(levels)
    else:
        likelihood = autoregressive_networks.bernoulli(lambda key, x: binarization.static(x), levels=2)
        num_outputs, of_each_color = 1, pixel_conditionals.one_color
    module = PixelCNNPlusPlus(shape, levels, num_outputs, classes, features=3, blocks=1, scales=scales)
    network = pixel_conditionals.whole_pixel_network(module, of_each_color)
    model = autoregressive.Autoregressive(network=network, likelihood=likelihood, shape=shape, num_classes=classes)
    batch = {"x": np.zeros((1, *shape), np.uint8), "label": np.zeros(1, np.int32)}
    shapes, _ = jax.eval_shape(model.model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def all_images(shape, levels):
    grid = itertools.product(range(levels), repeat=math.prod(shape))
    return jnp.asarray(list(grid), jnp.uint8).reshape(-1, *shape)


each_world = pytest.mark.parametrize(
    ("shape", "levels", "kind", "classes"),
    [((3, 3, 1), 2, "bernoulli", None), ((2, 2, 1), 3, "mixture", 3), ((2, 1, 3), 3, "mixture", None)],
    ids=["binary", "labels", "rgb"],
)


@each_world
def test_probabilities_of_all_images_sum_to_one_in_float64(x64, shape, levels, kind, classes):
    model, params = pixelcnn_pp(shape, levels, kind, classes)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    log_p = log_prob(model, params, all_images(shape, levels))
    assert log_p.dtype == jnp.float64
    assert special.logsumexp(log_p) == pytest.approx(0.0, abs=1e-10)
    assert np.std(log_p) > 0.01


@pytest.mark.parametrize(
    ("shape", "levels", "kind", "classes"),
    [((2, 2, 1), 2, "bernoulli", 3), ((2, 1, 3), 3, "mixture", None)],
    ids=["labels", "rgb"],
)
def test_samples_are_those_of_a_pass_for_each_position_bit_for_bit(shape, levels, kind, classes):
    model, params = pixelcnn_pp(shape, levels, kind, classes)
    label = None if classes is None else jnp.arange(8) % classes
    cached, oracle = (
        jax.jit(lambda key, fn=fn: fn(params, {}, key, 8, label=label, temperature=0.8))(jax.random.key(2))
        for fn in (model.sample, naive(model).sample)
    )
    np.testing.assert_array_equal(cached, oracle)
    assert len(np.unique(np.asarray(cached).reshape(8, -1), axis=0)) > 1


def test_samples_of_colors_are_as_frequent_as_they_are_probable():
    shape, n = (1, 2, 3), 20_000
    model, params = pixelcnn_pp(shape, 2, "mixture", scales=1)
    x = np.asarray(jax.jit(lambda key: model.sample(params, {}, key, n))(jax.random.key(3))).reshape(n, 6)
    counts = np.bincount(x @ [32, 16, 8, 4, 2, 1], minlength=64)
    expected = n * np.exp(np.asarray(log_prob(model, params, all_images(shape, 2)), np.float64))
    assert expected.min() > 5
    assert stats.chisquare(counts, expected * n / expected.sum()).pvalue > 1e-3


def test_a_prefix_that_ends_within_a_pixel_is_kept_and_completed():
    model, params = pixelcnn_pp((2, 2, 3), 5, "mixture")
    prefix = jax.random.randint(jax.random.key(5), (6, 7), 0, 5)
    draw = functools.partial(model.generate, params, n=6, label=None, k=0, prefix=prefix)
    completed = jax.jit(lambda key: draw(key=key))(jax.random.key(6))
    oracle = functools.partial(naive(model).generate, params, n=6, label=None, k=0, prefix=prefix)
    np.testing.assert_array_equal(completed, jax.jit(lambda key: oracle(key=key))(jax.random.key(6)))
    np.testing.assert_array_equal(completed[:, :7], prefix)


def test_the_conditional_of_a_color_depends_on_all_earlier_levels_and_on_no_other():
    """Changes one level after the other: levels are integers, so that there is no gradient."""
    shape, levels = (3, 3, 3), 9
    model, params = pixelcnn_pp(shape, levels, "mixture")
    base = jax.random.randint(jax.random.key(0), (4, 27), 0, levels)
    changed = jax.vmap(lambda j: base.at[:, j].set((base[:, j] + 4) % levels))(jnp.arange(27))
    outputs = jax.jit(lambda x: model.network.outputs(params["autoregressive"], x, None, 0))

    def conditionals(x):
        weights, rest = jnp.split(outputs(x.reshape(-1, 27)).reshape(*x.shape, -1), [2], axis=-1)
        return jnp.concatenate([jax.nn.softmax(weights), rest], axis=-1)

    moved = jnp.abs(conditionals(changed) - conditionals(base[None])).max(axis=(1, 3))  # [changed, position]
    sees = np.asarray(moved > 1e-6).T
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def test_the_likelihood_is_the_product_of_the_conditionals(x64):
    model, params = pixelcnn_pp((2, 2, 3), 6, "mixture")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    x = jax.random.randint(jax.random.key(0), (5, 12), 0, 6, jnp.int32)
    conditionals = model.network.conditionals(params["autoregressive"], None, 0)
    step, cache, total = jax.jit(conditionals.step), conditionals.init(5), 0.0
    for i in range(12):
        cache, outputs = step(cache, i, x[:, i - 1])
        total = total + model.likelihood.nll(x[:, i : i + 1], outputs[:, None])
    np.testing.assert_allclose(-total, log_prob(model, params, x.reshape(5, 2, 2, 3)), rtol=1e-10)


def test_init_takes_the_statistics_of_a_hundred_examples():
    model, _ = pixelcnn_pp((4, 4, 1), 17, "mixture")
    x = np.random.default_rng(0).integers(0, 17, size=(150, 4, 4, 1), dtype=np.uint8)
    init = jax.jit(lambda x: model.model.init(jax.random.key(0), {"x": x})[0]["autoregressive"])
    params = init(x)
    outputs = jax.jit(lambda x: model.network.outputs(params, x, None, 0))(x[:100].reshape(100, 16).astype(np.int32))
    means_and_scales = outputs[..., 2:]  # the weights are relative to their sum
    np.testing.assert_allclose(jnp.std(means_and_scales, axis=(0, 1)), np.ones(4), rtol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, params, init(np.concatenate([x[:100], 0 * x[100:]])))
