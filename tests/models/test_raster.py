import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.models import autoregressive, conditionals, raster
from gm_jax.networks.pixelcnn import GatedPixelCNN, PixelCNN
from gm_jax.networks.pixelrnn import DiagonalBiLSTM, PixelRNN, RowLSTM
from gm_jax.networks.wavenet import WaveNet
from gm_jax.ops import binarization
from gm_jax.samplers import autoregressive as samplers


def _wavenet(shape, levels, outputs, classes):
    module = WaveNet(levels, outputs, features=4, skip=6, dilations=(1, 2, 4), num_classes=classes)
    return raster.sequence_network(module, length=math.prod(shape))


NETWORKS = {
    "pixelcnn": lambda *spec: raster.image_network(
        PixelCNN(*spec[:3], features=6, layers=2, first_size=3, num_classes=spec[3])
    ),
    "gated": lambda *spec: raster.image_network(
        GatedPixelCNN(*spec[:3], features=4, layers=2, first_size=5, num_classes=spec[3])
    ),
    "row_lstm": lambda *spec: raster.image_network(
        PixelRNN(*spec[:3], lstm=RowLSTM, hidden=3, layers=2, first_size=3, num_classes=spec[3])
    ),
    "diagonal_bilstm": lambda *spec: raster.image_network(
        PixelRNN(*spec[:3], lstm=DiagonalBiLSTM, hidden=3, layers=2, first_size=3, num_classes=spec[3])
    ),
    "wavenet": _wavenet,
}
OUTPUTS = {  # levels -> Output, P
    "bernoulli": lambda levels: (conditionals.bernoulli(lambda key, x: binarization.static(x), levels=2), 1),
    "categorical": lambda levels: (conditionals.categorical(levels=levels), levels),
    "logistic_mixture": lambda levels: (conditionals.discretized_logistic_mixture(levels=levels), 6),
}
each_network = pytest.mark.parametrize("name", NETWORKS)
each_data = pytest.mark.parametrize(
    ("shape", "levels", "kind", "classes"),
    [
        ((3, 3, 1), 2, "bernoulli", None),
        ((2, 2, 1), 2, "bernoulli", 3),
        ((1, 2, 3), 3, "categorical", None),
        ((2, 1, 3), 3, "logistic_mixture", None),
    ],
    ids=["binary", "labels", "rgb", "rgb mixture"],
)


def model_of(name, shape, *, levels=2, kind="bernoulli", classes=None):
    output, num_outputs = OUTPUTS[kind](levels)
    network = NETWORKS[name](shape, levels, num_outputs, classes)
    return autoregressive.autoregressive(network, output, shape=shape, num_classes=classes)


def random_params(model, shape, classes=None, scale=0.5):
    batch = {"x": np.zeros((1, *shape), np.uint8)}
    if classes is not None:
        batch["label"] = np.zeros(1, np.int32)
    leaves, structure = jax.tree.flatten(jax.eval_shape(model.model.init, jax.random.key(0), batch)[0])
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        structure, [jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    )


def all_images(shape, levels):
    grid = itertools.product(range(levels), repeat=math.prod(shape))
    return jnp.asarray(list(grid), jnp.uint8).reshape(-1, *shape)


def log_prob(model, params, x):
    return jax.jit(model.model.log_prob)(params, {}, jax.random.key(0), x).log_prob


@each_network
@each_data
def test_the_probabilities_of_all_images_sum_to_one_to_ten_digits_in_float64(x64, name, shape, levels, kind, classes):
    model = model_of(name, shape, levels=levels, kind=kind, classes=classes)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), random_params(model, shape, classes))
    log_p = log_prob(model, params, all_images(shape, levels))
    assert log_p.dtype == jnp.float64
    assert special.logsumexp(log_p) == pytest.approx(0.0, abs=1e-10)
    assert np.std(log_p) > 0.01  # a uniform distribution would pass whatever the masks


@each_network
def test_they_sum_to_one_in_float32(name):
    model = model_of(name, (2, 2, 1), classes=3)
    log_p = log_prob(model, random_params(model, (2, 2, 1), 3), all_images((2, 2, 1), 2))
    assert log_p.dtype == jnp.float32
    assert special.logsumexp(np.asarray(log_p, np.float64)) == pytest.approx(0.0, abs=1e-5)


@each_network
@pytest.mark.parametrize(
    ("shape", "levels", "kind", "classes", "temperature"),
    [
        # Colours of levels without labels: the next test. Bernoulli draws: the one after it.
        ((3, 4, 1), 17, "categorical", 3, 0.5),
        ((3, 2, 3), 9, "logistic_mixture", 2, 0.7),
    ],
    ids=["levels, labels", "rgb mixture, labels"],
)
def test_cached_samples_are_the_naive_ones_bit_for_bit(name, shape, levels, kind, classes, temperature):
    model = model_of(name, shape, levels=levels, kind=kind, classes=classes)
    params = random_params(model, shape, classes)
    label = None if classes is None else jnp.arange(8) % classes
    cached, naive = (
        jax.jit(lambda key, fn=fn: fn(params, {}, key, 8, label=label, temperature=temperature))(jax.random.key(2))
        for fn in (model.sample, model.sample_naive)
    )
    np.testing.assert_array_equal(cached, naive)
    assert cached.shape == (8, *shape)
    assert len(np.unique(np.asarray(cached).reshape(8, -1), axis=0)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixelcnn", "gated", "wavenet"])
def test_cached_samples_of_whole_images_are_the_naive_ones_bit_for_bit(name):
    """With the optimisations of the compiler that users have, which `make test` leaves out."""
    shape = (28, 28, 1)
    model = model_of(name, shape)
    params = random_params(model, shape, scale=0.3)
    samplers_of_both_kinds = (model.sample, model.sample_naive)
    cached, naive = (jax.jit(fn, static_argnums=3)(params, {}, jax.random.key(2), 4) for fn in samplers_of_both_kinds)
    np.testing.assert_array_equal(cached, naive)
    assert 0.01 < np.mean(np.asarray(cached)) < 0.99


@pytest.mark.parametrize(("name", "num_kept"), [*((name, 7) for name in NETWORKS), ("gated", 17), ("wavenet", 17)])
def test_a_prefix_is_kept_and_completed_as_the_naive_sampler_does(name, num_kept):
    shape, num_dims = (3, 2, 3), 18
    params = random_params(model_of(name, shape, levels=4, kind="categorical"), shape)["autoregressive"]
    network, draw = NETWORKS[name](shape, 4, 4, None), samplers.draw_categorical
    prefix = jax.random.randint(jax.random.key(5), (6, num_kept), 0, 4)

    def cached(key):
        return samplers.sample(network.conditionals(params, None, 0), draw, key, 6, num_dims, prefix=prefix)

    def naive(key):
        outputs = lambda x: network.outputs(params, x, None, 0)  # noqa: E731
        return samplers.sample_naive(outputs, draw, key, 6, num_dims, prefix=prefix)

    completed = jax.jit(cached)(jax.random.key(6))
    np.testing.assert_array_equal(completed, jax.jit(naive)(jax.random.key(6)))
    np.testing.assert_array_equal(completed[:, :num_kept], prefix)


@each_network
def test_samples_are_as_frequent_as_they_are_probable(name):
    shape, n = (2, 2, 1), 20_000
    model = model_of(name, shape)
    params = random_params(model, shape, scale=0.3)
    sample = jax.jit(lambda temperature: model.sample(params, {}, jax.random.key(3), n, temperature=temperature))
    for temperature in (1.0, 0.8):
        counts = np.bincount(np.asarray(sample(temperature)).reshape(n, 4) @ [8, 4, 2, 1], minlength=16)
        p = tempered_probabilities(name, params, temperature)
        expected = n * p
        assert expected.min() > 5
        assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def tempered_probabilities(name, params, temperature):
    """[16] of the 2 x 2 images, from the conditionals of the whole pass, each divided by the temperature."""
    x = all_images((2, 2, 1), 2).reshape(16, 4).astype(jnp.int32)
    network = NETWORKS[name]((2, 2, 1), 2, 1, None)
    logits = jax.jit(lambda params: network.outputs(params, x, None, 0))(params["autoregressive"])[..., 0]
    logits = np.asarray(logits, np.float64) / temperature
    return special.expit(np.where(x == 1, logits, -logits)).prod(axis=1)


@each_network
def test_the_likelihood_without_a_label_is_that_of_the_mixture_of_classes(name):
    shape = (2, 2, 1)
    model = model_of(name, shape, classes=3)
    params = random_params(model, shape, 3)
    x = all_images(shape, 2)

    def nll(image, label):
        batch = {"x": image[None], "label": label[None]}
        return model.model.objectives[0].loss(params, {}, jax.random.key(0), batch)[0]

    each = -jax.jit(jax.vmap(jax.vmap(nll, in_axes=(0, None)), in_axes=(None, 0)))(x, jnp.arange(3))
    expected = special.logsumexp(np.asarray(each, np.float64), axis=0) - np.log(3)
    np.testing.assert_allclose(log_prob(model, params, x), expected, atol=1e-5)
    assert np.std(each, axis=0).max() > 1e-3


def test_scales_of_the_mixture_are_bounded_below_and_their_gradient_never_dies():
    output = conditionals.discretized_logistic_mixture(levels=256)
    x, base = jnp.full((1, 1), 128), jnp.zeros((1, 1, 3))
    for free in (-100.0, -7.0, 0.0, 20.0):
        nll = lambda free: output.nll(x, base.at[..., 2].set(free))[0]  # noqa: E731
        value, gradient = jax.value_and_grad(nll)(free)
        assert np.isfinite(value)
        assert np.isfinite(gradient)
    tight = output.nll(x, base.at[..., 1].set(1 / 255).at[..., 2].set(-100.0))
    assert 0 <= float(tight[0]) < 0.6  # exp(-7) is well below half a bin, yet no point mass
