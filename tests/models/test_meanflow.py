"""MeanFlow with a network that knows the mean velocity of normal data: one step is the whole flow."""

import dataclasses

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


def test_the_exact_network_has_no_mean_gradient_between_two_times():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, *args, **settings):
            return self.param("scale", nn.initializers.ones, ()) * Exact()(*args, **settings)

    model = family(Scaled(), same_time=0.0, power=0.0)

    @jax.jit
    @jax.grad
    def slope(scale, key):
        x = C * jax.random.normal(jax.random.fold_in(key, 1), (4000, 2))
        return model.loss({"score": {"scale": scale}}, {}, key, {"x": x})[0]

    for scale, sign in ((0.8, -1), (1.0, 0), (1.2, 1)):
        found = np.array([slope(jnp.float32(scale), key) for key in jax.random.split(jax.random.key(6), 30)])
        error = found.std() / np.sqrt(30)
        assert np.sign(round(found.mean() / (4 * error))) == sign, (scale, found.mean(), error)


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
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), params)
    one, other, none = (
        with_labels.sample(params, state, jax.random.key(0), 2, label=label)
        for label in (jnp.array([0, 0]), jnp.array([2, 2]), None)
    )
    assert np.isfinite(one).all()
    assert dataclasses.replace(with_labels, num_steps=2).sample(params, state, jax.random.key(0), 2).shape == (2, 2)
    assert one.shape == other.shape == none.shape == (2, 2)
    for first, second in ((one, other), (one, none), (other, none)):
        assert (first != second).any()
