import math
import traceback
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.losses import flow as losses
from gm_jax.models import flow
from gm_jax.networks.autoregressive_flow import AutoregressiveFlow
from gm_jax.networks.glow import Glow
from gm_jax.networks.nice import NICE
from gm_jax.networks.realnvp import ImageRealNVP, RealNVP
from gm_jax.networks.spline_flow import SplineFlow
from gm_jax.training import parallel, state, step


def flow_of(network, prior=None, *, levels=None, alpha=None):
    return flow.Flow(
        network=network,
        prior=prior or flow.standard_normal(),
        dequantization=flow.no_dequantization()
        if levels is None
        else flow.uniform_dequantization(levels=levels, alpha=alpha),
    )


PLANE = {
    "nice": flow_of(NICE((2,), (8,))),
    "nice[logistic]": flow_of(NICE((2,), (8,)), flow.standard_logistic()),
    "realnvp": flow_of(RealNVP((2,), (8,), 3)),
    "spline_flow": flow_of(SplineFlow((2,), (8,), 2, 5)),
    "maf": flow_of(AutoregressiveFlow((2,), (8,), 2)),
    "iaf": flow_of(AutoregressiveFlow((2,), (8,), 2, inverted=True)),
}
TWO_SCALES = {
    "realnvp": ImageRealNVP((4, 4, 1), scales=2, features=4, blocks=1),
    "glow": Glow((4, 4, 1), scales=2, steps=2, features=4),
}
each_of_the_plane = pytest.mark.parametrize("model", PLANE.values(), ids=PLANE.keys())


class Identity(NamedTuple):
    """The identity as a network."""

    event_shape: tuple[int, ...] = (4, 4, 1)

    def init_with_output(self, key, x, method):
        return self.apply({}, x, method), {"params": {}}

    def apply(self, variables, x, method):
        return x.reshape(x.shape[0], -1), jnp.zeros(x.shape[0], x.dtype)


def uniform(low, high):
    """The uniform density; its logarithm is -inf outside the interval."""
    return flow.Prior(
        sample=lambda key, shape: jax.random.uniform(key, shape, minval=low, maxval=high),
        log_prob=lambda z: jnp.sum(jnp.where((z >= low) & (z <= high), -math.log(high - low), -jnp.inf), axis=1),
    )


def random_variables(model, x, scale=0.3):
    """(params, model_state) of the right shapes, all non-zero, without compiling init."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "permutation":
            return rng.permuted(np.broadcast_to(np.arange(leaf.shape[-1], dtype=np.int32), leaf.shape), axis=-1)
        if path[-1].key == "sign":
            return jnp.asarray(rng.choice([-1.0, 1.0], leaf.shape), leaf.dtype)
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.model.init, jax.random.key(0), {"x": x}))


def images(num=6, shape=(4, 4, 1), levels=17):
    return jnp.asarray(np.random.default_rng(3).integers(0, levels, (num, *shape)), jnp.uint8)


def of_images(alpha=None):
    network = NICE((4, 4, 1), (8,))
    return flow_of(network, flow.standard_logistic(), levels=17, alpha=alpha)


@each_of_the_plane
def test_densities_of_the_plane_integrate_to_one(model):
    params, model_state = random_variables(model, jnp.ones((4, 2)))
    middles = (np.arange(600) + 0.5) / 10 - 30
    grid = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2).astype(np.float32)
    log_prob = jax.jit(model.model.log_prob)(params, model_state, jax.random.key(0), grid)
    assert log_prob.kind == "exact"
    np.testing.assert_allclose(np.exp(np.asarray(log_prob.log_prob, np.float64)).sum() / 100, 1.0, atol=1e-3)


@each_of_the_plane
def test_the_density_of_a_sample_equals_the_one_from_the_inverse_pass(model):
    params, model_state = random_variables(model, jnp.ones((4, 2)))
    x, log_prob = jax.jit(model.sample_with_log_density, static_argnums=3)(params, model_state, jax.random.key(2), 200)
    np.testing.assert_allclose(jax.jit(model.log_density)(params, model_state, x), log_prob, rtol=1e-4, atol=1e-4)
    assert np.ptp(log_prob) > 1.0
    same = jax.jit(model.model.sample, static_argnums=3)(params, model_state, jax.random.key(2), 200)
    np.testing.assert_allclose(same, x, rtol=1e-6)


@pytest.mark.parametrize("network", TWO_SCALES.values(), ids=TWO_SCALES.keys())
def test_the_density_of_a_sample_of_two_scales_equals_it_in_float64(x64, network):
    model = flow_of(network)
    params, model_state = random_variables(model, jnp.ones((4, 4, 4, 1)), scale=0.1)

    @jax.jit
    def both(key):
        h, log_prob = model.sample_with_log_density(params, model_state, key, 20)
        return h, log_prob, model.log_density(params, model_state, h)

    h, log_prob, log_density = both(jax.random.key(2))
    assert (h.shape, h.dtype) == ((20, 4, 4, 1), jnp.float64)
    np.testing.assert_allclose(log_density, log_prob, rtol=0, atol=1e-8)
    # The inverse has a log-determinant, and it differs between samples.
    prior = np.sum(-0.5 * (math.log(2 * math.pi) + np.square(jax.random.normal(jax.random.key(2), (20, 16)))), axis=1)
    assert np.ptp(log_prob - prior) > 1e-3


def test_encoded_samples_have_the_moments_of_the_prior():
    model = PLANE["nice[logistic]"]
    params, model_state = random_variables(model, jnp.ones((4, 2)))
    x = jax.jit(model.model.sample, static_argnums=3)(params, model_state, jax.random.key(2), 20_000)
    z = np.asarray(jax.jit(model.encode)(params, model_state, jax.random.key(0), x))
    # The prior is a standard logistic; a normal prior would have variance 1.
    np.testing.assert_allclose(z.mean(axis=0), np.zeros(2), atol=3 * 1.81 / 20_000**0.5)
    np.testing.assert_allclose(z.var(axis=0), np.full(2, math.pi**2 / 3), rtol=0.05)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_uniform_data_have_log2_of_the_levels_bits_for_each_dimension(levels):
    model = flow_of(Identity(), uniform(-0.5, 0.5), levels=levels)
    x = images(8, levels=levels)
    log_prob = jax.jit(model.model.log_prob)({"flow": {}}, {}, jax.random.key(0), x)
    np.testing.assert_allclose(-log_prob.log_prob / (16 * math.log(2)), np.full(8, math.log2(levels)), rtol=1e-6)
    assert log_prob.kind == "lower_bound"
    assert log_prob.settings == (("dequantization", "uniform"),)


def test_the_log_determinant_of_the_logit_is_counted():
    """The logistic prior of a logit that reaches 0 and 1 is the uniform density of the levels."""
    model = flow_of(Identity(), flow.standard_logistic(), levels=17, alpha=1e-7)
    log_prob = jax.jit(model.model.log_prob)({"flow": {}}, {}, jax.random.key(0), images(8))
    np.testing.assert_allclose(-log_prob.log_prob / (16 * math.log(2)), np.full(8, math.log2(17)), rtol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.05])
def test_probabilities_of_all_levels_sum_to_the_mass_on_them(alpha):
    """The mean of exp(log_prob) over the noise is the probability of a level."""
    model = flow_of(NICE((2,), (6,)), levels=3, alpha=alpha)
    every = jnp.asarray(np.indices((3, 3)).reshape(2, -1).T, jnp.uint8)
    params, model_state = random_variables(model, every, scale=0.2)
    # The flow puts the rest of its mass outside the levels.
    keys = jax.random.split(jax.random.key(1), 4000)
    log_prob = jax.jit(jax.vmap(model.model.log_prob, in_axes=(None, None, 0, None)))(params, model_state, keys, every)
    x = jax.jit(model.sample_with_log_density, static_argnums=3)(params, model_state, jax.random.key(2), 100_000)[0]
    edge = 0.5 if alpha is None else math.log((1 - alpha) / alpha)
    share = np.mean(np.all(np.abs(x) < edge, axis=1))
    np.testing.assert_allclose(np.exp(log_prob.log_prob).mean(axis=0).sum(), share, atol=0.01)


@pytest.mark.parametrize("alpha", [None, 0.05])
def test_decode_inverts_encode(alpha):
    model, x = of_images(alpha), images()
    params, model_state = random_variables(model, x, scale=0.2)
    z = jax.jit(model.encode)(params, model_state, jax.random.key(0), x)
    assert z.shape == (6, 16)
    back = jax.jit(model.decode)(params, model_state, z)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, x)


def test_the_temperature_scales_the_latent():
    model = PLANE["realnvp"]
    params, model_state = random_variables(model, jnp.ones((4, 2)))
    key = jax.random.key(3)
    for temperature in (0.0, 0.5, 1.0):
        found = model.sample(params, model_state, key, 5, temperature=temperature)
        latent = temperature * jax.random.normal(key, (5, 2))
        np.testing.assert_allclose(found, model.decode(params, model_state, latent), rtol=1e-6)


def test_a_label_is_refused():
    model = PLANE["realnvp"]
    with pytest.raises(UserError, match="no labels"):
        model.sample({}, {}, jax.random.key(0), 2, label=jnp.zeros(2, jnp.int32))


def test_init_standardises_the_first_batch_and_later_batches_do_not():
    model = flow_of(SplineFlow((2,), (8,), 1, 5))
    first, second = (jax.random.normal(jax.random.key(k), (64, 2)) * 3.0 + 10.0 * k for k in (1, 2))
    adam, strategy = {"flow": optax.adam(1e-3)}, parallel.jit()
    fresh = state.create(model.model, adam, jax.random.key(0), {"x": first})
    z = jax.jit(model.encode)(fresh.params, fresh.model_state, jax.random.key(0), first)
    np.testing.assert_allclose(np.mean(z, axis=0), np.zeros(2), atol=1e-5)
    np.testing.assert_allclose(np.var(z, axis=0), np.ones(2), rtol=1e-4)

    def shift(params):
        return np.asarray(params["flow"]["layers"]["layer"]["layers_0"]["shift"])

    before = shift(fresh.params)
    train = strategy.compile(step.make_train_step(model.model, adam, seed=0))
    after, _ = train(strategy.place(fresh), strategy.place_batches({"x": second[None]}))
    # One step of Adam moves the shift by the learning rate; the statistics of the second batch would move it further.
    np.testing.assert_allclose(np.abs(shift(after.params) - before), np.full((1, 2), 1e-3), rtol=1e-2)


def test_the_loss_is_the_mean_of_the_change_of_variables():
    model = PLANE["spline_flow"]
    x = jax.random.normal(jax.random.key(0), (16, 2))
    params, model_state = random_variables(model, x)
    loss, (_, metrics) = jax.jit(model.model.objectives[0].loss)(params, model_state, jax.random.key(1), {"x": x})
    network = SplineFlow((2,), (8,), 2, 5)
    z, log_det = network.apply({"params": params["flow"], **model_state}, x, method="forward")
    by_hand = losses.change_of_variables_nll(losses.standard_normal_log_prob(z), log_det)
    np.testing.assert_allclose(loss, by_hand.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["log_det"], log_det.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["nll"], loss, rtol=1e-6)


def test_a_shape_error_names_the_method_of_the_family():
    model = of_images()
    params, model_state = random_variables(model, images(), scale=0.2)
    with pytest.raises(UserError, match=r"shape \[4, 4, 1\], and the data have \[3, 3, 1\]") as error:
        model.model.objectives[0].loss(params, model_state, jax.random.key(0), {"x": images(shape=(3, 3, 1))})
    names = [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(error.value.__traceback__)]
    assert "Flow.loss" in names
    assert not [name for name in names if name.startswith("flow.<locals>")]


@pytest.mark.slow
@pytest.mark.parametrize("network", TWO_SCALES.values(), ids=TWO_SCALES.keys())
def test_two_scales_train_and_move_every_parameter(network):
    """The contract tests one scale, because two take several times as long to compile."""
    model = flow_of(network, levels=17, alpha=0.05).model
    adam, x, strategy = {"flow": optax.adam(3e-3)}, np.asarray(images(8)), parallel.jit()
    fresh = state.create(model, adam, jax.random.key(0), {"x": x})
    train = strategy.compile(step.make_train_step(model, adam, seed=0))
    after, history = strategy.place(fresh), []
    for _ in range(100):
        after, metrics = train(after, strategy.place_batches({"x": x[None]}))
        history.append(float(metrics["loss"][0]))
    assert np.mean(history[-20:]) < np.mean(history[:20]) - 1.0
    for (path, old), new in zip(jax.tree.leaves_with_path(fresh.params), jax.tree.leaves(after.params), strict=True):
        assert np.any(old != new), path


class Broken(Identity):
    """The identity, but for what one pass returns."""

    def apply(self, variables, x, method):
        return {"forward": (x, jnp.zeros(len(x))), "inverse": (x, jnp.zeros(len(x)))}[method]


def test_a_flow_that_does_not_flatten_or_unflatten_is_refused():
    model = flow_of(Broken())
    with pytest.raises(UserError, match=r"forward, must return \[5, 16\] and \[5\] .* returns \[5, 4, 4, 1\] and"):
        jax.eval_shape(model.model.init, jax.random.key(0), {"x": jnp.zeros((5, 4, 4, 1))})
    with pytest.raises(UserError, match=r"inverse, must return \[3, 4, 4, 1\] and \[3\] .* returns \[3, 16\] and"):
        model.model.sample({"flow": {}}, {}, jax.random.key(0), 3)
    with pytest.raises(UserError, match=r"shape \[4, 4, 1\], and the data have \[4, 4\]"):
        jax.eval_shape(model.model.init, jax.random.key(0), {"x": jnp.zeros((5, 4, 4))})
