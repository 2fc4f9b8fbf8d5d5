import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import combine, vae

RNG = np.random.default_rng(0)


def make_terms(*names, shape=(5,)):
    return {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name in names}


def test_the_sum_is_the_float64_formula():
    terms = make_terms("nll", "kl", "adversarial")
    loss = combine.weighted_sum(terms, kl=4.0, adversarial=-0.25)
    nll, kl, adversarial = (np.asarray(terms[name], np.float64) for name in ("nll", "kl", "adversarial"))
    np.testing.assert_allclose(loss, nll + 4.0 * kl - 0.25 * adversarial, rtol=1e-6, atol=1e-6)


def test_a_term_without_a_weight_weighs_one():
    terms = make_terms("nll", "kl")
    np.testing.assert_array_equal(combine.weighted_sum(terms), terms["nll"] + terms["kl"])
    np.testing.assert_array_equal(combine.weighted_sum(terms), combine.weighted_sum(terms, nll=1.0, kl=1.0))


def test_one_term_is_itself():
    terms = make_terms("nll")
    np.testing.assert_array_equal(combine.weighted_sum(terms), terms["nll"])


@pytest.mark.parametrize("jit", [False, True])
def test_beta_one_is_minus_the_elbo_bit_for_bit(jit):
    terms = {name: 100.0 * term for name, term in make_terms("nll", "kl", shape=(1000,)).items()}
    weighted_fn = lambda terms, beta: combine.weighted_sum(terms, kl=beta)  # noqa: E731
    loss = (jax.jit(weighted_fn) if jit else weighted_fn)(terms, 1.0)
    expected = -(jax.jit(vae.elbo) if jit else vae.elbo)(**terms)
    assert np.asarray(loss).tobytes() == np.asarray(expected).tobytes()


def test_the_derivative_in_beta_is_the_kl():
    terms = make_terms("nll", "kl")
    derivative = jax.jacfwd(lambda beta: combine.weighted_sum(terms, kl=beta))(0.7)
    np.testing.assert_array_equal(derivative, terms["kl"])


def test_the_derivative_in_a_term_is_its_weight():
    terms = make_terms("nll", "kl")
    gradients = jax.grad(lambda terms: combine.weighted_sum(terms, kl=3.0).sum())(terms)
    np.testing.assert_array_equal(gradients["nll"], np.ones(5))
    np.testing.assert_array_equal(gradients["kl"], np.full(5, 3.0))


def test_a_weight_of_zero_leaves_the_other_terms():
    terms = make_terms("nll", "kl")
    np.testing.assert_array_equal(combine.weighted_sum(terms, kl=0.0), terms["nll"])


def test_the_order_of_the_terms_does_not_change_the_bits():
    terms = {name: 10.0**power * term for power, (name, term) in enumerate(make_terms(*"dabc", shape=(100,)).items())}
    backwards = dict(reversed(terms.items()))
    np.testing.assert_array_equal(combine.weighted_sum(terms), combine.weighted_sum(backwards))
    np.testing.assert_array_equal(jax.jit(combine.weighted_sum)(terms), jax.jit(combine.weighted_sum)(backwards))


def test_extreme_terms_stay_finite_with_their_gradients():
    terms = {"nll": jnp.array([1e30, -1e30]), "kl": jnp.array([1e-30, 1e30])}
    loss, gradients = jax.value_and_grad(lambda terms: combine.weighted_sum(terms, kl=1e-8).sum())(terms)
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())


@pytest.mark.parametrize("shape", [(), (5,), (3, 5)])
def test_the_loss_has_the_shape_and_dtype_of_a_term(shape):
    loss = combine.weighted_sum(make_terms("nll", "kl", shape=shape), kl=2.0)
    assert loss.shape == shape
    assert loss.dtype == jnp.float32


def test_an_unknown_weight_names_the_known_terms():
    with pytest.raises(ValueError, match=r"\['kld'\].*\['kl', 'nll'\]"):
        combine.weighted_sum(make_terms("nll", "kl"), kld=2.0)


def test_no_terms_are_refused():
    with pytest.raises(ValueError, match="at least one term"):
        combine.weighted_sum({})


def test_terms_of_different_shapes_are_refused():
    with pytest.raises(AssertionError):
        combine.weighted_sum({"nll": jnp.ones(5), "kl": jnp.ones((5, 1))})
    with pytest.raises(AssertionError):
        combine.weighted_sum({"nll": jnp.ones(5), "kl": jnp.ones(())})


def test_integer_terms_are_refused():
    with pytest.raises(AssertionError):
        combine.weighted_sum({"nll": jnp.ones(5, jnp.int32)})


def test_a_weight_per_example_is_refused():
    with pytest.raises(AssertionError):
        combine.weighted_sum(make_terms("nll", "kl"), kl=jnp.ones(5))


def test_jit_and_vmap_agree_with_the_plain_call():
    terms, beta = make_terms("nll", "kl"), jnp.float32(0.3)
    weighted_fn = lambda terms, beta: combine.weighted_sum(terms, kl=beta)  # noqa: E731
    plain = weighted_fn(terms, beta)
    np.testing.assert_allclose(jax.jit(weighted_fn)(terms, beta), plain, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(weighted_fn, in_axes=(0, None))(terms, beta), plain, rtol=1e-6, atol=1e-6)


def test_an_uncertainty_weighted_loss_is_the_float64_formula():
    error, log_error = np.abs(RNG.normal(size=6)).astype(np.float32), RNG.normal(size=6).astype(np.float32)
    expected = np.float64(error) / np.exp(np.float64(log_error)) + np.float64(log_error)
    np.testing.assert_allclose(combine.uncertainty_weighted_loss(error, log_error), expected, rtol=1e-5, atol=1e-6)


def test_the_best_scale_is_the_mean_error_and_errors_weigh_its_inverse():
    error = jnp.asarray(RNG.gamma(2.0, 0.3, size=1000), jnp.float32)
    loss = lambda log_error, error: jnp.mean(combine.uncertainty_weighted_loss(error, jnp.full(1000, log_error)))  # noqa: E731
    best = jnp.log(jnp.mean(error))
    assert abs(float(jax.grad(loss)(best, error))) < 1e-5
    assert jax.grad(loss)(best - 0.1, error) < -0.05
    assert jax.grad(loss)(best + 0.1, error) > 0.05
    np.testing.assert_allclose(1000 * jax.grad(loss, 1)(best, error), jnp.full(1000, jnp.exp(-best)), rtol=1e-5)


def test_extreme_sizes_of_an_error_stay_finite():
    error, log_error = jnp.array([0.0, 1e30, 1e-30]), jnp.array([-80.0, 70.0, -70.0])
    loss, gradient = jax.value_and_grad(lambda u: combine.uncertainty_weighted_loss(error, u).sum())(log_error)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_an_uncertainty_weighted_loss_takes_a_number_for_each_example():
    with pytest.raises(AssertionError):
        combine.uncertainty_weighted_loss(jnp.ones((3, 2)), jnp.ones((3, 2)))
    with pytest.raises(AssertionError):
        combine.uncertainty_weighted_loss(jnp.ones(3), jnp.ones(()))
