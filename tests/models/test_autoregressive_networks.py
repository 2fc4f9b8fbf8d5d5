import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.models import autoregressive, autoregressive_networks
from gm_jax.networks.fvsbn import FVSBN
from gm_jax.networks.made import MADE, mask_sets
from gm_jax.networks.nade import NADE
from gm_jax.networks.pixelcnn import GatedPixelCNN, PixelCNN
from gm_jax.networks.pixelrnn import DiagonalBiLSTM, PixelRNN, RowLSTM
from gm_jax.networks.transformer import CausalTransformer
from gm_jax.networks.wavenet import WaveNet
from gm_jax.ops import binarization
from gm_jax.samplers import autoregressive as samplers
from tests.models.naive_autoregressive import log_prob, naive

LEVELS, D, N, CLASSES = 17, 7, 3, 2
BINARIZE = functools.partial(binarization.threshold, levels=LEVELS)
LIKELIHOODS = {
    "bernoulli": (autoregressive_networks.bernoulli(lambda key, x: BINARIZE(x), levels=LEVELS), 1),
    "categorical": (autoregressive_networks.categorical(levels=LEVELS), LEVELS),
}
each_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)
ORDERS = np.stack([np.random.default_rng(1).permutation(D) for _ in range(2)])


def made(hidden, classes, *, direct=False):
    # The derivative of softplus is nowhere zero; a dead unit would look like a masked connection.
    return MADE(D, hidden, classes, jax.nn.softplus, direct), mask_sets(ORDERS, hidden)


DENSE = {
    "fvsbn": lambda classes: (FVSBN(D, classes), ORDERS),
    "nade": lambda classes: (NADE(D, 5, classes), ORDERS),
    "made": lambda classes: made((9,), classes),
    "made[narrow]": lambda classes: made((3, 2), classes),
    "made[deep, direct]": lambda classes: made((9, 20, 4), classes, direct=True),
    "made[no hidden layers]": lambda classes: made((), classes),
}
each_dense_network = pytest.mark.parametrize("name", DENSE)


def raw_images(count=6):
    return jnp.asarray(np.random.default_rng(3).integers(0, LEVELS, (count, 4, 4, 1)), jnp.uint8)


# Likelihoods.


@each_likelihood
def test_to_data_inverts_prepare(name):
    likelihood, _ = LIKELIHOODS[name]
    raw = raw_images()
    x = likelihood.prepare(jax.random.key(0), raw)
    assert x.shape == raw.shape
    assert x.dtype == jnp.int32
    data = likelihood.to_data(x)
    assert data.dtype == raw.dtype
    expected = raw if name == "categorical" else 16 * (raw > 8).astype(jnp.uint8)
    np.testing.assert_array_equal(data, expected)


@each_likelihood
def test_draws_have_the_probabilities_of_the_nll(name):
    likelihood, num_outputs = LIKELIHOODS[name]
    outputs = jax.random.normal(jax.random.key(2), (1, 1, num_outputs))
    num_levels = 2 if name == "bernoulli" else LEVELS
    x = jnp.arange(num_levels)[:, None]
    p = np.exp(-np.asarray(likelihood.nll(x, jnp.repeat(outputs, num_levels, axis=0)), np.float64))
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    draws = likelihood.draw(jax.random.key(0), jnp.repeat(outputs[0], 50_000, axis=0), 1.0)
    assert stats.chisquare(np.bincount(draws, minlength=num_levels), 50_000 * p / p.sum()).pvalue > 1e-3


def test_each_likelihood_has_its_measure():
    assert LIKELIHOODS["bernoulli"][0].measure == "binary"
    assert LIKELIHOODS["categorical"][0].measure == "17 levels"


def test_codes_are_any_integers_and_stay_what_they_are():
    likelihood = autoregressive_networks.codes(num_codes=300)
    x = likelihood.prepare(jax.random.key(0), jnp.array([[7, 299]]))
    np.testing.assert_array_equal(likelihood.to_data(x), [[7, 299]])
    outputs = jax.random.normal(jax.random.key(1), (1, 2, 300))
    expected = -jax.nn.log_softmax(outputs)[0, [0, 1], [7, 299]].sum()
    np.testing.assert_allclose(likelihood.nll(x, outputs), expected[None], rtol=1e-5)


# Dense networks.


def random_network(name, classes=None):
    network = autoregressive_networks.masked_network(*DENSE[name](classes), ORDERS)
    label = None if classes is None else jnp.arange(N) % classes
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((N, D), jnp.int32), label)
    return network, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes), label


@each_dense_network
def test_the_jacobian_is_strictly_triangular_and_no_input_is_dead(name):
    network, params, _ = random_network(name)
    x = jnp.asarray(np.random.default_rng(4).uniform(size=(8, D)), jnp.float32)
    output = lambda x, k: network.outputs(params, x[None], None, k)[0, :, 0]  # noqa: E731
    jacobian = jax.jit(jax.vmap(jax.jacobian(output), in_axes=(0, None)))
    for k, order in enumerate(ORDERS):
        depends = np.any(np.asarray(jacobian(x, k)) != 0, axis=0)[np.ix_(order, order)]  # [i, j]: of i on j, in order
        assert not np.any(depends & ~np.tri(D, k=-1, dtype=bool))
        np.testing.assert_array_equal(depends.any(axis=0), np.arange(D) < D - 1)
        np.testing.assert_array_equal(depends.any(axis=1), np.arange(D) > 0)
        if name != "made[narrow]":  # its two units have two degrees, so some dimensions look alike to them
            np.testing.assert_array_equal(depends, np.tri(D, k=-1, dtype=bool))


@pytest.mark.parametrize(
    ("name", "classes"),
    [*((name, CLASSES) for name in DENSE), *((name, None) for name in ("fvsbn", "nade", "made[deep, direct]"))],
)
def test_stepwise_outputs_equal_those_of_the_whole_pass(x64, name, classes):
    network, params, label = random_network(name, classes)
    x = jnp.asarray(np.random.default_rng(5).integers(0, 2, (N, D)), jnp.int32)
    outputs_of = jax.jit(lambda k: network.outputs(params, x, label, k))
    for k in range(len(ORDERS)):
        whole = outputs_of(k)
        assert whole.shape == (N, D, 1)
        init, step, *_ = network.conditionals(params, label, k)
        cache, previous, step = init(N), jnp.zeros(N, jnp.int32), jax.jit(step)
        for i, dim in enumerate(ORDERS[k]):
            cache, outputs = step(cache, i, previous)
            np.testing.assert_allclose(outputs, whole[:, dim], rtol=1e-10, atol=1e-12)
            previous = x[:, dim]


@each_dense_network
def test_the_label_moves_every_conditional(name):
    network, params, _ = random_network(name, CLASSES)
    x = jnp.zeros((N, D), jnp.int32)
    zero, one = (network.outputs(params, x, jnp.full(N, y), 0) for y in range(CLASSES))
    assert np.all(np.asarray(zero) != np.asarray(one))


# Networks in raster order.


def _wavenet(shape, levels, outputs, classes):
    module = WaveNet(levels, outputs, features=4, skip=6, dilations=(1, 2, 4), num_classes=classes)
    return autoregressive_networks.sequence_network(module, length=math.prod(shape))


def _transformer(shape, levels, outputs, classes):
    module = CausalTransformer(shape, levels, outputs, features=6, heads=2, layers=2, num_classes=classes)
    return autoregressive_networks.sequence_network(module, length=math.prod(shape))


RASTER = {
    "pixelcnn": lambda *spec: autoregressive_networks.image_network(
        PixelCNN(*spec[:3], features=6, layers=2, first_size=3, num_classes=spec[3])
    ),
    "gated": lambda *spec: autoregressive_networks.image_network(
        GatedPixelCNN(*spec[:3], features=4, layers=2, first_size=5, num_classes=spec[3])
    ),
    "row_lstm": lambda *spec: autoregressive_networks.image_network(
        PixelRNN(*spec[:3], lstm=RowLSTM, hidden=3, layers=2, first_size=3, num_classes=spec[3])
    ),
    "diagonal_bilstm": lambda *spec: autoregressive_networks.image_network(
        PixelRNN(*spec[:3], lstm=DiagonalBiLSTM, hidden=3, layers=2, first_size=3, num_classes=spec[3])
    ),
    "wavenet": _wavenet,
    "transformer": _transformer,
}
LIKELIHOODS_OF_LEVELS = {  # levels -> (PixelLikelihood, P)
    "bernoulli": lambda levels: (autoregressive_networks.bernoulli(lambda key, x: binarization.static(x), levels=2), 1),
    "categorical": lambda levels: (autoregressive_networks.categorical(levels=levels), levels),
    "logistic_mixture": lambda levels: (autoregressive_networks.discretized_logistic_mixture(levels=levels), 6),
}
each_raster_network = pytest.mark.parametrize("name", RASTER)
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
    likelihood, num_outputs = LIKELIHOODS_OF_LEVELS[kind](levels)
    network = RASTER[name](shape, levels, num_outputs, classes)
    return autoregressive.Autoregressive(network=network, likelihood=likelihood, shape=shape, num_classes=classes)


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


@each_raster_network
@each_data
def test_probabilities_of_all_images_sum_to_one_in_float64(x64, name, shape, levels, kind, classes):
    model = model_of(name, shape, levels=levels, kind=kind, classes=classes)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), random_params(model, shape, classes))
    log_p = log_prob(model, params, all_images(shape, levels))
    assert log_p.dtype == jnp.float64
    assert special.logsumexp(log_p) == pytest.approx(0.0, abs=1e-10)
    assert np.std(log_p) > 0.01  # a uniform distribution would pass with any masks


def test_probabilities_of_all_images_sum_to_one_in_float32():
    model = model_of("gated", (2, 2, 1), classes=3)
    log_p = log_prob(model, random_params(model, (2, 2, 1), 3), all_images((2, 2, 1), 2))
    assert log_p.dtype == jnp.float32
    assert special.logsumexp(np.asarray(log_p, np.float64)) == pytest.approx(0.0, abs=1e-5)


@each_raster_network
@pytest.mark.parametrize(
    ("shape", "levels", "kind", "classes", "temperature"),
    [
        # Colours of levels without labels: the next test. Bernoulli draws: the one after it.
        ((3, 4, 1), 17, "categorical", 3, 0.5),
        ((3, 2, 3), 9, "logistic_mixture", 2, 0.7),
    ],
    ids=["levels, labels", "rgb mixture, labels"],
)
def test_samples_equal_the_naive_samples_bit_for_bit(name, shape, levels, kind, classes, temperature):
    model = model_of(name, shape, levels=levels, kind=kind, classes=classes)
    params = random_params(model, shape, classes)
    label = None if classes is None else jnp.arange(8) % classes
    cached, oracle = (
        jax.jit(lambda key, fn=fn: fn(params, {}, key, 8, label=label, temperature=temperature))(jax.random.key(2))
        for fn in (model.sample, naive(model).sample)
    )
    np.testing.assert_array_equal(cached, oracle)
    assert cached.shape == (8, *shape)
    assert len(np.unique(np.asarray(cached).reshape(8, -1), axis=0)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixelcnn", "gated", "wavenet"])
def test_samples_of_whole_images_equal_the_naive_samples_bit_for_bit(name):
    """CI runs it with the compiler optimisations that users have and `make test` disables."""
    shape = (28, 28, 1)
    model = model_of(name, shape)
    params = random_params(model, shape, scale=0.3)
    cached, oracle = (
        jax.jit(m.sample, static_argnums=3)(params, {}, jax.random.key(2), 4) for m in (model, naive(model))
    )
    np.testing.assert_array_equal(cached, oracle)
    assert 0.01 < np.mean(np.asarray(cached)) < 0.99


@pytest.mark.parametrize(("name", "num_kept"), [*((name, 7) for name in RASTER), ("gated", 17), ("wavenet", 17)])
def test_a_prefix_is_kept_and_completed_as_the_naive_sampler_does(name, num_kept):
    shape, num_dims = (3, 2, 3), 18
    params = random_params(model_of(name, shape, levels=4, kind="categorical"), shape)["autoregressive"]
    network, draw = RASTER[name](shape, 4, 4, None), samplers.draw_categorical
    prefix = jax.random.randint(jax.random.key(5), (6, num_kept), 0, 4)

    def cached(key):
        return samplers.sample(network.conditionals(params, None, 0), draw, key, 6, num_dims, prefix=prefix)

    def oracle(key):
        outputs = lambda x: network.outputs(params, x, None, 0)  # noqa: E731
        return samplers.sample_naive(outputs, draw, key, 6, num_dims, prefix=prefix)

    completed = jax.jit(cached)(jax.random.key(6))
    np.testing.assert_array_equal(completed, jax.jit(oracle)(jax.random.key(6)))
    np.testing.assert_array_equal(completed[:, :num_kept], prefix)


@each_raster_network
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
    """[16] probabilities of the 2 x 2 images, from the tempered conditionals of the whole pass."""
    x = all_images((2, 2, 1), 2).reshape(16, 4).astype(jnp.int32)
    network = RASTER[name]((2, 2, 1), 2, 1, None)
    logits = jax.jit(lambda params: network.outputs(params, x, None, 0))(params["autoregressive"])[..., 0]
    logits = np.asarray(logits, np.float64) / temperature
    return special.expit(np.where(x == 1, logits, -logits)).prod(axis=1)


def test_scales_of_the_mixture_are_bounded_below_with_a_finite_gradient():
    likelihood = autoregressive_networks.discretized_logistic_mixture(levels=256)
    x, base = jnp.full((1, 1), 128), jnp.zeros((1, 1, 3))
    for free in (-100.0, -7.0, 0.0, 20.0):
        nll = lambda free: likelihood.nll(x, base.at[..., 2].set(free))[0]  # noqa: E731
        value, gradient = jax.value_and_grad(nll)(free)
        assert np.isfinite(value)
        assert np.isfinite(gradient)
    tight = likelihood.nll(x, base.at[..., 1].set(1 / 255).at[..., 2].set(-100.0))
    assert 0 <= float(tight[0]) < 0.6  # exp(-7) is well below half a bin, yet no point mass
