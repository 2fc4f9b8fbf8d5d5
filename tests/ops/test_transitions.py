import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.ops import transitions

K, T = 5, 6
BETAS = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
PROCESSES = {
    "uniform": lambda: transitions.uniform(BETAS, num_states=K),
    "gaussian": lambda: transitions.gaussian(BETAS, num_states=K),
    "absorbing": lambda: transitions.absorbing(BETAS, num_levels=K - 1),
}
each_process = pytest.mark.parametrize("name", PROCESSES)


def matrices(name):
    """Q_t by hand, from the formulas of the paper's appendix A.2."""
    steps = np.zeros((T, K, K))
    for t, beta in enumerate(BETAS):
        for i in range(K):
            for j in range(K):
                if name == "uniform":
                    steps[t, i, j] = beta / K + (1 - beta) * (i == j)
                elif name == "absorbing":
                    steps[t, i, j] = 1.0 if i == j == K - 1 else beta * (j == K - 1) + (1 - beta) * (i == j)
                elif i != j:
                    total = sum(np.exp(-4 * n**2 / ((K - 1) ** 2 * beta)) for n in range(1 - K, K))
                    steps[t, i, j] = np.exp(-4 * (i - j) ** 2 / ((K - 1) ** 2 * beta)) / total
            if name == "gaussian":
                steps[t, i, i] = 1 - steps[t, i].sum()
    return steps


@each_process
def test_cumulative_matrices_are_products_of_the_steps(x64, name):
    process, steps = PROCESSES[name](), matrices(name)
    assert (process.num_steps, process.num_states) == (T, K)
    product = np.eye(K)
    np.testing.assert_allclose(np.exp(process.log_cumulative[0]), product, atol=1e-15)
    for t in range(T):
        product = product @ steps[t]
        np.testing.assert_allclose(np.exp(process.log_steps[t]), steps[t], rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(np.exp(process.log_cumulative[t + 1]), product, rtol=1e-12, atol=1e-300)


def test_the_uniform_process_has_its_closed_form(x64):
    kept = np.prod(1 - BETAS)
    expected = kept * np.eye(K) + (1 - kept) / K
    np.testing.assert_allclose(np.exp(PROCESSES["uniform"]().log_cumulative[-1]), expected, rtol=1e-12)


@each_process
def test_the_stationary_distribution_is_kept_by_every_step(x64, name):
    process = PROCESSES[name]()
    p = np.exp(process.log_stationary)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    for step in np.exp(process.log_steps):
        np.testing.assert_allclose(p @ step, p, atol=1e-12)


@each_process
def test_the_posterior_is_bayes_rule_on_explicit_products(x64, name):
    process, steps = PROCESSES[name](), matrices(name)
    levels = K - (name == "absorbing")
    for t in range(1, T + 1):
        before = np.linalg.multi_dot([np.eye(K), np.eye(K), *steps[: t - 1]])
        joint = before[:, :, None] * steps[t - 1]  # [x_0, x_(t-1), x_t]
        x_0, x_t = np.nonzero(joint.sum(axis=1) > 0)
        x_0, x_t = x_0[x_0 < levels], x_t[x_0 < levels]
        expected = joint[x_0, :, x_t] / joint.sum(axis=1)[x_0, x_t][:, None]
        found = transitions.posterior_log_prob(process, x_0[None], x_t[None], np.array([t]))
        np.testing.assert_allclose(np.exp(found[0]), expected, rtol=1e-10, atol=1e-14)


@each_process
def test_the_reverse_step_is_the_mixture_of_the_paper(x64, name):
    process, steps = PROCESSES[name](), matrices(name)
    levels = K - (name == "absorbing")
    rng = np.random.default_rng(0)
    p_0 = rng.dirichlet(np.ones(levels), size=(1, K))
    for t in range(1, T + 1):
        before = np.linalg.multi_dot([np.eye(K), np.eye(K), *steps[: t - 1]])
        x_t = np.arange(K)
        weights = np.einsum("jk,ki,ij->ji", p_0[0], before[:levels], steps[t - 1])
        found = transitions.reverse_log_prob(process, jnp.log(p_0), x_t[None], np.array([t]))
        np.testing.assert_allclose(
            np.exp(found[0]), weights / weights.sum(axis=1, keepdims=True), rtol=1e-10, atol=1e-14
        )


@each_process
def test_a_certain_prediction_makes_the_reverse_step_the_posterior(x64, name):
    process = PROCESSES[name]()
    x_0, x_t = np.array([[0, 1, 2, 3]]), np.array([[0, K - 1, 2, K - 1]])
    logits = np.where(np.arange(K - 1) == x_0[..., None], 0.0, -1e3)
    for t in (1, 2, T):
        found = transitions.reverse_log_prob(process, logits, x_t, np.array([t]))
        expected = transitions.posterior_log_prob(process, x_0, x_t, np.array([t]))
        np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-10)


@each_process
def test_draws_have_the_cumulative_probabilities(name):
    process, n = PROCESSES[name](), 20_000
    x_0, t = jnp.tile(jnp.array([[1, 3]]), (n, 1)), jnp.full(n, 3)
    x_t = np.asarray(jax.jit(lambda key: transitions.diffuse(key, process, x_0, t))(jax.random.key(0)))
    assert x_t.dtype == np.int32
    for column, start in ((0, 1), (1, 3)):
        expected = n * np.exp(np.asarray(process.log_cumulative[3, start], np.float64))
        counts = np.bincount(x_t[:, column], minlength=K)
        likely = expected > 1e-6
        assert counts[~likely].sum() == 0
        assert stats.chisquare(counts[likely], expected[likely] * n / expected.sum()).pvalue > 1e-3


def test_gradients_are_finite_where_states_are_impossible():
    process = PROCESSES["absorbing"]()
    x_t = jnp.array([[0, K - 1]])

    def total(logits):
        return jnp.sum(jnp.exp(transitions.reverse_log_prob(process, logits, x_t, jnp.array([1])))[..., 0])

    for scale in (0.0, 100.0):
        gradient = jax.jit(jax.grad(total))(scale * jax.random.normal(jax.random.key(0), (1, 2, K - 1)))
        assert np.isfinite(np.asarray(gradient)).all()


def test_betas_are_probabilities_and_end_as_the_source_has_them():
    for num_steps in (1, 10, 100, 1_000):
        for make in (transitions.linear_betas, transitions.cosine_betas, transitions.masking_betas):
            betas = make(num_steps)
            assert betas.shape == (num_steps,)
            assert (betas > 0).all()
            assert (betas <= 1).all()
    np.testing.assert_allclose(transitions.linear_betas(1_000)[[0, -1]], [1e-4, 0.02])
    np.testing.assert_allclose(np.cumprod(1 - transitions.masking_betas(4)), [0.75, 0.5, 0.25, 0.0], atol=1e-15)
    kept = np.cumprod(1 - transitions.cosine_betas(100))
    assert kept[49] == pytest.approx(0.5, abs=0.02)


def test_the_processes_of_the_experiment_end_near_the_uniform_distribution():
    for process in (
        transitions.uniform(transitions.cosine_betas(100), num_states=17),
        transitions.gaussian(transitions.linear_betas(100), num_states=17),
    ):
        np.testing.assert_allclose(np.exp(process.log_cumulative[-1]), np.full((17, 17), 1 / 17), atol=2e-3)


def test_the_divergence_at_the_end_is_zero_if_nothing_is_left_of_the_data(x64):
    assert transitions.end_divergence(transitions.uniform(np.array([0.5, 1.0]), num_states=3)) == pytest.approx(0.0)
    assert transitions.end_divergence(PROCESSES["absorbing"]()) > 0.1
    nothing = transitions.from_matrices(np.eye(4)[None])
    assert transitions.end_divergence(nothing) == pytest.approx(np.log(4))


def test_rows_that_are_no_distributions_are_refused():
    with pytest.raises(ValueError, match="must be probabilities that sum to 1"):
        transitions.from_matrices(np.full((2, 3, 3), 0.5))
