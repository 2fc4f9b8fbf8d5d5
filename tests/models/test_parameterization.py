import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import parameterization
from gm_jax.ops import diffusion_process

RNG = np.random.default_rng(0)
X_0, EPS = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))
LOG_ALPHA_BAR = jnp.log(jnp.asarray([0.9, 0.5, 0.1, 0.01], jnp.float32))
X_T = diffusion_process.diffuse(X_0, EPS, LOG_ALPHA_BAR)
TARGETS = {"noise": EPS, "data": X_0, "velocity": diffusion_process.velocity(X_0, EPS, LOG_ALPHA_BAR)}
each = pytest.mark.parametrize("name", TARGETS)


@each
def test_the_target_has_no_loss_and_gives_back_data_and_noise(name):
    made = getattr(parameterization, name)()
    loss = made.loss(X_0, EPS, TARGETS[name], LOG_ALPHA_BAR)
    np.testing.assert_allclose(loss, np.zeros(4), atol=1e-6)
    prediction = made.predict(X_T, TARGETS[name], LOG_ALPHA_BAR)
    np.testing.assert_allclose(prediction.x_0, X_0, atol=1e-4)
    np.testing.assert_allclose(prediction.eps, EPS, atol=1e-4)


@each
def test_losses_are_squared_errors_of_what_is_predicted(name):
    # An output off by d everywhere: 3 d^2.
    loss = getattr(parameterization, name)().loss(X_0, EPS, TARGETS[name] + 0.5, LOG_ALPHA_BAR)
    np.testing.assert_allclose(loss, np.full(4, 0.75), rtol=1e-4)
