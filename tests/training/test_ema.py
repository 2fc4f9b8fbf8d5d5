"""Holds the moving average of the parameters to its recursion in float64, and its weights to their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.training import ema


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_follows_its_recursion(decay):
    params = np.random.default_rng(0).normal(size=(15, 4)).astype(np.float32)
    average, expected = {"w": jnp.asarray(params[0])}, params[0].astype(np.float64)
    for step, new in enumerate(params):
        average = ema.update(average, {"w": jnp.asarray(new)}, weight=ema.by_ratio(decay)(jnp.int32(step)))
        weight = min(decay, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * new
        np.testing.assert_allclose(average["w"], expected, rtol=1e-5, atol=1e-6)


def test_the_first_update_forgets_most_of_the_initial_parameters():
    average = ema.update(jnp.zeros(3), jnp.ones(3), weight=ema.by_ratio(0.999)(jnp.int32(0)))
    np.testing.assert_allclose(average, np.full(3, 0.9), rtol=1e-6)


def test_the_average_keeps_its_dtype():
    average = ema.update(jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.bfloat16), weight=jnp.float32(0.9))
    assert average.dtype == jnp.bfloat16


@pytest.mark.parametrize("num_updates", [0, 1, 10_000])
def test_a_constant_weight_has_no_warm_up(num_updates):
    np.testing.assert_allclose(ema.constant(0.9999)(jnp.int32(num_updates)), 0.9999, rtol=1e-7)


@pytest.mark.parametrize("num_updates", [0, 1, 5, 100, 3_000, 19_531, 10**6])
def test_a_ramp_is_the_formula_of_edm(num_updates):
    # training_loop.py of NVlabs/edm, in images: batch 512, half-life 500,000, ema_rampup_ratio 0.05.
    halflife = min(500_000, num_updates * 512 * 0.05)
    expected = 0.5 ** (512 / max(halflife, 1e-8))
    decay = ema.decay_of_halflife(500_000, images_per_update=512)
    np.testing.assert_allclose(ema.by_ramp(decay)(jnp.int32(num_updates)), expected, rtol=1e-6)


def test_parameters_count_half_as_much_after_the_half_life():
    decay = ema.decay_of_halflife(6_400, images_per_update=64)
    average = jnp.ones(())
    for step in range(100):
        average = ema.update(average, jnp.zeros(()), weight=ema.constant(decay)(jnp.int32(step)))
    np.testing.assert_allclose(average, 0.5, rtol=1e-5)


@pytest.mark.parametrize("make", [ema.by_ratio, ema.by_ramp, ema.constant])
@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(make, decay):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        make(decay)
