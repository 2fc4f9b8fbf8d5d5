from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator, leaky_relu
from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
from gm_jax.networks.normalization import BatchNorm

B, Z = 4, 3


def floats(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(module, x):
    """Draws all variables at random, biases included."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), x)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def dense(h, params):
    return h @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def test_the_generator_equals_its_composition_by_hand():
    generator, z = MLPGenerator((5, 6), (2,), activation=jnp.tanh), floats(B, Z)
    variables = drawn(generator, z)
    h = np.asarray(z)
    for layer in range(2):
        h = np.tanh(dense(h, variables["params"][f"Dense_{layer}"]))
    expected = dense(h, variables["params"]["Dense_2"])
    np.testing.assert_allclose(generator.apply(variables, z, train=True), expected, atol=1e-5)


def test_the_discriminator_equals_its_composition_and_returns_the_last_activations():
    discriminator, x = MLPDiscriminator((5, 6)), floats(B, 2)
    variables = drawn(discriminator, x)
    h = np.asarray(x)
    for layer in range(2):
        h = dense(h, variables["params"][f"Dense_{layer}"])
        h = np.where(h > 0, h, 0.2 * h)
    logits, features = discriminator.apply(variables, x, train=True)
    np.testing.assert_allclose(features, h, atol=1e-5)
    np.testing.assert_allclose(logits, dense(h, variables["params"]["Dense_2"])[:, 0], atol=1e-5)


@pytest.mark.parametrize("event_shape", [(2,), (8, 8, 1), (5, 7, 3)])
def test_generator_and_discriminator_have_the_shapes_of_the_contract(event_shape):
    generator = MLPGenerator((6,), event_shape, BatchNorm, output_activation=jnp.tanh)
    x, _ = jax.eval_shape(partial(generator.init_with_output, train=True), jax.random.key(0), floats(B, Z))
    assert x.shape == (B, *event_shape)
    discriminator = MLPDiscriminator((5, 6), BatchNorm, minibatch_discrimination=MinibatchDiscrimination(3, 2))
    (logits, features), _ = jax.eval_shape(partial(discriminator.init_with_output, train=True), jax.random.key(0), x)
    assert (logits.shape, features.shape) == ((B,), (B, 6))


def test_only_images_pass_through_the_output_activation():
    z = 100.0 * floats(B, Z)
    points, images = MLPGenerator((6,), (2,)), MLPGenerator((6,), (2,), output_activation=jnp.tanh)
    variables = drawn(points, z)
    out = points.apply(variables, z, train=True)
    assert np.abs(out).max() > 1.0
    np.testing.assert_allclose(images.apply(variables, z, train=True), np.tanh(out), atol=1e-5)


def test_norms_follow_hidden_layers_without_a_bias_except_at_the_discriminator_input():
    shapes = lambda module, x: jax.eval_shape(partial(module.init, train=True), jax.random.key(0), x)  # noqa: E731
    generator = shapes(MLPGenerator((5, 6), (2,), BatchNorm), floats(B, Z))
    discriminator = shapes(MLPDiscriminator((5, 6, 7), BatchNorm), floats(B, 2))
    biases = [
        ["bias" in variables["params"][f"Dense_{layer}"] for layer in range(layers)]
        for variables, layers in ((generator, 3), (discriminator, 4))
    ]
    assert biases == [[False, False, True], [True, False, False, True]]
    assert [len(variables["batch_stats"]) for variables in (generator, discriminator)] == [2, 2]


def test_spectral_norm_covers_every_kernel_and_the_output_bias_is_optional():
    module = MLPDiscriminator((5, 6), spectral_norm=True, output_bias=False)
    variables = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), floats(B, 2))
    assert [leaf.shape for leaf in jax.tree.leaves(variables["spectral_norm"])] == [(5,), (6,), (1,)]
    assert set(variables["params"]["Dense_2"]) == {"kernel"}


def test_a_spectrally_normalised_discriminator_is_lipschitz():
    # Each linear map has norm 1 at most, and leaky relu has slope 1 at most.
    module, x = MLPDiscriminator((8, 8), spectral_norm=True), floats(32, 2)
    variables = drawn(module, x)
    state = {"spectral_norm": variables["spectral_norm"]}
    step = jax.jit(lambda state: module.apply({**variables, **state}, x, train=True, mutable=["spectral_norm"])[1])
    for _ in range(50):
        state = step(state)
    slope = jax.vmap(jax.grad(lambda x: module.apply({**variables, **state}, x[None], train=False)[0][0]))
    steepest = np.linalg.norm(jax.jit(slope)(10.0 * x), axis=-1).max()
    assert 0.0 < steepest <= 1.0 + 1e-4


def test_leaky_relu_has_slope_one_fifth_below_zero():
    np.testing.assert_allclose(leaky_relu(jnp.array([-10.0, 0.0, 3.0])), [-2.0, 0.0, 3.0])


def test_bfloat16_compute_keeps_float32_parameters():
    for module, x in ((MLPGenerator((6,), (2,), dtype=jnp.bfloat16), floats(B, Z)),):
        out, variables = jax.eval_shape(partial(module.init_with_output, train=True), jax.random.key(0), x)
        assert out.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_jit_and_vmap_agree():
    x, module = floats(3, B, 2), MLPDiscriminator((5, 6), minibatch_discrimination=MinibatchDiscrimination(3, 2))
    variables = drawn(module, x[0])
    apply = partial(module.apply, variables, train=True)
    mapped = jax.jit(jax.vmap(apply))(x)
    for i in range(3):
        for one, other in zip(mapped, apply(x[i]), strict=True):
            np.testing.assert_allclose(one[i], other, atol=1e-5)
