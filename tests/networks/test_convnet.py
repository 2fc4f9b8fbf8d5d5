import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.convnet import ConvDecoder, ConvEncoder

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (8, 12, 2)]


@pytest.mark.parametrize("event_shape", SHAPES)
def test_encoder_and_decoder_have_the_shapes_of_the_contract(event_shape):
    x = jax.random.normal(jax.random.key(0), (2, *event_shape))
    (mean, log_var), _ = jax.eval_shape(ConvEncoder((4, 6), 3, hidden=5).init_with_output, jax.random.key(1), x)
    assert mean.shape == log_var.shape == (2, 3)
    decoder = ConvDecoder((6, 4), event_shape, outputs_per_dim=2, hidden=5)
    outputs, _ = jax.eval_shape(decoder.init_with_output, jax.random.key(2), mean)
    assert outputs.shape == (2, *event_shape[:-1], 2 * event_shape[-1])


@pytest.mark.parametrize("shape", [(30, 28, 1), (28, 30, 1), (7, 7, 1)])
def test_sides_that_do_not_fit_the_stages_are_named(shape):
    with pytest.raises(UserError, match=f"{shape[0]}x{shape[1]}.*divisible by 4") as failure:
        ConvEncoder((4, 6), 3).init(jax.random.key(0), jnp.zeros((1, *shape)))
    assert len(str(failure.value).splitlines()) <= 3
    with pytest.raises(UserError, match=f"{shape[0]}x{shape[1]}"):
        ConvDecoder((6, 4), shape).init(jax.random.key(0), jnp.zeros((1, 3)))


def test_points_are_rejected():
    with pytest.raises(UserError, match=r"not examples of shape \(2,\)"):
        ConvEncoder((4, 6), 3).init(jax.random.key(0), jnp.zeros((1, 2)))


def test_fewer_stages_take_more_sizes():
    decoder = ConvDecoder((4,), (14, 14, 1))
    outputs, _ = jax.eval_shape(decoder.init_with_output, jax.random.key(0), jnp.zeros((1, 3)))
    assert outputs.shape == (1, 14, 14, 1)


def test_latents_reach_every_pixel_and_every_pixel_reaches_the_moments(randomized):
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    # tanh, because a relu may be dead everywhere.
    encoder = ConvEncoder((4, 6), 3, hidden=8, activation=jnp.tanh)
    decoder = ConvDecoder((6, 4), (8, 8, 1), hidden=8, activation=jnp.tanh)
    encoder_params = randomized(encoder, x)
    jacobian = jax.jit(jax.jacrev(lambda x: jnp.concatenate(encoder.apply(encoder_params, x))))(x)
    assert (np.abs(jacobian).sum((0, 1, 2)) > 0).all()
    z = jax.random.normal(jax.random.key(2), (1, 3))
    decoder_params = randomized(decoder, z)
    jacobian = jax.jit(jax.jacfwd(lambda z: decoder.apply(decoder_params, z)))(z)
    assert (np.abs(jacobian).sum((-1, -2)) > 0).all()


def conv_by_hand(of, h, stride=1):
    """A 3 x 3 convolution in float64 whose padding, if it strides, is at the end alone (SAME on even sides)."""
    before = 1 if stride == 1 else 0
    height, width = h.shape[1:3]
    padded = np.pad(h, ((0, 0), (before, 1), (before, 1), (0, 0)))
    out = 0.0
    for i, j in np.ndindex(3, 3):
        out = out + padded[:, i : i + height : stride, j : j + width : stride] @ of["kernel"][i, j]
    return out + of["bias"]


def test_encoder_and_decoder_equal_their_layers_by_hand(randomized):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    encoder, decoder = ConvEncoder((3, 4), 2, hidden=5), ConvDecoder((4, 3), (8, 8, 1), outputs_per_dim=2, hidden=5)
    params = randomized(encoder, x)
    of, relu = as_float64(params), lambda h: np.maximum(h, 0.0)
    h = np.asarray(x, np.float64)
    for stage in range(2):
        h = relu(conv_by_hand(of[f"Conv_{stage}"], h, stride=2))
    h = relu(h.reshape(2, -1) @ of["Dense_0"]["kernel"] + of["Dense_0"]["bias"])
    moments = h @ of["Dense_1"]["kernel"] + of["Dense_1"]["bias"]
    np.testing.assert_allclose(np.concatenate(encoder.apply(params, x), axis=1), moments, rtol=1e-4, atol=1e-4)

    z = jax.random.normal(jax.random.key(1), (2, 2))
    params = randomized(decoder, z)
    of, h = as_float64(params), np.asarray(z, np.float64)
    for layer in range(2):
        h = relu(h @ of[f"Dense_{layer}"]["kernel"] + of[f"Dense_{layer}"]["bias"])
    h = h.reshape(2, 2, 2, 4)
    for stage, channels in enumerate((3, 2)):
        squares = conv_by_hand(of[f"Conv_{stage}"], h).reshape(2, *h.shape[1:3], 2, 2, channels)
        h = squares.swapaxes(2, 3).reshape(2, 2 * h.shape[1], 2 * h.shape[2], channels)
        h = relu(h) if stage == 0 else h
    assert h.std() > 0.1
    np.testing.assert_allclose(decoder.apply(params, z), h, rtol=1e-4, atol=1e-4)


def as_float64(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])


def test_doubling_keeps_neighbours_together():
    # One lit pixel of the smallest map must light one connected patch around its place.
    decoder = ConvDecoder((1,), (8, 8, 1), hidden=4, activation=lambda h: h)
    params = decoder.init(jax.random.key(0), jnp.zeros((1, 3)))["params"]
    lit = jnp.zeros((4, 4)).at[1, 2].set(1.0).reshape(-1)
    params["Dense_1"] = {"kernel": jnp.zeros_like(params["Dense_1"]["kernel"]), "bias": lit}
    params["Conv_0"]["bias"] = jnp.zeros_like(params["Conv_0"]["bias"])
    rows, columns = np.nonzero(np.asarray(decoder.apply({"params": params}, jnp.zeros((1, 3))))[0, :, :, 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 5, 2, 7)


def test_bfloat16_compute_keeps_float32_parameters():
    decoder = ConvDecoder((6, 4), (8, 8, 1), dtype=jnp.bfloat16)
    outputs, variables = jax.eval_shape(decoder.init_with_output, jax.random.key(0), jnp.zeros((1, 3)))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
