"""MeanFlow with a network that knows the mean velocity of normal data: one step is the whole flow."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.errors import UserError
from gm_jax.models import flow, meanflow, path_objectives, path_sampling, score
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.networks.two_times import TwoTimes
from gm_jax.samplers import ode, time_grids
from tests.gaussian_mixture import PATHS

C, PATH = 0.5, PATHS["linear"]
FIRST, LAST = PATH.range


def std(t):
    return jnp.sqrt((1 - t) ** 2 * C**2 + t**2)


class Exact(nn.Module):
    """The mean velocity of N(0, C^2), from the model's own inputs."""

    def __call__(self, x, t, label=None, *, earlier=None, train=False):
        t, r = (FIRST + (LAST - FIRST) * level / 10.0 for level in (t, t if earlier is None else earlier))
        is_same = t - r < 1e-6
        at_t = (t - (1 - t) * C**2) / std(t)
        between = (std(t) - std(r)) / jnp.where(is_same, 1.0, t - r)
        return x * jnp.where(is_same, at_t, between)[:, None]


def family(network=None, *, num_classes=None, **settings):
    def draw(key, predict_fn, path, x_T):
        return ode.heun(predict_fn, path, x_T, time_grids.uniform(path, 40))

    inner = score.ScoreModel(
        network=network or TwoTimes(DiffusionMLP(8, 1, num_classes=None if num_classes is None else num_classes + 1)),
        space=flow.no_dequantization(),
        path=PATH,
        shape=(2,),
        parameterization=path_objectives.velocity_prediction(),
        times_fn=path_objectives.uniform_times,
        sampler=path_sampling.PathSampler(draw),
        sigma_data=C,
        likelihood=score.ODELikelihood(),
        level_fn=path_objectives.uniform_level,
        num_classes=num_classes,
    )
    return meanflow.MeanFlow(flow=inner, **settings)


@pytest.mark.parametrize("count", [1, 3])
def test_a_step_is_the_whole_flow(count):
    model, key = family(Exact(), num_steps=count), jax.random.key(3)
    found = model.sample({"score": {}}, {}, key, 5)
    x_T = LAST * jax.random.normal(jax.random.split(key)[0], (5, 2))
    np.testing.assert_allclose(found, x_T * std(FIRST) / std(LAST), rtol=1e-4)
    # The flow itself, from the same noise in many steps, ends at the same place.
    np.testing.assert_allclose(found, model.flow.sample({"score": {}}, {}, key, 5), rtol=2e-3)


def test_the_likelihood_is_that_of_the_flow_between_equal_times():
    x = C * jax.random.normal(jax.random.key(0), (6, 2))
    found = jax.jit(family(Exact()).model.log_prob)({"score": {}}, {}, jax.random.key(1), x)
    expected = stats.norm.logpdf(x, scale=float(std(FIRST))).sum(axis=1)
    np.testing.assert_allclose(found.log_prob, expected, atol=1e-3)
    assert (found.kind, found.measure) == ("exact", "continuous")


def test_the_exact_network_has_the_least_loss():
    class Scaled(nn.Module):
        scale: float

        @nn.compact
        def __call__(self, *args, **settings):
            return self.scale * Exact()(*args, **settings)

    x = C * jax.random.normal(jax.random.key(0), (4000, 2))

    def loss(scale, same_time):
        model = family(Scaled(scale), same_time=same_time, power=0.0)
        value, (_, metrics) = jax.jit(model.loss)({"score": {}}, {}, jax.random.key(5), {"x": x})
        np.testing.assert_allclose(value, 2 * metrics["squared_error"], rtol=1e-5)
        return float(value)

    # The derivative of the target does not count, so the least loss is only least among equal times.
    assert loss(1.0, 0.999) < min(loss(0.9, 0.999), loss(1.1, 0.999))


@pytest.mark.parametrize("own_direction", [False, True])
def test_the_exact_network_has_no_mean_gradient_between_two_times(own_direction):
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, *args, **settings):
            return self.param("scale", nn.initializers.ones, ()) * Exact()(*args, **settings)

    model = family(Scaled(), same_time=0.0, power=0.0, own_direction=own_direction)

    @jax.jit
    @jax.grad
    def slope(scale, key):
        x = C * jax.random.normal(jax.random.fold_in(key, 1), (4000, 2))
        return model.loss({"score": {"scale": scale}}, {}, key, {"x": x})[0]

    for scale, sign in ((0.8, -1), (1.0, 0), (1.2, 1)):
        found = np.array([slope(jnp.float32(scale), key) for key in jax.random.split(jax.random.key(6), 30)])
        error = found.std() / np.sqrt(30)
        assert np.sign(round(found.mean() / (8 * error))) == sign, (scale, found.mean(), error)


def test_the_derivative_is_along_the_networks_own_velocity():
    """Of a network U = x (1 + r - t^2) in the model's inputs, with the derivative by hand."""

    class Inexact(nn.Module):
        def __call__(self, x, t, label=None, *, earlier=None, train=False):
            t, r = (FIRST + (LAST - FIRST) * level / 10.0 for level in (t, t if earlier is None else earlier))
            return x * (std(t) * (1 + r - t**2))[:, None]  # x is x_t / std(t)

    x, key = C * jax.random.normal(jax.random.key(0), (50, 2)), jax.random.key(1)
    model = family(Inexact(), same_time=0.0, power=0.0, own_direction=True)
    loss, _ = model.loss({"score": {}}, {}, key, {"x": x})
    _, time_key, other_key, _, noise_key, *_ = jax.random.split(key, 7)
    times = [path_objectives.spread(time_key, 50), jax.random.uniform(other_key, (50,))]
    times = [np.asarray(path_objectives.uniform_times(PATH, time), np.float64)[:, None] for time in times]
    r, t = np.minimum(*times), np.maximum(*times)
    eps = np.asarray(jax.random.normal(noise_key, x.shape), np.float64)
    x_t, u = (1 - t) * x + t * eps, eps - x
    own = x_t * (1 + t - t**2)
    slope = own * (1 + r - t**2) - 2 * t * x_t
    errors = x_t * (1 + r - t**2) - (u - (t - r) * slope)
    np.testing.assert_allclose(loss, np.mean(np.sum(np.square(errors), axis=1)), rtol=1e-4)
    along_pairs = dataclasses.replace(model, own_direction=False)
    assert abs(along_pairs.loss({"score": {}}, {}, key, {"x": x})[0] / loss - 1) > 0.01


def test_the_share_of_equal_times_is_what_the_network_sees():
    seen = []

    class Spy(nn.Module):
        def __call__(self, x, t, label=None, *, earlier=None, train=False):
            if earlier is not None:
                jax.debug.callback(lambda t, earlier: seen.append((t, earlier)), t, earlier)
            return x * 1.0

    model = family(Spy(), same_time=0.2)
    model.loss({"score": {}}, {}, jax.random.key(0), {"x": jnp.ones((2000, 2))})
    jax.effects_barrier()
    t, earlier = seen[0]
    assert (earlier <= t).all()
    assert abs(np.mean(t == earlier) - 0.2) < 4 * 0.4 / np.sqrt(2000)


def test_labels_belong_to_models_with_labels():
    plain, with_labels = family(), family(num_classes=3)
    batch = {"x": jnp.ones((6, 2)), "label": jnp.zeros(6, jnp.int32)}
    params, state = plain.model.init(jax.random.key(1), batch)
    for options in ({"label": jnp.zeros(2, jnp.int32)}, {"temperature": 0.5}):
        with pytest.raises(UserError):
            plain.sample(params, state, jax.random.key(0), 2, **options)
    params, state = with_labels.model.init(jax.random.key(1), batch)
    with pytest.raises(UserError):
        with_labels.loss(params, state, jax.random.key(0), {"x": batch["x"]})


# Three classes and "none", each normal with a mean of its own: the guided field is then normal with the guided mean.
MEANS = np.array([[-2.0, 1.0], [0.5, 0.5], [3.0, -1.0], [0.2, -0.4]])
LABELS = jnp.array([2, 0, 1, 0])


def guided_means(label, w):
    return np.where(np.asarray(label)[:, None] == 3, MEANS[3], (1 + w) * MEANS[label] - w * MEANS[3])


class ByClass(nn.Module):
    """The mean velocity of the guided field of a class; `shift` moves the means of the classes alone."""

    w: float

    @nn.compact
    def __call__(self, x, t, label, *, earlier=None, train=False):
        mean = jnp.asarray(guided_means(np.arange(4), self.w), jnp.float32)[label]
        mean = mean + jnp.where(label == 3, 0.0, self.param("shift", nn.initializers.zeros, ()))[:, None]
        time = FIRST + (LAST - FIRST) * t / 10.0
        # The network sees x_t over its standard deviation, x_t = (1 - t) mean + std z.
        z = x - ((1 - time) / std(time))[:, None] * mean
        return Exact()(z, t, earlier=earlier) - mean


@pytest.mark.parametrize("w", [0.0, 1.5])
def test_one_evaluation_ends_where_the_guided_flow_of_a_class_does(w):
    model, key, params = family(ByClass(w), num_classes=3, guidance=w), jax.random.key(3), {"score": {"shift": 0.0}}
    x_T = LAST * jax.random.normal(jax.random.split(key)[0], (4, 2))
    for label, mean in ((LABELS, guided_means(LABELS, w)), (None, MEANS[[3] * 4])):
        expected = (1 - FIRST) * mean + (x_T - (1 - LAST) * mean) * std(FIRST) / std(LAST)
        for num_steps in (1, 2):
            found = dataclasses.replace(model, num_steps=num_steps).sample(params, {}, key, 4, label=label)
            np.testing.assert_allclose(found, expected, atol=1e-3)
        np.testing.assert_allclose(model.flow.sample(params, {}, key, 4, label=label), expected, atol=2e-2)


def test_the_exact_guided_network_has_no_mean_gradient_and_that_of_another_guidance_has_one():
    label = jnp.tile(jnp.arange(3), 1000)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def slope(w_of_network, w, shift, key):
        model = family(ByClass(w_of_network), num_classes=3, guidance=w, same_time=0.3, power=0.0)
        x = jnp.asarray(MEANS, jnp.float32)[label] + C * jax.random.normal(jax.random.fold_in(key, 1), (3000, 2))

        def loss(shift):
            return model.loss({"score": {"shift": shift}}, {}, key, {"x": x, "label": label})[0]

        return jax.grad(loss)(shift)

    # The classes' means lie above that of none on average, so that more guidance shifts them up.
    cases = ((1.5, 1.5, 0.0, 0), (1.5, 1.5, 0.2, 1), (1.5, 1.5, -0.2, -1), (0.0, 1.5, 0.0, -1))
    for w_of_network, w, shift, sign in cases:
        keys = jax.random.split(jax.random.key(6), 20)
        found = np.array([slope(w_of_network, w, jnp.float32(shift), key) for key in keys])
        error = found.std() / np.sqrt(len(keys))
        assert np.sign(round(found.mean() / (8 * error))) == sign, (w_of_network, shift, found.mean(), error)


def test_guidance_of_zero_is_the_conditional_loss_bit_for_bit():
    model = family(num_classes=3)
    batch = {"x": C * jax.random.normal(jax.random.key(0), (6, 2)), "label": jnp.array([0, 1, 2, 0, 1, 2])}
    params, state = model.model.init(jax.random.key(1), batch)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    values = [
        float(dataclasses.replace(model, guidance=w).loss(params, state, jax.random.key(0), batch)[0])
        for w in (0.0, jnp.array(0.0), 0.5)
    ]
    assert values[0] == values[1] != values[2]


def test_examples_whose_labels_are_withheld_are_not_guided():
    batch = {"x": C * jax.random.normal(jax.random.key(0), (6, 2)), "label": jnp.zeros(6, jnp.int32)}
    model = family(num_classes=3, guidance=2.0)
    hidden = dataclasses.replace(model, flow=dataclasses.replace(model.flow, drop_label=1.0))
    params, state = model.model.init(jax.random.key(1), batch)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    one, other = (
        float(m.loss(params, state, jax.random.key(0), batch)[0])
        for m in (hidden, dataclasses.replace(hidden, guidance=0.0))
    )
    assert one == other


def test_classes_whose_parameters_are_swapped_swap_their_samples():
    model = family(num_classes=3)
    params, state = model.model.init(jax.random.key(1), {"x": jnp.ones((6, 2))})
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * noise.normal(size=leaf.shape).astype(np.float32), params)
    swapped = jax.tree.map(lambda leaf: leaf[np.array([2, 1, 0, 3])] if leaf.shape[0] == 4 else leaf, params)
    one, other = (model.sample(params, state, jax.random.key(0), 2, label=jnp.array(y)) for y in ([0, 2], [2, 0]))
    np.testing.assert_array_equal(model.sample(swapped, state, jax.random.key(0), 2, label=jnp.array([2, 0])), one)
    assert np.abs(one - other).max() > 1e-2
