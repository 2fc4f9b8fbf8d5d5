import jax
import numpy as np
import pytest
from scipy import integrate, special, stats

from gm_jax.evaluation import enumeration
from gm_jax.types import Likelihood

RNG = np.random.default_rng(0)


def distribution(size, *, zeros=0):
    p = RNG.gamma(0.7, size=size)
    p[:zeros] = 0.0
    return p / p.sum()


def test_states_are_enumerated_in_the_order_of_their_index():
    states = enumeration.all_states(3)
    assert states.tolist()[:4] == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    np.testing.assert_array_equal(enumeration.state_index(states), np.arange(8))
    np.testing.assert_array_equal(enumeration.state_index(enumeration.all_states(6).reshape(64, 2, 3)), np.arange(64))


def test_frequencies_count_every_sample_once():
    samples = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], np.uint8)
    np.testing.assert_array_equal(enumeration.frequencies(samples), [0.0, 0.5, 0.25, 0.25])


def test_states_that_are_not_binary_are_refused():
    with pytest.raises(ValueError, match="0 and 1"):
        enumeration.state_index(np.array([[0, 2]]))
    with pytest.raises(ValueError, match="cannot enumerate states of 40 bits"):
        enumeration.all_states(40)


def test_entropies_and_divergences_equal_scipy():
    p, q = distribution(64, zeros=5), distribution(64)
    np.testing.assert_allclose(enumeration.entropy(p), stats.entropy(p), rtol=1e-12)
    np.testing.assert_allclose(enumeration.kl_divergence(p, np.log(q)), stats.entropy(p, q), rtol=1e-10)
    difference = enumeration.cross_entropy(p, np.log(q)) - enumeration.entropy(p)
    np.testing.assert_allclose(difference, stats.entropy(p, q), rtol=1e-10)
    assert abs(enumeration.kl_divergence(q, np.log(q))) < 1e-12


def test_states_absent_from_the_data_may_have_probability_zero():
    p = np.array([0.0, 0.25, 0.75])
    assert np.isfinite(enumeration.kl_divergence(p, np.log([1e-300, 0.5, 0.5])))
    with np.errstate(divide="ignore"):
        assert np.isfinite(enumeration.kl_divergence(p, np.log([0.0, 0.5, 0.5])))
        assert enumeration.kl_divergence(p, np.log([0.5, 0.0, 0.5])) == np.inf


def test_total_variation_by_hand():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    np.testing.assert_allclose(enumeration.total_variation(p, q), 0.5)
    assert enumeration.total_variation(p, p) == 0.0


def test_exact_draws_have_the_expected_total_variation():
    q = distribution(64)
    mean, deviation = enumeration.expected_total_variation(q, 500, seed=1)
    ours = enumeration.total_variation(RNG.multinomial(500, q) / 500, q)
    assert abs(ours - mean) < 5 * deviation
    # Draws from another distribution have more.
    other = enumeration.total_variation(RNG.multinomial(500, distribution(64)) / 500, q)
    assert other > mean + 5 * deviation


def test_the_total_variation_of_exact_draws_of_a_coin_has_the_moments_of_a_folded_normal():
    # |k / N - 1/2| of k heads in N throws: a folded normal of standard deviation s = 1 / (2 sqrt N).
    mean, deviation = enumeration.expected_total_variation(np.array([0.5, 0.5]), 10_000, num_repeats=20_000)
    s = 0.5 / np.sqrt(10_000)
    np.testing.assert_allclose(mean, s * np.sqrt(2 / np.pi), rtol=0.03)
    np.testing.assert_allclose(deviation, s * np.sqrt(1 - 2 / np.pi), rtol=0.03)


def test_a_decoder_that_ignores_its_latent_is_independent_pixels():
    logits = np.array([0.3, -1.0, 2.0, 0.5])
    log_q = enumeration.latent_log_prob(lambda z: np.tile(logits, (len(z), 1)), num_bits=4)
    signs = 2.0 * enumeration.all_states(4) - 1.0
    np.testing.assert_allclose(log_q, special.log_expit(signs * logits[None]).sum(axis=1), atol=1e-8)


def test_quadrature_equals_scipy_for_a_decoder_that_uses_its_latent():
    weights, bias = RNG.normal(size=(2, 4)) * 2.0, RNG.normal(size=4)
    log_q = enumeration.latent_log_prob(lambda z: z @ weights.astype(np.float32) + bias[None], num_bits=4)
    np.testing.assert_allclose(np.exp(log_q).sum(), 1.0, atol=1e-8)
    for s in (0, 5, 14):
        signs = 2.0 * enumeration.all_states(4)[s] - 1.0

        def integrand(a, b, signs=signs):
            logits = np.array([a, b]) @ weights + bias
            return np.exp(special.log_expit(signs * logits).sum() - 0.5 * (a * a + b * b)) / (2 * np.pi)

        expected, _ = integrate.dblquad(integrand, -8, 8, -8, 8, epsabs=1e-9)
        np.testing.assert_allclose(np.exp(log_q[s]), expected, rtol=1e-6)


def test_a_finer_grid_changes_nothing_even_for_a_sharp_decoder():
    # As steep as a trained decoder.
    weights = RNG.normal(size=(2, 8)).astype(np.float32)
    decoder = lambda z: 8.0 * np.sin(2.0 * z @ weights) + 4.0 * z @ weights  # noqa: E731
    coarse, fine = (enumeration.latent_log_prob(decoder, num_bits=8, num_nodes=nodes) for nodes in (241, 401))
    p = np.exp(fine)
    assert abs(enumeration.kl_divergence(p, coarse)) < 1e-3


def test_an_odd_number_of_bits_is_refused():
    with pytest.raises(ValueError, match="odd"):
        enumeration.latent_log_prob(lambda z: z, num_bits=3)


P = distribution(16, zeros=5)
STATES = enumeration.all_states(4)


def noisy(sigma, shift, kind="lower_bound"):
    """log_prob = log of the uniform distribution + shift + sigma * noise, jitted as a model's would be."""

    @jax.jit
    def log_prob(x, key):
        noise = jax.random.normal(key, x.shape[:1])
        return Likelihood(sigma * noise + shift - 4 * np.log(2.0), kind, "binary")

    return log_prob


def test_an_exact_log_probability_is_evaluated_on_all_states(monkeypatch):
    monkeypatch.setattr(enumeration, "_CHUNK", 5)
    log_prob = lambda x, key: Likelihood(-np.asarray(x, np.float64).sum(axis=1), "exact", "binary")  # noqa: E731
    found = enumeration.enumerated(log_prob, STATES)
    np.testing.assert_array_equal(found.log_q, -STATES.sum(axis=1, dtype=np.float64))
    assert (found.kind, found.method) == ("exact", "enumeration")


def test_unbiased_probabilities_average_to_an_estimate_of_the_probability():
    # E exp(sigma * noise - sigma^2 / 2) = 1.
    found = enumeration.averaged_probability(noisy(0.5, -0.125), STATES, P, num_draws=4000)
    assert (found.kind, found.method) == ("estimate", "mean over 4000 draws of the noise")
    np.testing.assert_array_equal(np.isfinite(found.log_q), P > 0)
    np.testing.assert_allclose(found.log_q[P > 0], -4 * np.log(2.0), atol=5 * 0.53 / np.sqrt(4000))


@pytest.mark.parametrize("kind", ["lower_bound", "upper_bound"])
def test_bounds_average_to_a_bound_of_the_same_kind(kind):
    found = enumeration.averaged_bound(noisy(0.5, -0.125, kind), STATES, P, num_draws=1000)
    assert (found.kind, found.method) == (kind, "mean over 1000 draws of the noise")
    np.testing.assert_array_equal(np.isfinite(found.log_q), P > 0)
    np.testing.assert_allclose(found.log_q[P > 0], -4 * np.log(2.0) - 0.125, atol=5 * 0.5 / np.sqrt(1000))


def test_a_model_is_compared_with_the_whole_distribution():
    samples = STATES[RNG.choice(16, size=5000, p=P)]
    with np.errstate(divide="ignore"):
        exact = enumeration.StateLogProb(np.log(P), "exact", "enumeration")
    found = {r.name: r for r in enumeration.measure(P, samples, exact, data="digits4x4", settings={"step": 3})}
    assert list(found) == ["tv_samples_to_data", "nll_of_world", "kl_to_world", "tv_samples_to_model"]
    np.testing.assert_allclose(found["nll_of_world"].value, enumeration.entropy(P))
    assert abs(found["kl_to_world"].value) < 1e-12
    own = found["tv_samples_to_model"]
    np.testing.assert_allclose(own.value, found["tv_samples_to_data"].value, rtol=1e-10)
    assert own.value < 0.05
    assert abs(own.value - own.settings["of_exact_draws"]) < 6 * own.settings["of_exact_draws_sd"]
    assert {(r.data, r.measure, r.settings["step"]) for r in found.values()} == {("digits4x4", "binary", 3)}
    assert [(r.kind, r.examples) for r in found.values()] == [("score", 5000), *[("exact", 16)] * 2, ("score", 5000)]


def test_a_bound_has_no_total_variation_and_an_infinite_value_is_none():
    bound = enumeration.StateLogProb(np.full(16, -np.inf), "lower_bound", "mean over 4 draws of the noise")
    found = enumeration.measure(P, STATES, bound, data="digits4x4", settings={})
    assert [(r.name, r.kind) for r in found[1:]] == [("nll_of_world", "lower_bound"), ("kl_to_world", "lower_bound")]
    assert [r.value for r in found[1:]] == [None, None]
    assert len(enumeration.measure(P, STATES, None, data="digits4x4", settings={})) == 1
