"""The two sides of a restricted Boltzmann machine compared with its energy."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.rbm import RBM


def test_the_log_odds_are_differences_of_the_energy(x64):
    rng = np.random.default_rng(0)
    a, b, w = rng.normal(size=5), rng.normal(size=4), rng.normal(size=(5, 4))
    variables = {"params": {"kernel": jnp.asarray(w), "visible_bias": jnp.asarray(a), "hidden_bias": jnp.asarray(b)}}
    v, h = rng.integers(0, 2, (3, 5)).astype(float), rng.integers(0, 2, (3, 4)).astype(float)

    def energy(v, h):
        return -v @ a - h @ b - np.sum((v @ w) * h, axis=1)

    def flipped(units, i, value):
        return np.concatenate([units[:, :i], np.full((3, 1), value), units[:, i + 1 :]], axis=1)

    bias_term, hidden_logits = RBM(5, 4).apply(variables, jnp.asarray(v))
    expected = [energy(v, flipped(h, j, 0.0)) - energy(v, flipped(h, j, 1.0)) for j in range(4)]
    np.testing.assert_allclose(hidden_logits, np.stack(expected, axis=1), atol=1e-12)
    np.testing.assert_allclose(bias_term, v @ a, atol=1e-12)
    bias_term, visible_logits = RBM(5, 4).apply(variables, jnp.asarray(h), method="from_hidden")
    expected = [energy(flipped(v, i, 0.0), h) - energy(flipped(v, i, 1.0), h) for i in range(5)]
    np.testing.assert_allclose(visible_logits, np.stack(expected, axis=1), atol=1e-12)
    np.testing.assert_allclose(bias_term, h @ b, atol=1e-12)


def test_weights_start_small_and_biases_at_zero():
    params = RBM(200, 100).init(jax.random.key(0), jnp.zeros((1, 200)))["params"]
    assert 0.0095 < float(jnp.std(params["kernel"])) < 0.0105
    assert not params["visible_bias"].any()
    assert not params["hidden_bias"].any()
