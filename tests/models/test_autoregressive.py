import dataclasses
import itertools
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.errors import UserError
from gm_jax.models import autoregressive, autoregressive_networks
from gm_jax.networks.fvsbn import FVSBN
from gm_jax.networks.made import MADE, mask_sets
from gm_jax.networks.nade import NADE
from gm_jax.ops import binarization
from tests.models.naive_autoregressive import log_prob, naive

CLASSES = 2
NETWORKS = {
    "fvsbn": lambda orders, classes: (FVSBN(orders.shape[1], classes), orders),
    "nade": lambda orders, classes: (NADE(orders.shape[1], 5, classes), orders),
    "made": lambda orders, classes: (
        MADE(orders.shape[1], (12, 7), classes, direct=True),
        mask_sets(orders, (12, 7)),
    ),
}
each_network = pytest.mark.parametrize("name", NETWORKS)
each_mixture = pytest.mark.parametrize(
    ("num_orders", "classes"),
    [(1, None), (3, None), (1, CLASSES), (3, CLASSES)],
    ids=["one", "orderings", "labels", "orderings, labels"],
)
# A sample draws its ordering and label alike for all networks, so only one network goes through all cases.
each_network_some_mixtures = pytest.mark.parametrize(
    ("name", "num_orders", "classes"),
    [
        *(("fvsbn", num_orders, classes) for num_orders in (1, 3) for classes in (None, CLASSES)),
        *((name, *mixture) for name in ("nade", "made") for mixture in ((1, None), (3, CLASSES))),
    ],
)


def model_of(name, *, num_dims, num_orders=1, classes=None, natural=False, levels=2):
    orders = np.tile(np.arange(num_dims), (num_orders, 1))
    if not natural:
        orders = np.random.default_rng(1).permuted(orders, axis=1)
    module, structures = NETWORKS[name](orders, classes)
    binarize = lambda key, x: binarization.threshold(x, levels=levels)  # noqa: E731
    model = autoregressive.Autoregressive(
        network=autoregressive_networks.masked_network(module, structures, orders),
        likelihood=autoregressive_networks.bernoulli(binarize, levels=levels),
        shape=(num_dims,),
        num_classes=classes,
    )
    return model, orders


def random_params(model, shape, classes, scale=1.0):
    """Parameters of the right shapes, all non-zero, without compiling init."""
    batch = {"x": jnp.zeros((2, *np.atleast_1d(shape)), jnp.uint8)}
    if classes is not None:
        batch["label"] = jnp.zeros(2, jnp.int32)
    params, model_state = jax.eval_shape(model.model.init, jax.random.key(0), batch)
    assert model_state == {}
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), params)


def all_images(num_dims):
    return jnp.asarray(list(itertools.product([0, 1], repeat=num_dims)), jnp.uint8)


# Likelihood.


@each_network
@each_mixture
def test_probabilities_of_all_images_sum_to_one_in_float64(x64, name, num_orders, classes):
    model, _ = model_of(name, num_dims=10, num_orders=num_orders, classes=classes)
    params = random_params(model, 10, classes)
    assert jax.tree.leaves(params)[0].dtype == jnp.float64
    assert special.logsumexp(log_prob(model, params, all_images(10))) == pytest.approx(0.0, abs=1e-10)


def test_probabilities_of_all_images_sum_to_one_in_float32():
    model, _ = model_of("made", num_dims=8, num_orders=3, classes=CLASSES)
    log_p = log_prob(model, random_params(model, 8, CLASSES), all_images(8))
    assert log_p.dtype == jnp.float32
    assert special.logsumexp(np.asarray(log_p, np.float64)) == pytest.approx(0.0, abs=1e-5)


@each_network
def test_the_mixture_averages_probabilities_and_not_their_logs(x64, name):
    model, orders = model_of(name, num_dims=6, num_orders=3, classes=CLASSES)
    params = random_params(model, 6, CLASSES)
    module, structures = NETWORKS[name](orders, CLASSES)
    network = autoregressive_networks.masked_network(module, structures, orders)
    likelihood = autoregressive_networks.bernoulli(lambda key, x: x, levels=2)
    x = all_images(6)
    outputs = lambda y, k: network.outputs(params["autoregressive"], x, jnp.full(len(x), y), k)  # noqa: E731
    member = jax.jit(lambda y, k: -likelihood.nll(x, outputs(y, k)))
    members = [member(y, k) for k in range(3) for y in range(CLASSES)]
    mixture = log_prob(model, params, x)
    np.testing.assert_allclose(mixture, special.logsumexp(members, axis=0) - np.log(3 * CLASSES), rtol=1e-10)
    assert np.all(np.asarray(mixture) > np.mean(members, axis=0))


def test_the_likelihood_is_exact_and_names_its_mixtures():
    model, _ = model_of("made", num_dims=4, num_orders=3, classes=CLASSES)
    params = random_params(model, 4, CLASSES)
    likelihood = jax.eval_shape(model.model.log_prob, params, {}, jax.random.key(0), all_images(4))
    assert likelihood.kind == "exact"
    assert likelihood.settings == (("orderings", 3), ("labels", CLASSES))
    plain, _ = model_of("made", num_dims=4)
    params = random_params(plain, 4, None)
    likelihood = jax.eval_shape(plain.model.log_prob, params, {}, jax.random.key(0), all_images(4))
    assert likelihood.settings == ()


# Training.


@each_network
def test_the_loss_is_the_mean_negative_log_likelihood_in_nats(name):
    model, _ = model_of(name, num_dims=6)
    params, x = random_params(model, 6, None), all_images(6)[::3]
    loss, (_, metrics) = jax.jit(model.model.objectives[0].loss)(params, {}, jax.random.key(0), {"x": x})
    assert float(loss) == pytest.approx(-float(log_prob(model, params, x).mean()), rel=1e-5)
    assert float(metrics["nll"]) == float(loss)


def test_each_step_draws_one_of_the_orderings():
    model, _ = model_of("made", num_dims=6, num_orders=3)
    params, x = random_params(model, 6, None), all_images(6)[::3]
    loss = jax.jit(lambda key: model.model.objectives[0].loss(params, {}, key, {"x": x})[0])
    assert len({round(float(loss(jax.random.key(seed))), 4) for seed in range(30)}) == 3


@each_network
def test_every_parameter_gets_a_gradient(name):
    model, _ = model_of(name, num_dims=6, num_orders=2, classes=CLASSES)
    params = random_params(model, 6, CLASSES, scale=0.3)
    batch = {"x": all_images(6), "label": jnp.arange(64) % CLASSES}
    loss = lambda params: model.model.objectives[0].loss(params, {}, jax.random.key(0), batch)[0]  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_missing_labels_and_unknown_labels_are_refused():
    model, _ = model_of("made", num_dims=4, classes=CLASSES)
    with pytest.raises(UserError, match="label"):
        model.model.init(jax.random.key(0), {"x": all_images(4)})
    plain, _ = model_of("made", num_dims=4)
    with pytest.raises(UserError, match="label"):
        plain.sample(random_params(plain, 4, None), {}, jax.random.key(0), 2, label=jnp.zeros(2, jnp.int32))


@each_network
def test_a_shape_error_names_the_method_of_the_family(name):
    model, _ = model_of(name, num_dims=6)
    params = random_params(model, 6, None)
    with pytest.raises(Exception, match="shape") as error:
        model.model.objectives[0].loss(params, {}, jax.random.key(0), {"x": all_images(5)})
    names = [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(error.value.__traceback__)]
    assert "Autoregressive.loss" in names
    assert not [name for name in names if name.startswith("autoregressive.<locals>")]


# Sampling.


@each_network_some_mixtures
def test_samples_equal_the_naive_samples_bit_for_bit(name, num_orders, classes):
    model, _ = model_of(name, num_dims=20, num_orders=num_orders, classes=classes)
    params = random_params(model, 20, classes)
    cached, oracle = (
        jax.jit(lambda temperature, sample=sample: sample(params, {}, jax.random.key(3), 32, temperature=temperature))
        for sample in (model.sample, naive(model).sample)
    )
    for temperature in (1.0, 0.5):
        draws = cached(temperature)
        assert draws.shape == (32, 20)
        assert draws.dtype == jnp.uint8
        np.testing.assert_array_equal(draws, oracle(temperature))
    assert np.any(np.asarray(cached(1.0)) != np.asarray(cached(0.5)))


@each_network_some_mixtures
def test_samples_are_as_frequent_as_they_are_probable(name, num_orders, classes):
    model, _ = model_of(name, num_dims=4, num_orders=num_orders, classes=classes)
    params, count = random_params(model, 4, classes), 50_000
    draws = jax.jit(model.sample, static_argnums=3)(params, {}, jax.random.key(0), count)
    p = np.exp(np.asarray(log_prob(model, params, all_images(4)), np.float64))
    observed = np.bincount(np.asarray(draws, np.int64) @ [8, 4, 2, 1], minlength=16)
    assert stats.chisquare(observed, count * p / p.sum()).pvalue > 1e-3


def test_samples_with_a_label_belong_to_that_label():
    model, _ = model_of("nade", num_dims=4, classes=CLASSES)
    params = random_params(model, 4, CLASSES, scale=0.1)
    params["autoregressive"]["label_bias"] = jnp.asarray([[-30.0] * 4, [30.0] * 4])
    label = jnp.asarray([0, 1, 1, 0])
    draws = jax.jit(lambda params: model.sample(params, {}, jax.random.key(0), 4, label=label))(params)
    np.testing.assert_array_equal(draws, jnp.broadcast_to(label[:, None], (4, 4)))


def test_samples_have_the_levels_of_the_data_set():
    model, _ = model_of("made", num_dims=8, levels=17)
    params = random_params(model, 8, None)
    draws = jax.jit(lambda params: model.sample(params, {}, jax.random.key(0), 50))(params)
    assert draws.dtype == jnp.uint8
    assert set(np.unique(draws)) == {0, 16}


@pytest.mark.parametrize(("num_orders", "classes"), [(1, None), (3, CLASSES)])
def test_means_of_samples_are_the_conditional_probabilities_of_their_pixels(num_orders, classes):
    model, _ = model_of("made", num_dims=5, num_orders=num_orders, classes=classes, levels=17)
    params = random_params(model, 5, classes)
    drawn, means = (
        jax.jit(sample, static_argnums=3)(params, {}, jax.random.key(3), 4000)
        for sample in (model.sample, model.sample_mean)
    )
    assert means.shape == drawn.shape
    drawn, means = np.asarray(drawn) / 16.0, np.asarray(means) / 16.0
    assert 0.0 < means.min() < means.max() < 1.0
    # A pixel is a Bernoulli of its mean, given what was drawn before it: the difference has mean 0 in every bin.
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (means >= low) & (means < low + 0.25)
        assert chosen.sum() > 100
        assert abs((drawn - means)[chosen].mean()) < 4 * 0.5 / np.sqrt(chosen.sum()), low


def test_means_of_samples_need_binary_data():
    model, _ = model_of("made", num_dims=4)
    grey = dataclasses.replace(model, likelihood=autoregressive_networks.categorical(levels=3))
    with pytest.raises(ValueError, match="needs binary data, not 3 levels"):
        grey.sample_mean({}, {}, jax.random.key(0), 2)


# Completions.


@each_network
@pytest.mark.parametrize("num_kept", [0, 3, 6])
def test_a_completion_keeps_the_first_dimensions_of_the_ordering(name, num_kept):
    model, orders = model_of(name, num_dims=6)
    params, x = random_params(model, 6, None, scale=0.1), all_images(6)
    completed = jax.jit(model.complete, static_argnums=3)(params, jax.random.key(0), x, num_kept)
    kept, drawn = orders[0, :num_kept], orders[0, num_kept:]
    np.testing.assert_array_equal(completed[:, kept], x[:, kept])
    assert np.all(np.any(np.asarray(completed != x), axis=0)[drawn])


@each_network
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_completions_have_the_conditional_probabilities(name, classes):
    # With labels p(x_2 x_3 | x_0 x_1) is a mixture by p(y | x_0 x_1), and a label drawn uniformly would miss it.
    model, _ = model_of(name, num_dims=4, classes=classes, natural=True)
    params, count = random_params(model, 4, classes, scale=2.0), 50_000
    x = jnp.broadcast_to(jnp.asarray([1, 0, 1, 1], jnp.uint8), (count, 4))
    completed = jax.jit(model.complete, static_argnums=3)(params, jax.random.key(0), x, 2)
    ends = all_images(2)
    p = special.softmax(np.asarray(log_prob(model, params, jnp.concatenate([x[:4, :2], ends], axis=1)), np.float64))
    observed = np.bincount(np.asarray(completed, np.int64)[:, 2:] @ [2, 1], minlength=4)
    assert stats.chisquare(observed, count * p).pvalue > 1e-3


class Doubled(FVSBN):
    """Two outputs for each dimension."""

    def __call__(self, x, structure, label=None):
        return jnp.concatenate([super().__call__(x, structure, label)] * 2, axis=1)


def test_a_network_or_data_of_another_shape_are_refused_at_init():
    model, orders = model_of("fvsbn", num_dims=4)
    doubled = autoregressive_networks.masked_network(Doubled(4), orders, orders)
    with pytest.raises(UserError, match=r"the network must return \[1, 4\] for one example, and returns \[1, 8\]"):
        dataclasses.replace(model, network=doubled).model.init(jax.random.key(0), {"x": jnp.zeros((2, 4), jnp.uint8)})
    with pytest.raises(UserError, match=r"examples of shape \[4\], and the data have \[5\]"):
        model.model.init(jax.random.key(0), {"x": jnp.zeros((2, 5), jnp.uint8)})


def test_outputs_that_do_not_fit_the_likelihood_are_refused():
    model, _ = model_of("fvsbn", num_dims=4)
    x, params = jnp.zeros((2, 4), jnp.uint8), random_params(model, 4, None)
    for likelihood, message in (
        (autoregressive_networks.categorical(levels=5), r"must return \[2, 4, 5\] for 2 examples, .* \[2, 4, 1\]"),
        (autoregressive_networks.discretized_logistic_mixture(levels=5), "needs 3 M outputs per dimension, and has 1"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(model, likelihood=likelihood).log_prob(params, {}, jax.random.key(0), x)
