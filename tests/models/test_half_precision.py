"""Families in bfloat16: what sums, normalises or measures is float32, as the jaxprs of their losses and log p show.

A sum of 256 ones in bfloat16 stays 256 if one adds another 1, and a logarithm has three digits. Products, convolutions
and activations of a network are where half precision is cheap and harmless.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks.accelerator import families
from gm_jax.networks.dcgan import DCGANDiscriminator
from gm_jax.networks.energy import EnergyConvNet
from gm_jax.networks.gan_mlp import MLPDiscriminator
from gm_jax.networks.gan_resnet import ResNetDiscriminator
from gm_jax.training import model_state

# Sums over many numbers, and the parts of softmaxes, entropies, likelihoods and log-determinants.
NOT_IN_HALF_PRECISION = {
    *("cumlogsumexp", "cumsum", "erf_inv", "exp", "expm1", "lgamma", "log", "log1p", "logsumexp", "reduce_prod"),
    "reduce_sum",
}
OF_ACTIVATIONS = {"pixelcnn++": {"expm1"}}  # ELUs
NAMES = [name for name, family in families.FAMILIES.items() if family.has_dtype]


def half_precision(jaxpr):
    """Counts the primitives, inner ones too, that have an operand in bfloat16."""
    found = collections.Counter()
    for equation in jaxpr.eqns:
        found[equation.primitive.name] += any(variable.aval.dtype == jnp.bfloat16 for variable in equation.invars)
        for inner in jaxprs_in_params(equation.params):
            found.update(half_precision(inner))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_likelihoods_of_a_network_in_bfloat16_sum_in_float32(name):
    family = families.FAMILIES[name]
    model, data = family.make("bfloat16"), families.batch(family)
    params, state = jax.eval_shape(model.init, jax.random.key(0), data)

    def measured(params, state, data):
        seen = model_state.local_view(state, model.sync, batch_size=families.BATCH, axis_name=None)
        found = [objective.loss(params, seen, jax.random.key(0), data)[0] for objective in model.objectives]
        if model.log_prob is not None:
            found.append(model.log_prob(params, state, jax.random.key(1), data["x"]).log_prob)
        return found

    closed = jax.make_jaxpr(measured)(params, state, data)
    assert {aval.dtype for aval in closed.out_avals} == {jnp.dtype(jnp.float32)}
    found = half_precision(closed.jaxpr)
    assert found["dot_general"] + found["conv_general_dilated"] > 0, "nothing is in half precision"
    in_half = {primitive for primitive, count in found.items() if count} & NOT_IN_HALF_PRECISION
    assert in_half == OF_ACTIVATIONS.get(name, set())


def test_the_search_finds_a_sum_a_logarithm_and_a_softmax():
    x = jnp.ones((4, 3), jnp.bfloat16)
    plain_sum = functools.partial(jax.lax.reduce, init_values=jnp.bfloat16(0), computation=jax.lax.add, dimensions=(0,))
    for function, name in ((plain_sum, "reduce_sum"), (jnp.log, "log"), (jax.jit(jax.nn.softmax), "exp")):
        assert half_precision(jax.make_jaxpr(function)(x).jaxpr)[name] == 1
    assert half_precision(jax.make_jaxpr(jnp.sum)(x).jaxpr)["reduce_sum"] == 0


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(DCGANDiscriminator, (4,)),
        functools.partial(MLPDiscriminator, (6,)),
        functools.partial(ResNetDiscriminator, 4),
        functools.partial(EnergyConvNet, (4,)),
    ],
)
def test_what_a_critic_says_is_float32(make):
    network, x = make(dtype=jnp.bfloat16), jnp.zeros((4, 8, 8, 1))
    outputs, _ = jax.eval_shape(functools.partial(network.init_with_output, train=True), jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.float32)}
