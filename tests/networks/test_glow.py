import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import flow as losses
from gm_jax.networks.conditioners import ConvConditioner
from gm_jax.networks.couplings import ActNorm, Chain, Coupling, InvertibleConv, Repeated, affine
from gm_jax.networks.glow import ChannelPrior, ConditionalPrior, Glow, GlowStep


def test_log_determinants_equal_autodiff_and_both_directions_are_inverse(check_flow):
    found = check_flow(Glow((4, 8, 3), scales=2, steps=2, features=3), (4, 8, 3), scale=0.1)
    assert found.z.shape == (3, 96)
    assert np.ptp(found.log_det) > 1e-3


@pytest.mark.slow
def test_a_deep_chain_is_invertible_in_float32(check_deep_chain):
    check_deep_chain(Glow((8, 8, 1), scales=3, steps=8, features=8), (8, 8, 1), scale=0.05)


def test_a_chain_in_half_precision_is_invertible_to_a_few_hundredths(random_variables):
    """A coupling's input differs in the last digit on the way back, which rounds a few entries to another bfloat16."""
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype(np.float32)
    module = Glow((4, 4, 1), scales=1, steps=16, features=16, dtype=jnp.bfloat16)
    variables = random_variables(module, x, scale=0.05)
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, variables)
    z, log_det = jax.jit(lambda x: module.apply(variables, x, method="forward"))(x)
    assert z.dtype == log_det.dtype == jnp.float32
    back, log_det_back = jax.jit(lambda z: module.apply(variables, z, method="inverse"))(z)
    worst = np.abs(back - x).max(axis=(1, 2, 3))
    assert np.median(worst) < 1e-4
    assert worst.max() < 0.05
    np.testing.assert_allclose(log_det_back, -log_det, atol=0.05)


@pytest.mark.parametrize("method", ["forward", "inverse"])
@pytest.mark.parametrize("remat", [False, True])
def test_steps_with_a_prepared_map_equal_their_three_layers_in_sequence(random_variables, x64, method, remat):
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 6))
    layers = [ActNorm(6), InvertibleConv(6), Coupling(6, affine(bound=2.0), partial(ConvConditioner, features=4))]
    prepared, plain = Repeated(GlowStep(layers), 3, remat), Repeated(Chain(layers), 3)
    variables = random_variables(plain, x, scale=0.1)

    def loss(params, x, module):
        y, log_det = module.apply({**variables, "params": params}, x, method=method)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(log_det)), (y, log_det)

    results = [
        jax.jit(jax.value_and_grad(partial(loss, module=module), argnums=(0, 1), has_aux=True))(variables["params"], x)
        for module in (prepared, plain)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10), *results)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(results[1][1]))


def test_only_the_inputs_of_recomputed_steps_are_stored(random_variables):
    x = np.zeros((3, 4, 4, 6), np.float32)
    layers = [ActNorm(6), InvertibleConv(6), Coupling(6, affine(bound=2.0), partial(ConvConditioner, features=9))]

    def stored(remat):
        steps = Repeated(GlowStep(layers), 5, remat)
        variables = random_variables(steps, x, scale=0.1)
        fixed, params = variables["fixed"], variables["params"]
        loss = jax.grad(lambda params: jnp.sum(steps.apply({"fixed": fixed, "params": params}, x, method="forward")[0]))
        return [name for name in ("f32[5,3,4,4,6]", "f32[5,3,4,4,9]") if name in str(jax.make_jaxpr(loss)(params))]

    assert stored(remat=True) == ["f32[5,3,4,4,6]"]
    assert "f32[5,3,4,4,9]" in stored(remat=False)


@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_the_maps_of_the_channels_are_joined_before_the_scan(random_variables, method):
    x = np.zeros((3, 4, 4, 6), np.float32)
    layers = [ActNorm(6), InvertibleConv(6), Coupling(6, affine(bound=2.0), partial(ConvConditioner, features=4))]

    def body(step):
        steps = Repeated(step, 5)
        variables = random_variables(steps, x, scale=0.1)
        traced = jax.make_jaxpr(lambda variables: steps.apply(variables, x, method=method))(variables)
        (scan,) = (eqn for eqn in traced.eqns if eqn.primitive.name == "scan")
        return str(scan.params["jaxpr"])

    # What computes a matrix in the body: [6, 6] is the size of the factors of a 1x1 convolution.
    made = [
        re.findall(r":f32\[6,6\] = (?!pjit|slice|squeeze)(\w+)", body(step))
        for step in (GlowStep(layers), Chain(layers))
    ]
    assert made[0] == []
    assert made[1] != []


@pytest.mark.parametrize("given", [True, False])
def test_a_standardised_part_has_its_normal_log_density(random_variables, x64, given):
    part, rest = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4))
    if given:
        module = ConditionalPrior(4, bound=2.0)
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), part, rest, method="forward"))
        rng = np.random.default_rng(1)
        variables = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape), shapes)
        mean, raw = np.split(np.asarray(module.apply(variables, rest, method=lambda m, x: m.moments(x))), 2, axis=-1)
        log_scale, arguments = 2.0 * np.tanh(raw / 2.0), (part, rest)
    else:
        module = ChannelPrior(4)
        variables = random_variables(module, part)
        mean, log_scale = (np.broadcast_to(variables["params"][name], part.shape) for name in ("mean", "log_scale"))
        arguments = (part,)
    z, log_det = module.apply(variables, *arguments, method="forward")
    literature = losses.normal_log_prob(part, mean, 2.0 * log_scale)
    np.testing.assert_allclose(losses.standard_normal_log_prob(z) + log_det, literature, rtol=1e-12)


def test_glow_starts_with_standard_priors_and_rotations():
    x = np.random.default_rng(0).normal(size=(16, 4, 4, 1)).astype(np.float32)
    module = Glow((4, 4, 1), scales=1, steps=2, features=3)
    variables = jax.jit(lambda x: module.init(jax.random.key(0), x, method="forward"))(x)
    params = variables["params"]["multi_scale"]["stages_0"]
    assert sorted(variables["fixed"]["multi_scale"]["stages_0"]["layers_1"]["layer"]["layers_1"]) == [
        "permutation",
        "sign",
    ]
    assert not np.any(params["layers_2"]["mean"])
    z, log_det = module.apply(variables, x, method="forward")
    # At first only the first actnorm changes the volume, because later inputs are already standardised.
    np.testing.assert_allclose(np.mean(np.square(z)), 1.0, rtol=1e-4)
    actnorm = params["layers_1"]["layer"]["layers_0"]
    np.testing.assert_allclose(log_det, np.full(16, 4 * actnorm["log_scale"].sum()), rtol=1e-4)
