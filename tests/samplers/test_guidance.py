from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, predictions
from gm_jax.samplers.guidance import classifier_free_guidance
from tests.samplers.gaussian_data import T, factors, normal


def test_guidance_by_hand():
    conditional, unconditional = jnp.array([[2.0, -1.0]]), jnp.array([[1.0, 1.0]])
    guided = classifier_free_guidance(conditional, unconditional, weight=2.0)
    np.testing.assert_array_equal(guided, [[4.0, -5.0]])


def test_guidance_of_weight_0_is_the_conditional_model_bit_for_bit():
    conditional, unconditional = normal(5, 3), normal(5, 3)
    guide = partial(classifier_free_guidance, conditional, unconditional)
    np.testing.assert_array_equal(guide(weight=0.0), conditional)
    np.testing.assert_allclose(guide(weight=-1.0), unconditional, rtol=1e-5, atol=1e-6)


def test_guided_noise_is_the_noise_of_guided_data(x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    x_t, conditional, unconditional = normal(2, 3), normal(2, 3), normal(2, 3)
    to_x_0 = lambda eps: predictions.prediction_from_eps(x_t, eps, *factors(schedule.at(20))).x_0  # noqa: E731
    guided_eps = classifier_free_guidance(conditional, unconditional, weight=1.7)
    guided_x_0 = classifier_free_guidance(to_x_0(conditional), to_x_0(unconditional), weight=1.7)
    np.testing.assert_allclose(to_x_0(guided_eps), guided_x_0, rtol=1e-11)


def test_guidance_refuses_predictions_of_different_shapes():
    guide = partial(classifier_free_guidance, weight=1.0)
    with pytest.raises(AssertionError):
        guide(jnp.ones((2, 3)), jnp.ones((1, 3)))
    with pytest.raises(AssertionError):
        guide(jnp.ones((2, 3), jnp.int32), jnp.ones((2, 3), jnp.int32))
