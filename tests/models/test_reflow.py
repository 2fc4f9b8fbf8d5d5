"""Reflow of normal data: the second flow is straight, and its pairs are those of the first one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import flow, path_objectives, path_sampling, reflow, score
from gm_jax.samplers import ode, time_grids
from tests.gaussian_mixture import PATHS

C, PATH = 0.5, PATHS["linear"]


class Straight(nn.Module):
    """The velocity of N(0, C^2) and, times `switch`, its difference from the straight flow."""

    @nn.compact
    def __call__(self, x, t, label=None, *, train=False):
        switch = self.param("switch", nn.initializers.zeros, ())
        t = jax.nn.sigmoid(t / 25.0)
        std = jnp.sqrt((1 - t) ** 2 * C**2 + t**2)
        curved = (t - (1 - t) * C**2) / std**2
        straight = (1 - C) / ((1 - t) * C + t)
        return x * (std * (curved + switch * (straight - curved)))[:, None]


def family():
    def draw(key, predict_fn, path, x_T):
        return ode.heun(predict_fn, path, x_T, time_grids.uniform(path, 40))

    model = score.ScoreModel(
        network=Straight(),
        space=flow.no_dequantization(),
        path=PATH,
        shape=(2,),
        parameterization=path_objectives.velocity_prediction(),
        times_fn=path_objectives.uniform_times,
        sampler=path_sampling.PathSampler(draw),
        sigma_data=C,
        likelihood=score.ODELikelihood(),
    )
    return reflow.Reflow(flow=model, teacher=model, first_steps=10)


POINTS = C * jax.random.normal(jax.random.key(0), (200, 2))


def params_of(switch):
    return {"score": {"switch": jnp.zeros(())}, "reflow": {"switch": jnp.asarray(switch)}}


def test_the_second_flow_starts_as_the_first_one():
    model = family()
    params, state = model.init(jax.random.key(1), {"x": POINTS})
    assert params == params_of(0.0)
    found, expected = (
        model.log_prob(params, state, jax.random.key(2), POINTS[:5]),
        model.flow.log_prob(params, state, jax.random.key(2), POINTS[:5]),
    )
    np.testing.assert_array_equal(found.log_prob, expected.log_prob)
    np.testing.assert_array_equal(
        model.sample(params, state, jax.random.key(3), 4), model.flow.sample(params, state, jax.random.key(3), 4)
    )


def test_straight_lines_between_the_ends_of_the_first_flow_have_no_loss():
    model = family()
    straight, curved = (float(model.loss(params_of(s), {}, jax.random.key(2), {"x": POINTS})[0]) for s in (1.0, 0.0))
    # The first flow stops at t_min = 0.001, and its steps have an error.
    assert 0.0 <= straight < 1e-4
    assert curved > 100 * straight
    # On independent pairs the straight flow is not the best one: its loss is the first flow's and more.
    independent = [
        float(model.flow.loss(model.second(params_of(s)), {}, jax.random.key(4), {"x": POINTS})[0]) for s in (1.0, 0.0)
    ]
    assert independent[0] > independent[1] > 0.1


def test_the_second_stage_trains_the_second_flow_alone():
    model = family()
    gradient = jax.grad(lambda p: model.loss(p, {}, jax.random.key(2), {"x": POINTS})[0])(params_of(0.0))
    assert float(gradient["score"]["switch"]) == 0.0
    assert float(gradient["reflow"]["switch"]) < -1e-3
    first, second = model.model.objectives
    assert (first.wrt, second.wrt) == ("score", "reflow")
    assert [bool(one.turns.is_active(10)) for one in (first, second)] == [False, True]
