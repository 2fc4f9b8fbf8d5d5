"""Langevin, MALA and HMC on energies whose distribution is known."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.samplers import langevin

N = 20_000


def quadratic(x):
    """Independent normals of variance 1 and 4."""
    return 0.5 * jnp.sum(jnp.square(x) / jnp.array([[1.0, 4.0]]), axis=1)


def run(step, num_steps, *, start=None, seed=0):
    """N chains after num_steps steps, from exact draws unless a start is given."""
    if start is None:
        start = jax.random.normal(jax.random.key(100), (N, 2)) * jnp.array([[1.0, 2.0]])

    def body(carry, key):
        x, accepted = step(key, carry)
        return x, jnp.mean(accepted)

    return jax.lax.scan(body, start, jax.random.split(jax.random.key(seed), num_steps))


def assert_variance(x, expected):
    """Two-sided, at four standard errors of a variance of N normals."""
    error = expected * np.sqrt(2 / N)
    assert abs(float(jnp.var(x)) - expected) < 4 * error


@pytest.mark.parametrize("step_size", [0.1, 0.8])
def test_unadjusted_langevin_has_the_variance_of_its_step(step_size):
    end = langevin.langevin(
        jax.random.key(0),
        jax.random.normal(jax.random.key(1), (N, 1)),
        lambda x: 0.5 * x[:, 0] ** 2,
        num_steps=200,
        step_size=step_size,
    )
    assert_variance(end, 1 / (1 - step_size / 4))
    assert abs(float(jnp.mean(end))) < 4 * np.sqrt(1.3 / N)


def test_step_and_noise_set_the_temperature():
    # x - s dE + n z with s = 0.05 and n = 0.1 is at T = n^2 / (2 s) = 0.1.
    start = jnp.sqrt(0.1) * jax.random.normal(jax.random.key(1), (N, 1))
    end = langevin.langevin(
        jax.random.key(0), start, lambda x: 0.5 * x[:, 0] ** 2, num_steps=100, step_size=0.1, temperature=0.1
    )
    assert_variance(end, 0.1 / (1 - 0.1 / 4))


def test_many_steps_are_single_steps_with_the_keys_of_their_numbers():
    x, key = jax.random.normal(jax.random.key(1), (5, 2)), jax.random.key(3)
    one = x
    for i in range(4):
        one = langevin.langevin_step(jax.random.fold_in(key, i), one, quadratic, step_size=0.3, temperature=0.5)
    many = langevin.langevin(key, x, quadratic, num_steps=4, step_size=0.3, temperature=0.5)
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)


STEP = {"step_size": 0.7}
KERNELS = {
    "mala": (langevin.mala, langevin.mala_step, STEP),
    "hmc": (langevin.hmc, langevin.hmc_step, {**STEP, "num_leapfrog": 3}),
}


@pytest.mark.parametrize("name", KERNELS)
def test_many_adjusted_steps_are_single_steps_and_count_what_is_accepted(name):
    many, single, settings = KERNELS[name]
    start, key = 3.0 * jax.random.normal(jax.random.key(1), (50, 2)), jax.random.key(3)
    one, accepted = start, []
    for i in range(6):
        one, now = single(jax.random.fold_in(key, i), one, quadratic, **settings)
        accepted.append(np.asarray(now))
    found, share = many(key, start, quadratic, num_steps=6, **settings)
    np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(share, np.mean(accepted, axis=0), atol=1e-6)
    # Energy drops alone are no acceptances: a proposal uphill is accepted by its ratio.
    assert 0.5 < float(jnp.mean(share)) < 1.0


@pytest.mark.parametrize("name", KERNELS)
def test_the_moments_are_those_of_blackjax(name):
    many, _, settings = KERNELS[name]

    def energy(x):  # a skewed target, of which neither mean nor variance is obvious
        return (x[:, 0] ** 2 - 1.0) ** 2 - 0.5 * x[:, 0] + 0.5 * (x[:, 1] - x[:, 0]) ** 2

    start = jax.random.normal(jax.random.key(1), (4_000, 2))
    settings = {**settings, "step_size": 0.3, "num_steps": 60}
    ours, _ = jax.jit(lambda x: many(jax.random.key(2), x, energy, **settings))(start)

    def log_density(x):
        return -energy(x[None])[0]

    # The peer's MALA is x + s grad + sqrt(2 s) z: its step is half of ours.
    theirs = {"mala": blackjax.mala(log_density, 0.15), "hmc": blackjax.hmc(log_density, 0.3, jnp.ones(2), 3)}[name]

    def chain(key, x):
        keys = jax.random.split(key, 60)
        return jax.lax.scan(lambda state, key: (theirs.step(key, state)[0], None), theirs.init(x), keys)[0].position

    peer = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(4), len(start)), start)
    for moment in (lambda x: x, lambda x: x**2, lambda x: x**3, lambda x: x[:, :1] * x[:, 1:]):
        one, other = (np.asarray(moment(x), np.float64) for x in (ours, peer))
        error = np.sqrt(one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
        assert np.all(np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4 * error)


def test_gradients_are_clipped():
    far = jnp.full((2_000, 1), 3.0)
    end = langevin.langevin(
        jax.random.key(0), far, lambda x: 1e6 * x[:, 0], num_steps=1, step_size=1e-8, clip_gradient=0.5
    )
    np.testing.assert_allclose(jnp.mean(end), 3.0, atol=1e-4)


@pytest.mark.parametrize("step_size", [0.2, 1.5])
def test_mala_has_no_bias_at_any_step(step_size):
    end, accepted = run(lambda key, x: langevin.mala_step(key, x, quadratic, step_size=step_size), 50)
    assert_variance(end[:, 0], 1.0)
    assert_variance(end[:, 1], 4.0)
    # Fewer are accepted with a larger step.
    assert (0.97 if step_size < 1 else 0.6) < float(jnp.mean(accepted)) < (1.0 if step_size < 1 else 0.95)


def test_mala_finds_a_target_that_is_not_normal():
    # A double well: the share of each side and the kurtosis come from quadrature.
    def energy(x):
        return (x[:, 0] ** 2 - 1.0) ** 2 - 0.5 * x[:, 0]

    grid = np.linspace(-4, 4, 4_001)
    p = np.exp(-((grid**2 - 1) ** 2) + 0.5 * grid)
    p /= p.sum()
    start = jnp.asarray(np.random.default_rng(0).choice(grid, (N, 1), p=p), jnp.float32)
    end, _ = run(lambda key, x: langevin.mala_step(key, x, energy, step_size=0.3), 100, start=start)
    assert stats.kstest(np.asarray(end[:, 0]), lambda x: np.interp(x, grid, np.cumsum(p))).pvalue > 1e-3


@pytest.mark.parametrize(("step_size", "num_leapfrog"), [(0.3, 5), (1.2, 3)])
def test_hmc_has_no_bias_at_any_step(step_size, num_leapfrog):
    end, accepted = run(
        lambda key, x: langevin.hmc_step(key, x, quadratic, step_size=step_size, num_leapfrog=num_leapfrog), 20
    )
    assert_variance(end[:, 0], 1.0)
    assert_variance(end[:, 1], 4.0)
    assert 0.5 < float(jnp.mean(accepted)) < 1.0


def test_chains_from_afar_come_to_the_target():
    far = jnp.full((N, 2), 6.0)
    for step in (
        lambda key, x: langevin.mala_step(key, x, quadratic, step_size=1.0),
        lambda key, x: langevin.hmc_step(key, x, quadratic, step_size=0.5, num_leapfrog=4),
    ):
        end, _ = run(step, 80, start=far)
        assert_variance(end[:, 1], 4.0)


def test_leapfrog_runs_back_to_its_start_and_keeps_the_mean_of_exp_minus_the_error(x64):
    x = jax.random.normal(jax.random.key(0), (N, 2)) * jnp.array([[1.0, 2.0]])
    momentum = jax.random.normal(jax.random.key(1), (N, 2))
    there, p = langevin.leapfrog(x, momentum, quadratic, step_size=0.9, num_steps=3)
    back, q = langevin.leapfrog(there, -p, quadratic, step_size=0.9, num_steps=3)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(-q, momentum, atol=1e-12)
    change = quadratic(there) + 0.5 * jnp.sum(p**2, axis=1) - quadratic(x) - 0.5 * jnp.sum(momentum**2, axis=1)
    ratio = np.exp(-np.asarray(change))
    assert abs(ratio.mean() - 1.0) < 4 * ratio.std() / np.sqrt(N)
    assert change.std() > 0.05


def test_an_example_does_not_depend_on_its_neighbours():
    x = jax.random.normal(jax.random.key(0), (4, 2))

    def steps(x):
        a = langevin.langevin(jax.random.key(1), x, quadratic, num_steps=2, step_size=0.5)
        b, _ = langevin.mala_step(jax.random.key(1), x, quadratic, step_size=0.5)
        c, _ = langevin.hmc_step(jax.random.key(1), x, quadratic, step_size=0.5, num_leapfrog=2)
        return jnp.stack([a, b, c])

    changed = steps(x.at[3].set(50.0))
    np.testing.assert_array_equal(changed[:, :3], steps(x)[:, :3])


def test_a_proposal_of_infinite_energy_is_refused():
    def energy(x):
        return jnp.where(jnp.abs(x[:, 0]) < 1.0, 0.0, jnp.inf)

    x, accepted = langevin.mala_step(jax.random.key(0), jnp.zeros((500, 1)), energy, step_size=4.0)
    assert float(jnp.max(jnp.abs(x))) < 1.0
    assert 0.2 < float(jnp.mean(accepted)) < 0.6
