"""Convolutions that are fast inside of loops: the parameters and the numbers of Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.convolution import Conv

SETTINGS = {
    "same": {"kernel_size": (3, 3)},
    "1x1": {"kernel_size": (1, 1)},
    "strides": {"kernel_size": (4, 4), "strides": (2, 2), "padding": ((1, 1), (1, 1))},
    "same, strides": {"kernel_size": (3, 3), "strides": (2, 2)},
    "valid": {"kernel_size": (3, 2), "padding": "VALID"},
    "dilated": {"kernel_size": (3, 3), "kernel_dilation": (2, 2)},
    "groups": {"kernel_size": (3, 3), "feature_group_count": 2},
    "sequence": {"kernel_size": (3,)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_parameters_values_and_gradients_are_those_of_flax(name):
    settings = SETTINGS[name]
    shape = (2, 8, 4) if name == "sequence" else (2, 8, 7, 4)
    x = jax.random.normal(jax.random.key(1), shape)
    ours, plain = Conv(6, **settings), nn.Conv(6, **settings)
    params = jax.jit(plain.init)(jax.random.key(0), x)
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(ours.init, jax.random.key(0), x))

    def values(layer):
        return jax.jit(jax.value_and_grad(lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x))), (0, 1)))(
            params, x
        )

    for one, other in zip(jax.tree.leaves(values(ours)), jax.tree.leaves(values(plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
