"""Residual generator and discriminator: their contract, their sizes, and blocks written out by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.gan_resnet import ResidualBlock, ResNetDiscriminator, ResNetGenerator
from gm_jax.networks.normalization import BatchNorm
from gm_jax.networks.unet import halve, upsample_nearest

B, Z = 3, 5


def count(module, x):
    shapes = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), x)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_the_networks_have_as_many_parameters_as_the_papers():
    """By hand, of tables 3 and 4 of SNGAN's paper and appendix F of WGAN-GP's."""

    def up(f):  # two 3x3 convolutions, a 1x1 convolution, two batch norms
        return 2 * (9 * f * f + f) + f * f + f + 4 * f

    def generator(f):
        return 128 * 16 * f + 16 * f + 3 * up(f) + 2 * f + 27 * f + 3

    def discriminator(f):
        plain = 2 * (9 * f * f + f)
        first = 27 * f + f + 9 * f * f + f + 3 * f + f
        return first + plain + f * f + f + 2 * plain + f

    z, x = jnp.zeros((B, 128)), jnp.zeros((B, 32, 32, 3))
    assert count(ResNetGenerator((32, 32, 3), 256, 3), z) == generator(256) == 4_276_739
    assert count(ResNetGenerator((32, 32, 3), 128, 3), z) == generator(128) == 1_204_483
    assert count(ResNetDiscriminator(128, output_bias=False), x) == discriminator(128) == 1_053_824
    assert count(ResNetDiscriminator(128, spectral_norm=True), x) == discriminator(128) + 1


@pytest.mark.parametrize("settings", [{}, {"spectral_norm": True}, {"norm": BatchNorm, "pool": jnp.mean}])
@pytest.mark.parametrize(("event_shape", "stages"), [((8, 8, 1), 1), ((32, 32, 3), 3), ((8, 12, 2), 2)])
def test_generator_and_discriminator_have_the_shapes_of_the_contract(event_shape, stages, settings):
    def outputs(module, x):
        return jax.eval_shape(partial(module.init_with_output, train=True), jax.random.key(0), x)[0]

    assert outputs(ResNetGenerator(event_shape, 4, stages), jnp.zeros((B, Z))).shape == (B, *event_shape)
    logits, features = outputs(ResNetDiscriminator(4, **settings), jnp.zeros((B, *event_shape)))
    assert (logits.shape, features.shape) == ((B,), (B, 4))


def conv(h, kernel, bias):
    """A convolution of odd size that keeps the sides, tap by tap."""
    side = kernel.shape[0] // 2
    padded = np.pad(h, [(0, 0), (side, side), (side, side), (0, 0)])
    height, width = h.shape[1:3]
    taps = np.ndindex(kernel.shape[:2])
    return bias + sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in taps)


def mean_of_four(h):
    return (h[:, ::2, ::2] + h[:, 1::2, ::2] + h[:, ::2, 1::2] + h[:, 1::2, 1::2]) / 4


def repeat(h):
    return h.repeat(2, axis=1).repeat(2, axis=2)


def relu(h):
    return np.maximum(h, 0.0)


@pytest.mark.parametrize("kind", ["up", "down", "plain", "first"])
def test_a_block_is_its_equation(kind, x64):
    rng = np.random.default_rng(0)
    features = 3 if kind == "plain" else 4
    x = rng.normal(size=(2, 4, 6, 3))
    settings = {"up": {"before": upsample_nearest}, "down": {"after": halve}, "plain": {}}
    block = ResidualBlock(features, **settings.get(kind, {"after": halve, "first": True}))
    shapes = jax.eval_shape(partial(block.init, train=True), jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    a, b, *shortcut = ((params[name]["kernel"], params[name]["bias"]) for name in sorted(params))
    expected = {
        "up": lambda: conv(repeat(x), *shortcut[0]) + conv(relu(conv(repeat(relu(x)), *a)), *b),
        "down": lambda: mean_of_four(conv(x, *shortcut[0])) + mean_of_four(conv(relu(conv(relu(x), *a)), *b)),
        "plain": lambda: x + conv(relu(conv(relu(x), *a)), *b),
        "first": lambda: conv(mean_of_four(x), *shortcut[0]) + mean_of_four(conv(relu(conv(x, *a)), *b)),
    }[kind]()
    found = block.apply({"params": params}, jnp.asarray(x), train=True)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_the_features_are_the_sum_or_the_mean_over_the_places():
    x = jax.random.normal(jax.random.key(0), (B, 8, 8, 1))
    variables = ResNetDiscriminator(4).init(jax.random.key(1), x, train=True)
    _, total = ResNetDiscriminator(4).apply(variables, x, train=True)
    _, mean = ResNetDiscriminator(4, pool=jnp.mean).apply(variables, x, train=True)
    assert float(jnp.abs(total).max()) > 0.1
    np.testing.assert_allclose(total, 4 * mean, rtol=1e-5)


def test_images_whose_sides_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="divisible by 4"):
        ResNetDiscriminator(4).init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), train=True)
