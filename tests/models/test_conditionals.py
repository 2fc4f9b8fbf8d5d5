import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.models import conditionals
from gm_jax.networks.fvsbn import FVSBN
from gm_jax.networks.made import MADE, mask_sets
from gm_jax.networks.nade import NADE
from gm_jax.ops import binarization

LEVELS, D, N, CLASSES = 17, 7, 3, 2
OUTPUTS = {
    "bernoulli": (conditionals.bernoulli(lambda key, x: binarization.threshold(x, levels=LEVELS), levels=LEVELS), 1),
    "categorical": (conditionals.categorical(levels=LEVELS), LEVELS),
}
each_output = pytest.mark.parametrize("name", OUTPUTS)
ORDERS = np.stack([np.random.default_rng(1).permutation(D) for _ in range(2)])


def made(hidden, classes, *, direct=False):
    # softplus, whose derivative is nowhere zero: a dead unit would look like a masked connection.
    return MADE(D, hidden, classes, jax.nn.softplus, direct), mask_sets(ORDERS, hidden)


NETWORKS = {
    "fvsbn": lambda classes: (FVSBN(D, classes), ORDERS),
    "nade": lambda classes: (NADE(D, 5, classes), ORDERS),
    "made": lambda classes: made((9,), classes),
    "made[narrow]": lambda classes: made((3, 2), classes),
    "made[deep, direct]": lambda classes: made((9, 20, 4), classes, direct=True),
    "made[no hidden layers]": lambda classes: made((), classes),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def images(count=6):
    return jnp.asarray(np.random.default_rng(3).integers(0, LEVELS, (count, 4, 4, 1)), jnp.uint8)


# Outputs.


@each_output
def test_levels_come_from_data_and_go_back(name):
    output, _ = OUTPUTS[name]
    raw = images()
    x = output.prepare(jax.random.key(0), raw)
    assert x.shape == raw.shape
    assert x.dtype == jnp.int32
    data = output.to_data(x)
    assert data.dtype == raw.dtype
    expected = raw if name == "categorical" else 16 * (raw > 8).astype(jnp.uint8)
    np.testing.assert_array_equal(data, expected)


@each_output
def test_draws_have_the_probabilities_that_the_nll_gives_them(name):
    output, num_outputs = OUTPUTS[name]
    outputs = jax.random.normal(jax.random.key(2), (1, 1, num_outputs))
    num_levels = 2 if name == "bernoulli" else LEVELS
    x = jnp.arange(num_levels)[:, None]
    p = np.exp(-np.asarray(output.nll(x, jnp.repeat(outputs, num_levels, axis=0)), np.float64))
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    draws = output.draw(jax.random.key(0), jnp.repeat(outputs[0], 50_000, axis=0), 1.0)
    assert stats.chisquare(np.bincount(draws, minlength=num_levels), 50_000 * p / p.sum()).pvalue > 1e-3


def test_the_measure_says_what_the_likelihood_is_of():
    assert OUTPUTS["bernoulli"][0].measure == "binary"
    assert OUTPUTS["categorical"][0].measure == "17 levels"


# Networks.


def random_network(name, classes=None):
    network = conditionals.masked_network(*NETWORKS[name](classes), ORDERS)
    label = None if classes is None else jnp.arange(N) % classes
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((N, D), jnp.int32), label)
    return network, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes), label


@each_network
def test_the_jacobian_is_strictly_triangular_in_each_ordering_and_no_input_is_dead(name):
    network, params, _ = random_network(name)
    x = jnp.asarray(np.random.default_rng(4).uniform(size=(8, D)), jnp.float32)
    output = lambda x, k: network.outputs(params, x[None], None, k)[0, :, 0]  # noqa: E731
    jacobian = jax.jit(jax.vmap(jax.jacobian(output), in_axes=(0, None)))
    for k, order in enumerate(ORDERS):
        depends = np.any(np.asarray(jacobian(x, k)) != 0, axis=0)[np.ix_(order, order)]  # [i, j]: of i on j, in order
        assert not np.any(depends & ~np.tri(D, k=-1, dtype=bool))
        np.testing.assert_array_equal(depends.any(axis=0), np.arange(D) < D - 1)
        np.testing.assert_array_equal(depends.any(axis=1), np.arange(D) > 0)
        if name != "made[narrow]":  # two units have two degrees, and dimensions between the same two look alike to them
            np.testing.assert_array_equal(depends, np.tri(D, k=-1, dtype=bool))


@pytest.mark.parametrize(
    ("name", "classes"),
    [*((name, CLASSES) for name in NETWORKS), *((name, None) for name in ("fvsbn", "nade", "made[deep, direct]"))],
)
def test_step_by_step_the_outputs_are_those_of_the_whole_pass(x64, name, classes):
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


@each_network
def test_the_label_moves_every_conditional(name):
    network, params, _ = random_network(name, CLASSES)
    x = jnp.zeros((N, D), jnp.int32)
    zero, one = (network.outputs(params, x, jnp.full(N, y), 0) for y in range(CLASSES))
    assert np.all(np.asarray(zero) != np.asarray(one))
