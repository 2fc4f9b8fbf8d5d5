import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks import unet

RNG = np.random.default_rng(0)
SMALL = {"features": (4, 8), "blocks": 1, "attention": (1,), "groups": 2, "head_dim": 4}


def inputs(batch=2, side=4, channels=1):
    x_t = jnp.asarray(RNG.normal(size=(batch, side, side, channels)), jnp.float32)
    return x_t, jnp.arange(1, batch + 1), jnp.arange(batch) % 3


@functools.cache
def applied(module):
    return jax.jit(module.apply, static_argnames="train")


def test_the_first_prediction_is_zero():
    module = unet.UNet((4,), groups=2)
    np.testing.assert_array_equal(module.init_with_output(jax.random.key(0), *inputs()[:2])[0], np.zeros((2, 4, 4, 1)))


def test_every_pixel_time_and_label_reach_every_pixel_of_their_own_example(randomized):
    module = unet.UNet(**SMALL, num_classes=3)
    x_t, t, label = inputs()
    params = randomized(module, x_t, t, label)
    jacobian = jax.jit(jax.jacrev(lambda x_t: module.apply(params, x_t, t, label).reshape(2, 16)))(x_t)
    sees = np.abs(jacobian.reshape(2, 16, 2, 16)) > 0
    assert sees[0, :, 0].all()
    assert sees[1, :, 1].all()
    assert not sees[0, :, 1].any()
    assert not sees[1, :, 0].any()
    whole = applied(module)(params, x_t, t, label)
    for moved in ((x_t, t.at[0].add(5), label), (x_t, t, label.at[0].set(2))):
        difference = np.abs(applied(module)(params, *moved) - whole)
        assert (difference[0] > 0).all()
        assert difference[1].max() < 1e-6


def test_dropout_is_for_training(randomized):
    module = unet.UNet(**SMALL, dropout=0.5)
    x_t, t, _ = inputs()
    params, apply = randomized(module, x_t, t), applied(module)
    draws = [apply(params, x_t, t, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 1e-2
    np.testing.assert_array_equal(apply(params, x_t, t), apply(params, x_t, t))


def test_the_unet_of_the_benchmark_has_the_parameters_of_its_peer():
    # Those of diffusers' UNet2DModel, less the biases of the keys of four attentions, which change nothing.
    module = unet.UNet((32, 64, 64), attention=(1,), head_dim=8)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)), jnp.ones(1, jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_112_801 - 4 * 64


def test_half_precision_ends_in_float32():
    module = unet.UNet(**SMALL, dtype=jnp.bfloat16)
    outputs = jax.eval_shape(module.init_with_output, jax.random.key(0), *inputs()[:2])[0]
    assert outputs.dtype == jnp.float32


def test_sides_double_by_repeating_each_place():
    h = jnp.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(unet._nearest_doubled(h), np.repeat(np.repeat(h, 2, axis=1), 2, axis=2))


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((2,), {}, "images"),
        ((6, 7, 1), {}, "divisible by 2"),
        ((4, 4, 1), {"groups": 8}, "8 groups"),
    ],
)
def test_what_does_not_fit_is_refused(shape, settings, message):
    module = unet.UNet(**{**SMALL, **settings})
    with pytest.raises(UserError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, *shape)), jnp.ones(1))
