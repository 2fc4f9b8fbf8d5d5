from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import couplings
from gm_jax.networks.conditioners import MLPConditioner
from gm_jax.networks.couplings import ActNorm, Chain, Coupling, InvertibleConv, Repeated

TRANSFORMS = {
    "additive": couplings.additive(),
    "affine": couplings.affine(bound=2.0),
    "rational_quadratic": couplings.rational_quadratic(num_bins=4, bound=3.0),
}
SMALL = partial(MLPConditioner, hidden=(5,))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
@pytest.mark.parametrize("flipped", [False, True])
def test_a_coupling_keeps_one_part_and_transforms_the_other_given_it(random_variables, x64, transform, flipped):
    x = np.random.default_rng(0).normal(size=(4, 5))
    module = Coupling(5, transform, SMALL, flipped=flipped)
    variables = random_variables(module, x)
    forward = jax.jit(lambda x: module.apply(variables, x, method="forward"))
    kept, moved = (slice(2, 5), slice(0, 2)) if flipped else (slice(0, 2), slice(2, 5))
    z, log_det = forward(x)
    np.testing.assert_array_equal(z[:, kept], x[:, kept])
    assert np.all(np.asarray(z)[:, moved] != x[:, moved])
    # Each transformed entry depends on its own input and on the kept part only.
    jacobian = np.asarray(jax.jit(jax.vmap(jax.jacrev(lambda x: forward(x[None])[0][0])))(x))[:, moved]
    by_moved, by_kept = jacobian[:, :, moved], jacobian[:, :, kept]
    alone = np.eye(by_moved.shape[1], dtype=bool)
    np.testing.assert_array_equal(by_moved != 0.0, np.broadcast_to(alone, by_moved.shape))
    assert np.all(by_kept.any(axis=0))
    back, log_det_back = module.apply(variables, z, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)


def test_a_coupling_starts_as_the_identity():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    for transform in TRANSFORMS.values():
        module = Coupling(5, transform, SMALL)
        variables = module.init(jax.random.key(0), x, method="forward")
        z, log_det = module.apply(variables, x, method="forward")
        np.testing.assert_allclose(z, x, atol=1e-6)
        np.testing.assert_allclose(log_det, np.zeros(4), atol=1e-6)


def test_half_precision_affects_only_the_networks(random_variables):
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    module = Coupling(6, couplings.affine(bound=2.0), partial(MLPConditioner, hidden=(8,), dtype=jnp.bfloat16))
    variables = jax.tree.map(np.float32, random_variables(module, x, scale=1.0))
    z, log_det = module.apply(variables, x, method="forward")
    assert z.dtype == log_det.dtype == jnp.float32
    # Both directions use the same rounded parameters, so one coupling stays invertible to float32. A chain does not:
    # tests/networks/test_glow.py.
    np.testing.assert_allclose(module.apply(variables, z, method="inverse")[0], x, atol=1e-5)


def test_actnorm_standardises_only_its_first_batch():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(16, 3, 3, 2)).astype(np.float32) * 3.0 + 5.0 for _ in range(2))
    module = ActNorm(2)
    variables = module.init(jax.random.key(0), first, method="forward")
    z, _ = module.apply(variables, first, method="forward")
    np.testing.assert_allclose(np.mean(z, axis=(0, 1, 2)), np.zeros(2), atol=1e-5)
    np.testing.assert_allclose(np.var(z, axis=(0, 1, 2)), np.ones(2), atol=1e-5)
    again, _ = module.apply(variables, second + 1.0, method="forward")
    assert np.abs(np.mean(again, axis=(0, 1, 2))).min() > 0.2
    # The output for an example does not depend on its batch.
    alone, _ = module.apply(variables, second[:1] + 1.0, method="forward")
    np.testing.assert_allclose(alone, again[:1], rtol=1e-6)


def test_repeated_actnorms_start_from_the_batch_that_arrives_at_their_layer():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) * 4.0 + 1.0
    layer = Chain([InvertibleConv(4), ActNorm(4), Stretch()])
    module = Repeated(layer, 3)
    variables = jax.jit(lambda x: module.init(jax.random.key(0), x, method="forward"))(x)
    z, _ = module.apply(variables, x, method="forward")
    for k in range(3):
        own = jax.tree.map(lambda leaf, k=k: leaf[k], {name: variables[name]["layer"] for name in variables})
        convolution, actnorm = ({name: own[name].get(f"layers_{i}", {}) for name in own} for i in (0, 1))
        x, _ = InvertibleConv(4).apply(convolution, x, method="forward")
        x, _ = ActNorm(4).apply(actnorm, x, method="forward")
        np.testing.assert_allclose(np.mean(x, axis=0), np.zeros(4), atol=1e-5)
        np.testing.assert_allclose(np.var(x, axis=0), np.ones(4), atol=1e-4)
        x, _ = Stretch().forward(x)
    np.testing.assert_allclose(z, x, rtol=1e-4, atol=1e-4)


class Stretch(nn.Module):
    """A layer without parameters whose output is not standardised."""

    def forward(self, x):
        return 3.0 * x + 2.0, jnp.full(x.shape[0], x.shape[1] * jnp.log(3.0), x.dtype)

    def inverse(self, z):
        return (z - 2.0) / 3.0, jnp.full(z.shape[0], -z.shape[1] * jnp.log(3.0), z.dtype)


def test_repeated_equals_the_layers_in_sequence(random_variables, x64):
    x = np.random.default_rng(0).normal(size=(4, 5))
    layer = Chain([ActNorm(5), InvertibleConv(5), Coupling(5, couplings.affine(bound=2.0), SMALL)])
    module = Repeated(layer, 3)
    variables = random_variables(module, x)
    each = [
        jax.tree.map(lambda leaf, k=k: leaf[k], {name: variables[name]["layer"] for name in variables})
        for k in range(3)
    ]
    expected, total = x, 0.0
    for own in each:
        expected, log_det = layer.apply(own, expected, method="forward")
        total += log_det
    z, log_det = jax.jit(lambda x: module.apply(variables, x, method="forward"))(x)
    np.testing.assert_allclose(z, expected, rtol=1e-10)
    np.testing.assert_allclose(log_det, total, rtol=1e-10)


def test_an_invertible_convolution_starts_as_a_rotation_with_fixed_permutation_and_signs():
    x = np.random.default_rng(0).normal(size=(4, 2, 2, 6)).astype(np.float32)
    module = InvertibleConv(6)
    variables = jax.jit(lambda x: module.init(jax.random.key(0), x, method="forward"))(x)
    z, log_det = module.apply(variables, x, method="forward")
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(log_det, np.zeros(4), atol=1e-4)
    assert np.abs(np.asarray(z) - x).max() > 0.1
    assert sorted(variables["params"]) == ["log_abs_diagonal", "lower", "upper"]
    assert sorted(variables["fixed"]) == ["permutation", "sign"]
    assert sorted(variables["fixed"]["permutation"].tolist()) == list(range(6))
    other = jax.jit(lambda x: module.init(jax.random.key(1), x, method="forward"))(x)
    assert np.any(np.asarray(variables["params"]["upper"]) != np.asarray(other["params"]["upper"]))


def test_a_coupling_of_one_channel_is_refused():
    module = Coupling(1, couplings.additive(), SMALL)
    with pytest.raises(ValueError, match="needs two parts, so at least 2 channels, got 1"):
        module.init(jax.random.key(0), np.zeros((2, 1)), method="forward")
