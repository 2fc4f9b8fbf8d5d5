import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from gm_jax.networks import pixelcnn_pp
from gm_jax.networks.pixelcnn_pp import DOWN, DOWN_RIGHT, GatedBlock, Kernel, NormedConv, PixelCNNPlusPlus


@pytest.mark.parametrize(("side", "scales", "blocks"), [(6, 2, 1), (5, 3, 1)])
def test_a_pixel_sees_all_earlier_pixels_and_no_other(dependencies, side, scales, blocks):
    module = PixelCNNPlusPlus((side, side, 1), 2, 1, features=4, blocks=blocks, scales=scales)
    sees = dependencies(module)
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def shifted(x, rows, columns):
    """Moves images down and to the right, with zeros first."""
    height, width = x.shape[1:3]
    return jnp.pad(x, [(0, 0), (rows, 0), (columns, 0), (0, 0)])[:, :height, :width]


@pytest.mark.parametrize(("scales", "step"), [(1, 1), (2, 2)])
def test_outputs_move_with_the_image(randomized, scales, step):
    """Far from the borders, by steps of the smallest scale's pixel."""
    module = PixelCNNPlusPlus((40, 40, 1), 17, 3, features=3, blocks=1, scales=scales)
    x = jax.random.uniform(jax.random.key(0), (1, 40, 40, 1), maxval=16.0)
    params = randomized(module, x)
    outputs = jax.jit(module.apply)
    for rows, columns in ((step, 0), (0, step), (step, 3 * step)):
        moved = shifted(outputs(params, x), rows, columns)
        np.testing.assert_allclose(
            outputs(params, shifted(x, rows, columns))[:, 30:, 25:30], moved[:, 30:, 25:30], atol=1e-4
        )
    assert float(jnp.std(outputs(params, x)[:, 30:, 25:30])) > 0.01
    if scales == 2:  # half a pixel of the smaller scale is another network
        moved = shifted(outputs(params, x), 1, 0)
        assert float(jnp.abs(outputs(params, shifted(x, 1, 0)) - moved)[:, 30:, 25:30].max()) > 1e-3


def correlate(x, weights, top, left):
    """Correlates one image [H, W, I] with weights [h, w, I, F], with zeros at the top and the sides."""
    padded = np.pad(x, [(top, 0), left, (0, 0)])
    return np.stack(
        [signal.correlate(padded, weights[..., f], mode="valid")[..., 0] for f in range(weights.shape[-1])], -1
    )


def weights_of(params):
    v = np.asarray(params["kernel"], np.float64)
    return v * np.asarray(params["length"]) / np.sqrt((v**2).sum(axis=(0, 1, 2)))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


@pytest.mark.parametrize("kernel", [DOWN, DOWN_RIGHT])
def test_a_block_is_that_of_the_paper(randomized, kernel):
    rng = np.random.default_rng(0)
    x, short_cut, label = rng.normal(size=(1, 4, 5, 3)), rng.normal(size=(1, 4, 5, 2)), jnp.asarray([1])
    module = GatedBlock(kernel, 3, num_classes=2, dropout=0.5)
    variables = randomized(module, x, short_cut, label)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def both(a):
        return elu(np.concatenate([a, -a], axis=-1))

    def conv(of, a):
        return correlate(a, weights_of(of), 1, kernel.sides) + of["bias"]

    of_place = weights_of(params["short_cut"])[0, 0]
    h = conv(params["first"], both(x[0])) + both(short_cut[0]) @ of_place + params["short_cut"]["bias"]
    h = conv(params["second"], both(h)) + params["label_bias"]["Embed_0"]["embedding"][1]
    expected = x[0] + h[..., :3] / (1.0 + np.exp(-h[..., 3:]))
    found = module.apply(variables, jnp.asarray(x, jnp.float32), jnp.asarray(short_cut, jnp.float32), label)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [DOWN, DOWN_RIGHT])
def test_halves_and_doubles_see_what_raster_order_allows(kernel):
    weights = jnp.ones((*kernel.size, 1, 1))
    small, large = jnp.zeros((1, 3, 3, 1)), jnp.zeros((1, 5, 6, 1))
    assert kernel.double(small, weights).shape == (1, 6, 6, 1)
    assert kernel.halve(large, weights).shape == (1, 3, 3, 1)
    last = kernel.sides[1]
    seen = np.argwhere(np.asarray(kernel.halve(large.at[0, 2, 2].set(1.0), weights))[0, ..., 0])
    np.testing.assert_array_equal(seen, [[1, 1]])  # place 2 is that of place 1; only the column before it may see 3
    seen = np.argwhere(np.asarray(kernel.halve(large.at[0, 1, 3].set(1.0), weights))[0, ..., 0])
    np.testing.assert_array_equal(seen, [[1, 1], [1, 2]] if last else [[1, 2]])
    seen = np.argwhere(np.asarray(kernel.double(small.at[0, 1, 1].set(1.0), weights))[0, ..., 0])
    np.testing.assert_array_equal(seen, [[r, c] for r in (2, 3) for c in ((1, 2, 3) if last else (2, 3))])


def test_init_gives_each_output_mean_0_and_its_deviation():
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (50, 6, 6, 4))
    for way in (Kernel.convolve, Kernel.halve, Kernel.double):
        for std in (1.0, 0.1):
            y, variables = NormedConv(5, DOWN, way, std).init_with_output(jax.random.key(1), x)
            np.testing.assert_allclose(jnp.mean(y, axis=(0, 1, 2)), np.zeros(5), atol=1e-4)
            np.testing.assert_allclose(jnp.std(y, axis=(0, 1, 2)), np.full(5, std), rtol=1e-3)
            np.testing.assert_allclose(jnp.std(variables["params"]["kernel"]), 0.05, rtol=0.2)
    # An output that does not vary is only centred.
    y, variables = NormedConv(5, Kernel((1, 1), (0, 0))).init_with_output(jax.random.key(1), jnp.ones((2, 1, 1, 4)))
    np.testing.assert_allclose(y, np.zeros((2, 1, 1, 5)), atol=1e-6)
    np.testing.assert_array_equal(variables["params"]["length"], np.ones(5))


def test_dropout_needs_a_key_and_labels_move_every_pixel(randomized):
    module = PixelCNNPlusPlus((4, 4, 3), 256, 10, 3, features=4, blocks=1, scales=2)
    x = jax.random.randint(jax.random.key(0), (2, 4, 4, 3), 0, 256)
    variables = randomized(module, x, jnp.asarray([0, 1]))
    apply = jax.jit(module.apply)
    outputs = apply(variables, x, jnp.asarray([0, 1]))
    assert outputs.shape == (2, 4, 4, 10)
    np.testing.assert_allclose(outputs[:1], apply(variables, x[:1], jnp.asarray([0])), atol=1e-4)
    assert np.all(np.any(outputs != apply(variables, x, jnp.asarray([1, 2])), axis=-1))
    dropped = apply(variables, x, jnp.asarray([0, 1]), rngs={"dropout": jax.random.key(0)})
    assert float(jnp.abs(dropped - outputs).max()) > 0.01


def test_bfloat16_compute_keeps_float32_parameters():
    module = PixelCNNPlusPlus((4, 4, 1), 2, 1, dtype=jnp.bfloat16, features=4, blocks=1, scales=2)
    outputs, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((2, 4, 4, 1), jnp.uint8))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_concat_elu_has_both_signs():
    np.testing.assert_allclose(
        pixelcnn_pp.concat_elu(jnp.asarray([[2.0, -1.0]])), [[2.0, np.expm1(-1), np.expm1(-2), 1.0]], rtol=1e-6
    )
