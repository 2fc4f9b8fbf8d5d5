import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.pixelcnn import GatedPixelCNN, PixelCNN

NETWORKS = {"pixelcnn": PixelCNN, "gated": GatedPixelCNN}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


@each_network
def test_no_output_depends_on_its_own_or_later_levels(dependencies, network):
    sees = dependencies(network((3, 4, 3), 2, 2, features=12, layers=2, first_size=5))
    assert not np.triu(sees).any()
    assert sees[1:].any(axis=1).all()


def test_gated_pixelcnn_has_no_blind_spot(dependencies):
    sees = dependencies(GatedPixelCNN((5, 5, 1), 2, 1, features=8, layers=4, first_size=3))
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def test_gated_pixelcnn_sees_everything_before_a_colour(dependencies):
    sees = dependencies(GatedPixelCNN((3, 3, 3), 4, 2, features=12, layers=3, first_size=3))
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def test_pixelcnn_has_the_blind_spot_of_stacked_masks(dependencies):
    side = 5
    sees = dependencies(PixelCNN((side, side, 1), 2, 1, features=8, layers=5, first_size=3))
    for i, j in np.ndindex(sees.shape):
        (r, c), (s, d) = divmod(i, side), divmod(j, side)
        # Each layer climbs one row and moves at most one column to the right, so it is blind beyond 45 degrees.
        assert sees[i, j] == (j < i and d - c <= r - s), ((r, c), (s, d))
    blind = np.tril(~sees, -1)
    assert blind.any()


@each_network
def test_the_mask_a_layer_has_no_residual(dependencies, network):
    # With a residual or mask B in the first layer a pixel would see itself; with mask A in later layers it would see
    # less than two pixels.
    module = network((1, 4, 1), 2, 1, features=8, layers=1, first_size=3)
    sees = dependencies(module)
    np.testing.assert_array_equal(sees, np.tril(np.ones((4, 4), bool), -1) & ~np.tril(np.ones((4, 4), bool), -3))


def in_float64(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])


def relu(h):
    return np.maximum(h, 0.0)


def dense(of, h):
    return h @ of["kernel"] + of.get("bias", 0.0)


def by_taps(kernel, h, rows, columns):
    """Sums kernel[i, j] times h [B, H, W, I], moved so that each place sees the one at offset (rows[i], columns[j])."""
    out = np.zeros((*h.shape[:3], kernel.shape[-1]))
    height, width = h.shape[1:3]
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        for r, c in np.ndindex(height, width):
            if 0 <= r + row < height and 0 <= c + column < width:
                out[:, r, c] += h[:, r + row, c + column] @ kernel[i, j]
    return out


def left(of, h):
    """The 1 x 2 taps of a masked 3 x 3 convolution in its own row, of one colour: the left neighbour and the pixel."""
    kernel = of["kernel"].reshape(1, 2, h.shape[-1], -1)
    return by_taps(kernel, h, rows=(0,), columns=(-1, 0)) + of["bias"]


def pixelcnn_by_hand(params, x, label):
    """One residual block, as table 1 of the paper has it."""

    def masked_conv(of, h):
        return by_taps(of["above"]["kernel"], h, rows=(-1,), columns=(-1, 0, 1)) + left(of["left"]["taps"], h)

    params["first"]["left"]["taps"]["kernel"][1:] = 0.0  # mask A: the pixel itself
    block = params["blocks_0"]
    h = masked_conv(params["first"], x)
    y = masked_conv(block["conv"], relu(dense(block["narrow"], relu(h))))
    y = y + block["label_bias"]["Embed_0"]["embedding"][label][:, None, None]
    return h + dense(block["wide"], relu(y))


def gated_pixelcnn_by_hand(params, x, label):
    """Equations (1) and (2), the mask-A layer and one other."""

    def gate(a):
        value, gate = np.split(a, 2, axis=-1)
        return np.tanh(value) / (1.0 + np.exp(-gate))

    v = h = x
    for number in range(2):
        of = params[f"stack_{number}"]
        b_v, b_h = np.split(of["label_bias"]["Embed_0"]["embedding"][label][:, None, None], 2, axis=-1)
        a_v = by_taps(of["vertical"]["kernel"], v, rows=(-1, 0), columns=(-1, 0, 1)) + of["vertical"]["bias"] + b_v
        if number == 0:
            of["horizontal"]["taps"]["kernel"][1:] = 0.0  # mask A
        down = np.concatenate([np.zeros_like(a_v[:, :1]), a_v[:, :-1]], axis=1)
        a_h = left(of["horizontal"]["taps"], h) + dense(of["link"], down) + b_h
        update = dense(of["residual"], gate(a_h))
        v, h = gate(a_v), update if number == 0 else h + update
    return h


@pytest.mark.parametrize(
    ("network", "trunk"), [(PixelCNN, pixelcnn_by_hand), (GatedPixelCNN, gated_pixelcnn_by_hand)], ids=NETWORKS
)
def test_outputs_equal_the_network_of_the_paper(randomized, network, trunk):
    module = network((3, 4, 1), 4, 2, features=4, layers=1, first_size=3, num_classes=2)
    x, label = jax.random.randint(jax.random.key(1), (2, 3, 4, 1), 0, 4), jnp.asarray([1, 0])
    params = randomized(module, x, label)
    numbers = jax.tree.map(np.copy, in_float64(params))
    h = relu(trunk(numbers, np.asarray(x, np.float64) / 1.5 - 1.0, np.asarray(label)))
    expected = dense(numbers["readout"]["MaskedDense_1"], relu(dense(numbers["readout"]["MaskedDense_0"], h)))
    assert expected.std() > 0.1
    np.testing.assert_allclose(module.apply(params, x, label)[..., 0, :], expected, atol=1e-4)


@each_network
def test_cached_evaluation_equals_that_of_the_whole_image(randomized, network):
    module = network((3, 4, 3), 4, 5, features=6, layers=2, first_size=5, num_classes=3)
    x = jax.random.randint(jax.random.key(1), (2, 3, 4, 3), 0, 4)
    label = jnp.asarray([2, 1])
    params = randomized(module, x, label)
    call = functools.partial(module.apply, params)
    begin_row, step = (jax.jit(functools.partial(call, method=name)) for name in ("begin_row", "step"))
    flat, outputs = np.asarray(x).reshape(2, -1), []
    cache = call(2, label, method="begin")
    for i in range(flat.shape[1]):
        previous = flat[:, i - 1] if i else np.full(2, 3)  # must be ignored at the first position
        if i % 12 == 0:
            cache = begin_row(cache, i // 12, previous)
        cache, output = step(cache, i, previous)
        outputs.append(output)
    whole = jax.jit(call)(x, label).reshape(2, -1, 5)
    np.testing.assert_allclose(np.stack(outputs, 1), whole, atol=1e-4)


@each_network
def test_labels_shift_the_outputs_of_their_own_example(randomized, network):
    module = network((3, 3, 1), 2, 1, features=16, layers=1, first_size=3, num_classes=2)
    x = jnp.zeros((3, 3, 3, 1), jnp.uint8)
    params = randomized(module, x, jnp.zeros(3, jnp.int32))
    outputs = jax.jit(module.apply)(params, x, jnp.asarray([0, 1, 0]))
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-6)
    assert (np.abs(outputs[0] - outputs[1]) > 1e-6).all()
    with pytest.raises(ValueError, match="num_classes"):
        module.apply(params, x)


@each_network
def test_examples_are_independent(randomized, network):
    module = network((3, 3, 1), 2, 1, features=4, layers=1, first_size=3)
    x = jax.random.randint(jax.random.key(0), (3, 3, 3, 1), 0, 2)
    params = randomized(module, x)
    apply = jax.jit(module.apply)
    np.testing.assert_allclose(apply(params, x)[1], apply(params, x[1:2])[0], atol=1e-6)


@each_network
def test_bfloat16_compute_keeps_float32_parameters(network):
    module = network((4, 4, 1), 2, 1, features=4, layers=1, first_size=3, dtype=jnp.bfloat16)
    x = jnp.zeros((1, 4, 4, 1), jnp.uint8)
    outputs, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    cache = jax.eval_shape(lambda params: module.apply(params, 1, method="begin"), variables)
    step = functools.partial(module.apply, method="step")
    after, output = jax.eval_shape(step, variables, cache, jnp.int32(0), jnp.zeros(1, jnp.int32))
    assert output.dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(cache)]
