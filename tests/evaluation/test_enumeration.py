import numpy as np
import pytest
from scipy import integrate, special, stats

from gm_jax.evaluation import enumeration

RNG = np.random.default_rng(0)


def distribution(size, *, zeros=0):
    p = RNG.gamma(0.7, size=size)
    p[:zeros] = 0.0
    return p / p.sum()


def test_states_are_counted_in_the_order_of_their_index():
    states = enumeration.all_states(3)
    assert states.tolist()[:4] == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    np.testing.assert_array_equal(enumeration.state_index(states), np.arange(8))
    np.testing.assert_array_equal(enumeration.state_index(enumeration.all_states(6).reshape(64, 2, 3)), np.arange(64))


def test_frequencies_count_every_sample_once():
    samples = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], np.uint8)
    np.testing.assert_array_equal(enumeration.frequencies(samples), [0.0, 0.5, 0.25, 0.25])


def test_what_is_not_binary_is_refused():
    with pytest.raises(ValueError, match="0 and 1"):
        enumeration.state_index(np.array([[0, 2]]))
    with pytest.raises(ValueError, match="cannot be counted"):
        enumeration.all_states(40)


def test_entropies_and_divergences_are_scipys():
    p, q = distribution(64, zeros=5), distribution(64)
    np.testing.assert_allclose(enumeration.entropy(p), stats.entropy(p), rtol=1e-12)
    np.testing.assert_allclose(enumeration.kl_divergence(p, np.log(q)), stats.entropy(p, q), rtol=1e-10)
    difference = enumeration.cross_entropy(p, np.log(q)) - enumeration.entropy(p)
    np.testing.assert_allclose(difference, stats.entropy(p, q), rtol=1e-10)
    assert abs(enumeration.kl_divergence(q, np.log(q))) < 1e-12


def test_states_that_never_occur_may_be_impossible():
    p = np.array([0.0, 0.25, 0.75])
    assert np.isfinite(enumeration.kl_divergence(p, np.log([1e-300, 0.5, 0.5])))
    with np.errstate(divide="ignore"):
        assert np.isfinite(enumeration.kl_divergence(p, np.log([0.0, 0.5, 0.5])))
        assert enumeration.kl_divergence(p, np.log([0.5, 0.0, 0.5])) == np.inf


def test_total_variation_by_hand():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    np.testing.assert_allclose(enumeration.total_variation(p, q), 0.5)
    assert enumeration.total_variation(p, p) == 0.0


def test_exact_draws_have_the_variation_that_is_expected_of_them():
    q = distribution(64)
    mean, deviation = enumeration.expected_total_variation(q, 500, seed=1)
    ours = enumeration.total_variation(RNG.multinomial(500, q) / 500, q)
    assert abs(ours - mean) < 5 * deviation
    # Draws of another distribution do not.
    other = enumeration.total_variation(RNG.multinomial(500, distribution(64)) / 500, q)
    assert other > mean + 5 * deviation


def test_a_decoder_that_ignores_its_latent_is_independent_pixels():
    logits = np.array([0.3, -1.0, 2.0, 0.5])
    log_q = enumeration.latent_log_prob(lambda z: np.tile(logits, (len(z), 1)), num_bits=4)
    signs = 2.0 * enumeration.all_states(4) - 1.0
    np.testing.assert_allclose(log_q, special.log_expit(signs * logits[None]).sum(axis=1), atol=1e-8)


def test_quadrature_is_scipys_for_a_decoder_that_uses_its_latent():
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


def test_a_sharp_decoder_changes_nothing_with_a_finer_grid():
    # Steps as steep as a trained decoder's.
    weights = RNG.normal(size=(2, 8)).astype(np.float32)
    decoder = lambda z: 8.0 * np.sin(2.0 * z @ weights) + 4.0 * z @ weights  # noqa: E731
    coarse, fine = (enumeration.latent_log_prob(decoder, num_bits=8, num_nodes=nodes) for nodes in (241, 401))
    p = np.exp(fine)
    assert abs(enumeration.kl_divergence(p, coarse)) < 1e-3


def test_an_odd_number_of_bits_is_refused():
    with pytest.raises(ValueError, match="odd"):
        enumeration.latent_log_prob(lambda z: z, num_bits=3)
