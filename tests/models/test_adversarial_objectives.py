"""Holds losses and penalties to their formulas in numpy; tests/losses/test_gan.py tests each loss alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import adversarial_objectives

REAL, FAKE = np.array([0.5, -2.0, 3.0], np.float32), np.array([-0.3, 1.5, 0.7], np.float32)


def log1p_exp(x):
    return np.log1p(np.exp(np.float64(x)))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


LOSSES = {
    "non_saturating": (
        adversarial_objectives.non_saturating(),
        log1p_exp(-REAL) + log1p_exp(FAKE),
        log1p_exp(-FAKE),
        sigmoid(REAL),
    ),
    "smoothed": (
        adversarial_objectives.non_saturating(real_target=0.9),
        0.9 * log1p_exp(-REAL) + 0.1 * log1p_exp(REAL) + log1p_exp(FAKE),
        log1p_exp(-FAKE),
        sigmoid(REAL),
    ),
    "smoothed on both sides": (
        adversarial_objectives.non_saturating(real_target=0.9, fake_target=0.2),
        0.9 * log1p_exp(-REAL) + 0.1 * log1p_exp(REAL) + 0.8 * log1p_exp(FAKE) + 0.2 * log1p_exp(-FAKE),
        log1p_exp(-FAKE),
        sigmoid(REAL),
    ),
    "saturating": (
        adversarial_objectives.saturating(),
        log1p_exp(-REAL) + log1p_exp(FAKE),
        -log1p_exp(FAKE),
        sigmoid(REAL),
    ),
    "hinge": (adversarial_objectives.hinge(), np.maximum(0, 1 - REAL) + np.maximum(0, 1 + FAKE), -FAKE, REAL),
    "least_squares": (
        adversarial_objectives.least_squares(),
        ((REAL - 1) ** 2 + FAKE**2) / 2,
        (FAKE - 1) ** 2 / 2,
        REAL,
    ),
    "wasserstein": (adversarial_objectives.wasserstein(), FAKE - REAL, -FAKE, REAL),
}


@pytest.mark.parametrize(("losses", "discriminator", "generator", "output"), LOSSES.values(), ids=LOSSES.keys())
def test_adversarial_losses_equal_their_formulas(losses, discriminator, generator, output):
    np.testing.assert_allclose(losses.discriminator(jnp.asarray(REAL), jnp.asarray(FAKE)), discriminator, rtol=1e-5)
    np.testing.assert_allclose(losses.generator(jnp.asarray(FAKE)), generator, rtol=1e-5)
    np.testing.assert_allclose(losses.to_output(jnp.asarray(REAL)), output, rtol=1e-6)


def test_penalties_of_a_linear_score_have_closed_forms():
    w = jnp.array([3.0, 4.0])
    real, fake = jax.random.normal(jax.random.key(0), (2, 5, 2))
    arguments = (jax.random.key(1), lambda x: x @ w, real, fake)
    np.testing.assert_allclose(
        adversarial_objectives.gradient_penalty(weight=2.0)(*arguments), np.full(5, 2.0 * 4.0**2), rtol=1e-5
    )
    np.testing.assert_allclose(adversarial_objectives.r1_penalty(weight=2.0)(*arguments), np.full(5, 25.0), rtol=1e-6)


def test_the_gradient_penalty_lies_between_pairs_and_r1_at_the_data():
    # |grad x^2| = 2 |x|: the penalty shows where it was evaluated.
    real, fake = jnp.full((500, 1), 1.0), jnp.full((500, 1), 3.0)
    arguments = (jax.random.key(1), lambda x: jnp.sum(jnp.square(x), axis=-1), real, fake)
    places = (np.sqrt(np.asarray(adversarial_objectives.gradient_penalty(weight=1.0)(*arguments))) + 1) / 2
    assert 1.0 <= places.min() < 1.02
    assert 2.98 < places.max() <= 3.0
    assert abs(places.mean() - 2.0) < 0.1
    np.testing.assert_allclose(adversarial_objectives.r1_penalty(weight=1.0)(*arguments), np.full(500, 2.0), rtol=1e-6)
