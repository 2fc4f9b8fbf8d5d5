"""Convolutions that are fast inside of loops: the parameters and the numbers of Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from gm_jax.networks import autoencoder, convnet, dcgan, energy, gan_resnet
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


NETWORKS = {
    "Conv": (Conv(6, (3, 3)), {}),
    "convolutional encoder": (convnet.ConvEncoder((4, 4), 3, hidden=8), {}),
    "spatial encoder": (autoencoder.SpatialEncoder((8, 8), 2, groups=4), {}),
    "energy": (energy.EnergyConvNet((4, 4)), {"train": True}),
    "dcgan": (dcgan.DCGANDiscriminator((4, 4)), {"train": True}),
    "residual gan": (gan_resnet.ResNetDiscriminator(4), {"train": True}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_networks_have_convolutions_in_the_form_that_is_fast_inside_of_loops(name):
    (network, settings), x = NETWORKS[name], jnp.ones((2, 8, 8, 1))
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), x, **settings))

    def loss(variables, x):
        outputs = network.apply(variables, x, **settings, mutable=True)[0]
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outputs))

    found = list(convolutions(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, x).jaxpr))
    assert len(found) > 1
    assert set(found) == {((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}  # NHWC, HWIO, NHWC


def convolutions(jaxpr):
    """Yields the dimension numbers of every convolution of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield tuple(map(tuple, equation.params["dimension_numbers"]))
        for inner in jaxprs_in_params(equation.params):
            yield from convolutions(inner)
