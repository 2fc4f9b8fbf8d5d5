"""Solvers of the probability-flow ODE: their orders, on a mixture whose flow keeps the distribution function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.samplers import dpm_solver, ode, sde, time_grids
from tests.gaussian_mixture import PATHS, Mixture

each_path = pytest.mark.parametrize("name", PATHS)
MIXTURE = Mixture([[-1.0], [0.6]], [0.4, 0.6], 0.3)
QUANTILES = np.array([-1.6, -0.7, -0.1, 0.3, 0.9, 1.7])


def start_of(path):
    """x_T [B, 1] at quantiles of the path's last marginal."""
    last = jnp.asarray(path.range[1])
    return float(path.noise(last)) * QUANTILES


SOLVERS = {"euler": (ode.euler, 1.0), "heun": (ode.heun, 2.0), "dpm_solver_2m": (dpm_solver.dpm_solver_2m, 2.0)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_global_order_is_that_of_the_method(solver, x64):
    solve, order = SOLVERS[solver]
    path = PATHS["edm"]._replace(range=(0.05, 20.0))
    x_T = start_of(path)
    exact = MIXTURE.carry(path, x_T, 20.0, 0.05)
    run = jax.jit(lambda x, times: solve(MIXTURE.predict_fn(path), path, x, times))
    errors = []
    for num_steps in (160, 320, 640):
        found = run(jnp.asarray(x_T)[:, None], time_grids.karras(path, num_steps + 1))[:, 0]
        errors.append(np.sqrt(np.mean((found - exact) ** 2)))
    orders = -np.diff(np.log2(errors))
    np.testing.assert_allclose(orders, np.full(2, order), atol=0.1)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_local_order_is_one_more(solver, x64):
    solve, order = SOLVERS[solver]
    path, t = PATHS["edm"], 1.0
    x = jnp.asarray(QUANTILES)[:, None]
    errors = []
    for step in (0.02, 0.01, 0.005):
        exact = MIXTURE.carry(path, x[:, 0], t, t - step)
        found = solve(MIXTURE.predict_fn(path), path, x, jnp.array([t, t - step]))[:, 0]
        errors.append(np.sqrt(np.mean((found - exact) ** 2)))
    np.testing.assert_allclose(-np.diff(np.log2(errors)), np.full(2, order + 1), atol=0.15)


@each_path
def test_every_solver_ends_where_the_flow_does_on_every_path(name, x64):
    path = PATHS[name]
    (first, last), x_T = path.range, start_of(path)
    exact = MIXTURE.carry(path, x_T, last, first)
    predict_fn, x = MIXTURE.predict_fn(path), jnp.asarray(x_T)[:, None]
    times = time_grids.uniform_log_snr(path, 401)
    for solve, tolerance in ((ode.euler, 0.1), (ode.heun, 1e-3), (dpm_solver.dpm_solver_2m, 1e-3)):
        found = jax.jit(solve, static_argnums=(0, 1))(predict_fn, path, x, times)[:, 0]
        np.testing.assert_allclose(found, exact, atol=tolerance)
    np.testing.assert_allclose(jax.jit(adaptive, static_argnums=0)(path, x, times)[:, 0], exact, atol=1e-6)


def adaptive(path, x, times, tolerance=1e-8):
    """Adaptive steps of its own for each example."""

    def one(x):
        predict_fn = MIXTURE.predict_fn(path)
        return ode.adaptive(predict_fn, path, x[None], times, rtol=tolerance, atol=tolerance)[0]

    return jax.vmap(one)(x)


def test_an_adaptive_sample_does_not_depend_on_its_neighbours(x64):
    path = PATHS["edm"]
    x = jnp.asarray(80.0 * QUANTILES[:, None])
    together = adaptive(path, x, jnp.array(path.range[::-1]), tolerance=1e-5)
    alone = [adaptive(path, x[i : i + 1], jnp.array(path.range[::-1]), tolerance=1e-5)[0] for i in (0, 3)]
    np.testing.assert_allclose(together[np.array([0, 3])], jnp.stack(alone), rtol=1e-9)


def test_without_churn_the_steps_are_those_of_heun():
    path, x = PATHS["edm"], jnp.asarray(start_of(PATHS["edm"]), jnp.float32)[:, None]
    predict_fn, times = MIXTURE.predict_fn(path), time_grids.karras(path, 18)
    plain = ode.heun(predict_fn, path, x, times)
    churned = ode.heun_with_churn(jax.random.key(0), predict_fn, path, x, times, churn=0.0)
    np.testing.assert_allclose(churned, plain, rtol=1e-4, atol=1e-4)
    beyond = ode.heun_with_churn(jax.random.key(0), predict_fn, path, x, times, churn=40.0, churn_range=(100.0, 200.0))
    np.testing.assert_allclose(beyond, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["edm", "vp"])
def test_churn_keeps_the_distribution(name):
    path, count = PATHS[name], 20_000
    normal = Mixture([[0.0]], [1.0], 0.5)
    scale = np.sqrt(0.25 * float(path.signal(jnp.asarray(path.range[1]))) ** 2 + float(path.noise(path.range[1])) ** 2)
    x = scale * jax.random.normal(jax.random.key(1), (count, 1))
    run = jax.jit(
        lambda key, x: ode.heun_with_churn(
            key, normal.predict_fn(path), path, x, time_grids.karras(path, 120), churn=12.0
        )
    )
    found = run(jax.random.key(2, impl="rbg"), x)
    assert abs(float(jnp.std(found)) - 0.5) < 4 * 0.5 / np.sqrt(2 * count) + 0.002
    still = jax.jit(lambda x: ode.heun(normal.predict_fn(path), path, x, time_grids.karras(path, 120)))(x)
    assert abs(np.corrcoef(found[:, 0], still[:, 0])[0, 1]) < 0.9


def test_each_solver_calls_the_network_as_often_as_it_says():
    path, x, times = PATHS["edm"], jnp.ones((2, 1)), time_grids.karras(PATHS["edm"], 18)
    key, calls = jax.random.key(0), []
    exact = MIXTURE.predict_fn(path)

    def predict_fn(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact(x, t)

    runs = (
        (17, lambda: ode.euler(predict_fn, path, x, times)),
        (34, lambda: ode.heun(predict_fn, path, x, times)),
        (17, lambda: dpm_solver.dpm_solver_2m(predict_fn, path, x, times)),
        (17, lambda: sde.euler_maruyama(key, predict_fn, path, x, times)),
        (17, lambda: sde.ancestral(key, predict_fn, path, x, times)),
        (51, lambda: sde.predictor_corrector(key, predict_fn, path, x, times, corrector_steps=2)),
        (90, lambda: sde.annealed_langevin(key, predict_fn, path, x, times, steps_per_time=5)),
        (1, lambda: ode.denoise(predict_fn, x, times[-1])),
    )
    for count, run in runs:
        calls.clear()
        jax.block_until_ready(jax.jit(run)())
        jax.effects_barrier()
        assert len(calls) == count


def test_a_program_does_not_grow_with_its_steps():
    path, x = PATHS["vp"], jnp.ones((2, 1))

    def lines(solve, num_times):
        times = time_grids.uniform(path, num_times)
        return len(str(jax.make_jaxpr(lambda x: solve(MIXTURE.predict_fn(path), path, x, times))(x)).splitlines())

    for solve in (ode.euler, ode.heun, dpm_solver.dpm_solver_2m):
        assert lines(solve, 40) == lines(solve, 10)


def test_settings_out_of_range_are_refused():
    path, x = PATHS["edm"], jnp.ones((2, 1))
    with pytest.raises(ValueError, match="tolerances"):
        ode.adaptive(MIXTURE.predict_fn(path), path, x, jnp.array([80.0, 0.002]), rtol=0.0)
    with pytest.raises(ValueError, match="churn"):
        ode.heun_with_churn(
            jax.random.key(0), MIXTURE.predict_fn(path), path, x, time_grids.karras(path, 4), churn=-1.0
        )
