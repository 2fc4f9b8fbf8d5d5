"""Pairs of least cost: the assignment is SciPy's, its marginals stay, and its straight lines are shorter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gm_jax.models import flow, path_objectives, path_sampling, score
from gm_jax.models.optimal_transport import OptimalTransportFlow, optimal_pairs
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.samplers import ode, time_grids
from tests.gaussian_mixture import PATHS


def costs(x_0, eps):
    return ((x_0[:, None] - eps[None]) ** 2).reshape(len(x_0), len(eps), -1).sum(-1)


@pytest.mark.parametrize(("count", "shape"), [(1, (2,)), (2, (3,)), (7, (2,)), (32, (4, 4, 1))])
def test_the_pairs_have_the_least_cost_and_all_noises(count, shape):
    x_0, eps = (np.asarray(jax.random.normal(jax.random.key(i), (count, *shape))) for i in (1, 2))
    found = np.asarray(optimal_pairs(jnp.asarray(x_0), jnp.asarray(eps)))
    matrix = costs(x_0, eps)
    rows, columns = linear_sum_assignment(matrix)
    np.testing.assert_array_equal(found, eps[columns])
    np.testing.assert_allclose(((x_0 - found) ** 2).sum(), matrix[rows, columns].sum(), rtol=1e-5)


def test_no_other_order_of_four_noises_costs_less():
    x_0, eps = (np.asarray(jax.random.normal(jax.random.key(i), (4, 2))) for i in (3, 4))
    found = np.asarray(optimal_pairs(jnp.asarray(x_0), jnp.asarray(eps)))
    least = min(((x_0 - eps[list(order)]) ** 2).sum() for order in itertools.permutations(range(4)))
    np.testing.assert_allclose(((x_0 - found) ** 2).sum(), least, rtol=1e-6)
    assert ((x_0 - eps) ** 2).sum() > least * 1.01


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        optimal_pairs(jnp.zeros((3, 2)), jnp.zeros((2, 2)))


def family():
    def draw(key, predict_fn, path, x_T):
        return ode.heun(predict_fn, path, x_T, time_grids.uniform(path, 20))

    inner = score.ScoreModel(
        network=DiffusionMLP(features=16, blocks=1),
        space=flow.no_dequantization(),
        path=PATHS["linear"],
        shape=(2,),
        parameterization=path_objectives.velocity_prediction(),
        times_fn=path_objectives.uniform_times,
        sampler=path_sampling.PathSampler(draw),
        sigma_data=1.0,
        likelihood=score.ODELikelihood(),
    )
    return OptimalTransportFlow(flow=inner)


def test_the_loss_is_that_of_the_flow_on_these_pairs():
    model = family()
    x = jax.random.normal(jax.random.key(5), (16, 2))
    params, state = model.init(jax.random.key(6), {"x": x})
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(7), a.shape), params)
    found, (_, metrics) = model.loss(params, state, jax.random.key(8), {"x": x})
    _, time_key, noise_key, dropout_key = jax.random.split(jax.random.key(8), 4)
    eps = jax.random.normal(noise_key, x.shape)
    _, columns = linear_sum_assignment(costs(np.asarray(x), np.asarray(eps)))
    t = model.flow.times_fn(model.flow.path, path_objectives.spread(time_key, 16))
    expected = model.flow.loss_of_pairs(params, dropout_key, x, eps[columns], t)
    independent = model.flow.loss_of_pairs(params, dropout_key, x, eps, t)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(float(found - independent)) > 1e-2
    np.testing.assert_allclose(metrics["pair_distance"], np.mean((x - eps[columns]) ** 2), rtol=1e-6)


def test_samples_and_densities_are_those_of_the_flow():
    model = family()
    x = jax.random.normal(jax.random.key(9), (5, 2))
    params, state = model.init(jax.random.key(10), {"x": x})
    key = jax.random.key(11)
    np.testing.assert_array_equal(model.sample(params, state, key, 3), model.flow.sample(params, state, key, 3))
    found, expected = model.log_prob(params, state, key, x), model.flow.log_prob(params, state, key, x)
    assert (found.kind, found.measure) == (expected.kind, expected.measure) == ("exact", "continuous")
    np.testing.assert_array_equal(found.log_prob, expected.log_prob)
