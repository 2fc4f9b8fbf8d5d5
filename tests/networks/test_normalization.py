from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.normalization import (
    BatchNorm,
    GroupNorm,
    VirtualBatchNorm,
    WithReferenceBatch,
)

RNG = np.random.default_rng(0)
R, B, C = 5, 4, 3


def floats(*shape, scale=1.0, shift=0.0):
    return jnp.asarray(RNG.normal(shift, scale, shape), jnp.float32)


def drawn(module, x):
    """Draws all variables at random, biases included."""
    shapes = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), x)
    return jax.tree.map(lambda leaf: floats(*leaf.shape, scale=0.5), shapes)


# Group normalisation.

GROUP_PARAMS = {
    "scale": jnp.asarray(RNG.normal(size=6), jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=6), jnp.float32),
}


def group_norm_by_hand(h, groups):
    """Computes equation (1) in float64."""
    h = np.asarray(h, np.float64)
    split = h.reshape(len(h), -1, groups, h.shape[-1] // groups)
    mean, var = split.mean(axis=(1, 3), keepdims=True), split.var(axis=(1, 3), keepdims=True)
    normalized = ((split - mean) / np.sqrt(var + 1e-5)).reshape(h.shape)
    return normalized * np.asarray(GROUP_PARAMS["scale"], np.float64) + np.asarray(GROUP_PARAMS["bias"], np.float64)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 6), (3, 7, 6)])
def test_group_norm_normalises_each_group_over_all_places(shape):
    h = jnp.asarray(3.0 + 2.0 * RNG.normal(size=shape), jnp.float32)
    np.testing.assert_allclose(
        GroupNorm(3).apply({"params": GROUP_PARAMS}, h), group_norm_by_hand(h, 3), rtol=1e-4, atol=1e-5
    )


def test_group_norm_keeps_its_precision_at_a_large_mean():
    h = jnp.asarray(1e4 + RNG.normal(size=(2, 8, 8, 6)), jnp.float32)
    np.testing.assert_allclose(GroupNorm(2).apply({"params": GROUP_PARAMS}, h), group_norm_by_hand(h, 2), atol=1e-2)


def test_group_norm_of_a_constant_image_has_finite_values_and_gradients():
    apply = lambda h: GroupNorm(2).apply({"params": GROUP_PARAMS}, h)  # noqa: E731
    h = jnp.full((1, 4, 4, 6), 3.0)
    np.testing.assert_allclose(apply(h), jnp.broadcast_to(GROUP_PARAMS["bias"], h.shape), atol=1e-3)
    assert np.isfinite(jax.grad(lambda h: jnp.sum(jnp.square(apply(h))))(h)).all()


def test_group_norm_computes_statistics_of_half_precision_in_float32():
    # 300 squared overflows float16.
    h = jnp.asarray(300.0 * RNG.normal(size=(2, 4, 4, 6)), jnp.float16)
    y = GroupNorm(3, dtype=jnp.float16).apply({"params": GROUP_PARAMS}, h)
    assert y.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(y, np.float64), group_norm_by_hand(h, 3), atol=1e-2)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="4 groups do not divide 6"):
        GroupNorm(4).init(jax.random.key(0), jnp.ones((1, 2, 2, 6)))


# Batch normalisation.


def test_batch_norm_uses_the_batch_in_training_and_running_averages_afterwards():
    h = floats(64, 2, 2, C, scale=3.0, shift=2.0)
    norm = BatchNorm(momentum=0.9)
    variables = norm.init(jax.random.key(0), h, train=True)
    out, new_state = norm.apply(variables, h, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(np.mean(out, axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.var(out, axis=(0, 1, 2)), 1.0, atol=1e-3)
    (stats,) = new_state["batch_stats"].values()
    x = np.asarray(h)
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-4)
    after = norm.apply({**variables, **new_state}, h[:1], train=False)
    expected = (x[:1] - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_forget_a_tenth_at_each_batch_by_default():
    norm, batches = BatchNorm(), [floats(32, C, scale=2.0, shift=shift) for shift in (1.0, -3.0, 0.5)]
    variables = norm.init(jax.random.key(0), batches[0], train=True)
    mean, var = np.zeros(C), np.ones(C)
    for h in batches:
        _, state = norm.apply(variables, h, train=True, mutable=["batch_stats"])
        variables = {**variables, **state}
        x = np.asarray(h, np.float64)
        mean, var = 0.9 * mean + 0.1 * x.mean(axis=0), 0.9 * var + 0.1 * x.var(axis=0)
    (stats,) = variables["batch_stats"].values()
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-4)


@pytest.mark.parametrize("axis_name", [None, "batch"])
def test_batch_norm_keeps_its_precision_at_a_large_mean(axis_name):
    h = floats(64, 4, 4, C, scale=1.0, shift=1e4)
    variables = BatchNorm(axis_name=axis_name).init(jax.random.key(0), h, train=True)

    def apply(h):
        return BatchNorm(axis_name=axis_name).apply(variables, h, train=True, mutable=["batch_stats"])

    out, new_state = jax.vmap(apply, axis_name="batch")(h[None])
    x = np.asarray(h, np.float64)
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    # One float32 at 1e4 is 1e-3 from the next, and so is the mean.
    np.testing.assert_allclose(out[0], (x - mean) / np.sqrt(var + 1e-5), atol=2e-2)
    (stats,) = new_state["batch_stats"].values()
    np.testing.assert_allclose(stats["var"][0], 0.9 + 0.1 * var, rtol=1e-3)


def test_batch_norm_with_an_axis_name_equals_that_of_the_whole_batch():
    h = floats(8, C, shift=1.0)
    variables = BatchNorm(axis_name="batch").init(jax.random.key(0), h, train=True)  # outside any map

    def apply(norm, h):
        return norm.apply(variables, h, train=True, mutable=["batch_stats"])

    whole, whole_state = apply(BatchNorm(), h)
    parts, states = jax.vmap(partial(apply, BatchNorm(axis_name="batch")), axis_name="batch")(h.reshape(2, 4, C))
    np.testing.assert_allclose(parts.reshape(8, C), whole, atol=1e-5)
    for one, other in zip(jax.tree.leaves(states), jax.tree.leaves(whole_state), strict=True):
        np.testing.assert_allclose(one[1], other, rtol=1e-5, atol=1e-7)
    local, _ = jax.vmap(partial(apply, BatchNorm()), axis_name="batch")(h.reshape(2, 4, C))
    assert np.abs(np.asarray(local.reshape(8, C) - whole)).max() > 0.01


# Virtual batch normalisation.


def virtual(h, *, seed=1, dtype=None):
    """Returns (apply, scale, bias) of the module on h [R + B, ..., C], with random scale and bias."""
    norm = VirtualBatchNorm(R, dtype=dtype)
    scale, bias = jnp.asarray(np.random.default_rng(seed).normal(size=(2, h.shape[-1])), jnp.float32)
    return jax.jit(lambda h: norm.apply({"params": {"scale": scale, "bias": bias}}, h, train=True)), scale, bias


@pytest.mark.parametrize("shape", [(C,), (2, 4, C)])
def test_virtual_batch_norm_equals_the_formula_of_reference_and_example(shape):
    h = floats(R + B, *shape, scale=2.0, shift=1.0)
    apply, scale, bias = virtual(h)
    out, x = np.asarray(apply(h)), np.asarray(h, np.float64)
    axes = tuple(range(len(shape)))  # batch and places
    for i in range(B):
        together = np.concatenate([x[:R], x[R + i : R + i + 1]])
        mean, var = together.mean(axis=axes), together.var(axis=axes)
        expected = (x[R + i] - mean) / np.sqrt(var + 1e-5) * np.asarray(scale) + np.asarray(bias)
        np.testing.assert_allclose(out[R + i], expected, rtol=1e-4, atol=1e-5)
    mean, var = x[:R].mean(axis=axes), x[:R].var(axis=axes)
    expected = (x[:R] - mean) / np.sqrt(var + 1e-5) * np.asarray(scale) + np.asarray(bias)
    np.testing.assert_allclose(out[:R], expected, rtol=1e-4, atol=1e-5)


def test_the_reference_batch_is_normalised_to_mean_zero_and_variance_one():
    h = floats(R + B, 4, 4, C, scale=2.0, shift=1.0)
    params = {"scale": jnp.ones(C), "bias": jnp.zeros(C)}
    out = np.asarray(VirtualBatchNorm(R).apply({"params": params}, h, train=True)[:R])
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(out.var(axis=(0, 1, 2)), 1.0, atol=1e-4)


def test_an_example_depends_only_on_itself_and_on_the_reference():
    h = floats(R + B, 2, C)
    jacobian = np.abs(jax.jit(jax.jacrev(virtual(h)[0]))(h)).max(axis=(1, 2, 4, 5))  # [R + B, R + B]
    np.testing.assert_array_equal(jacobian[R:, R:] > 0, np.eye(B, dtype=bool))
    assert np.all(jacobian[R:, :R] > 0)
    assert np.all(jacobian[:R, :R] > 0)
    assert np.all(jacobian[:R, R:] == 0)


def test_a_large_common_offset_does_not_cancel_the_variance():
    h = floats(R + B, 4, C)
    apply = virtual(h)[0]
    far = h + 1e4
    # One float32 at 1e4 is 1e-3 from the next: the noise itself is rounded.
    np.testing.assert_allclose(apply(far), apply(far - 1e4), atol=5e-3)


def test_virtual_batch_norm_computes_its_statistics_in_float32():
    h = floats(R + B, 4, C).astype(jnp.bfloat16)
    out = virtual(h, dtype=jnp.bfloat16)[0](h)
    assert out.dtype == jnp.bfloat16
    exact = virtual(h)[0](h.astype(jnp.float32))
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


# A network with a reference batch.


def generator_of_points():
    network = WithReferenceBatch(partial(MLPGenerator, (8, 8), (2,), activation=jnp.tanh))
    reference = floats(R, 3)
    return network, reference, drawn(network, reference) | {"reference_batch": {"x": reference}}


def test_the_batch_given_to_init_stays_the_reference():
    network, reference, variables = generator_of_points()
    variables = jax.jit(partial(network.init, train=True))(jax.random.key(0), reference)
    np.testing.assert_array_equal(variables["reference_batch"]["x"], reference)
    state = {"reference_batch": variables["reference_batch"]}
    step = jax.jit(lambda state, z: network.apply({**variables, **state}, z, train=True, mutable=list(state))[1])
    for _ in range(3):
        state = step(state, floats(B, 3))
    np.testing.assert_array_equal(state["reference_batch"]["x"], reference)


def test_a_sample_depends_on_the_reference_but_not_on_its_batch_or_train():
    network, reference, variables = generator_of_points()
    z = floats(B, 3)
    apply, training = (jax.jit(partial(network.apply, train=train)) for train in (False, True))
    jacobian = np.abs(jax.jit(jax.jacrev(lambda z: network.apply(variables, z, train=True)))(z)).max(axis=(1, 3))
    np.testing.assert_array_equal(jacobian > 0, np.eye(B, dtype=bool))
    np.testing.assert_allclose(training(variables, z[:1]), apply(variables, z)[:1], atol=1e-6)
    other = {**variables, "reference_batch": {"x": reference + 1.0}}
    assert np.abs(np.asarray(apply(other, z) - apply(variables, z))).max() > 1e-3


def test_the_reference_passes_through_the_same_network():
    # By hand: the second layer sees the normalised reference, not the raw one.
    network, reference, variables = generator_of_points()
    z = floats(B, 3)
    (params,) = variables["params"].values()
    h = np.concatenate([np.asarray(reference), np.asarray(z)])
    for layer in range(2):
        h = h @ np.asarray(params[f"Dense_{layer}"]["kernel"])
        assert set(params[f"Dense_{layer}"]) == {"kernel"}  # the norm has the bias
        own = [np.concatenate([h[:R], h[R + i : R + i + 1]]) for i in range(B)]
        examples = [(h[R + i] - t.mean(0)) / np.sqrt(t.var(0) + 1e-5) for i, t in enumerate(own)]
        h = np.concatenate([(h[:R] - h[:R].mean(0)) / np.sqrt(h[:R].var(0) + 1e-5), examples])
        norm = params[f"VirtualBatchNorm_{layer}"]
        h = np.tanh(h * np.asarray(norm["scale"]) + np.asarray(norm["bias"]))
    expected = h[R:] @ np.asarray(params["Dense_2"]["kernel"]) + np.asarray(params["Dense_2"]["bias"])
    out = jax.jit(partial(network.apply, train=True))(variables, z)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_a_discriminator_with_a_reference_batch_returns_only_the_examples():
    network = WithReferenceBatch(partial(MLPDiscriminator, (6, 7)))
    variables = jax.eval_shape(partial(network.init, train=True), jax.random.key(0), floats(R, 2))
    logits, features = jax.eval_shape(partial(network.apply, train=True), variables, floats(B, 2))
    assert (logits.shape, features.shape) == ((B,), (B, 7))


def test_a_reference_batch_needs_two_examples():
    network = WithReferenceBatch(partial(MLPGenerator, (8,), (2,)))
    with pytest.raises(ValueError, match="at least 2 examples"):
        network.init(jax.random.key(0), floats(1, 3), train=True)


def test_virtual_batch_norm_agrees_with_itself_under_jit_and_vmap():
    x = floats(3, R + B, 5)
    function = virtual(floats(R + B, 5))[0]
    plain = jnp.stack([function(row) for row in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(x), plain, rtol=1e-5, atol=1e-5)
