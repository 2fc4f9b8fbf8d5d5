import jax
import numpy as np
import pytest

from benchmarks import torch_parity
from benchmarks.torch_parity import Pair

# These tests do not need PyTorch: its computation on the converted arrays is written out here, in numpy and with XLA's
# convolution in PyTorch's layout. The benchmarks themselves compare with PyTorch before they time anything.
SIDE, FEATURES = 5, 4
IMAGES = {"side": SIDE, "features": FEATURES, "layers": 1, "first_size": 5, "size": 3}
PIXELCNN, GATED = Pair("PixelCNN", IMAGES), Pair("GatedPixelCNN", IMAGES)
WAVENET = Pair("WaveNet", {"length": 9, "levels": 6, "features": 4, "skip": 3, "layers": 3}, levels=6)
TRANSFORMER = Pair("Transformer", {"side": 3, "features": 6, "heads": 2, "layers": 2})
MADE = Pair("MADE", {"num_dims": 9, "hidden": 7})


def module(pair):
    """Our random parameters, and the same for PyTorch."""
    params = torch_parity.parameters(pair)
    return params, torch_parity.arrays(pair, params)


def conv(x, arrays, name, padding, dilation=1):
    """A convolution [B, C, ...] in PyTorch's layout."""
    weight = arrays[f"{name}.weight"] * arrays.get(f"{name}.mask", 1)
    bias = arrays.get(f"{name}.bias", np.zeros(len(weight)))
    axes = "HW"[: weight.ndim - 2]
    layout = (f"NC{axes}", f"OI{axes}", f"NC{axes}")
    y = jax.lax.conv_general_dilated(
        x, weight, (1,) * len(axes), padding, rhs_dilation=(dilation,) * len(axes), dimension_numbers=layout
    )
    return np.asarray(y) + bias.reshape(1, -1, *(1,) * len(axes))


def dense(x, arrays, name):
    return conv(x, arrays, name, [(0, 0)] * (x.ndim - 2))


def relu(x):
    return np.maximum(x, 0)


def gate(a):
    value, gate = np.split(a, 2, axis=1)
    return np.tanh(value) / (1 + np.exp(-gate))


def readout(x, arrays, names):
    first, second = names
    return dense(relu(dense(relu(x), arrays, first)), arrays, second)


def ours(pair, params, x):
    return np.asarray(jax.jit(lambda params, x: torch_parity.network(pair).outputs(params, x, None, 0))(params, x))


def test_made_with_the_converted_arrays_equals_ours():
    params, arrays = module(MADE)
    x = torch_parity.levels(MADE, 3)
    h = relu(x @ (arrays["layers.0.weight"] * arrays["layers.0.mask"]).T + arrays["layers.0.bias"])
    logits = h @ (arrays["layers.2.weight"] * arrays["layers.2.mask"]).T + arrays["layers.2.bias"]
    np.testing.assert_allclose(logits, ours(MADE, params, x)[..., 0], rtol=1e-4, atol=1e-5)


def test_pixelcnn_with_the_converted_arrays_equals_ours():
    params, arrays = module(PIXELCNN)
    x = torch_parity.levels(PIXELCNN, 3)
    h = conv(2.0 * x.reshape(-1, 1, SIDE, SIDE) - 1, arrays, "first", [(2, 2), (2, 2)])
    y = relu(dense(relu(h), arrays, "blocks.0.narrow"))
    h = h + dense(relu(conv(y, arrays, "blocks.0.conv", [(1, 1), (1, 1)])), arrays, "blocks.0.wide")
    logits = readout(h, arrays, ("readout.1", "readout.3"))
    np.testing.assert_allclose(logits.reshape(3, -1), ours(PIXELCNN, params, x)[..., 0], rtol=1e-4, atol=1e-5)


def test_gated_pixelcnn_with_the_converted_arrays_equals_ours():
    params, arrays = module(GATED)
    x = torch_parity.levels(GATED, 3)
    v = h = 2.0 * x.reshape(-1, 1, SIDE, SIDE) - 1
    for name, reach, own_pixel in (("stack.0", 2, -1), ("stack.1", 1, 0)):
        a_v = conv(v, arrays, f"{name}.vertical", [(reach, 0), (reach, reach)])
        down = np.pad(a_v[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])
        a_h = conv(h, arrays, f"{name}.horizontal", [(0, 0), (reach, own_pixel)]) + dense(down, arrays, f"{name}.link")
        update = dense(gate(a_h), arrays, f"{name}.residual")
        v, h = gate(a_v), update if own_pixel else h + update
    logits = readout(h, arrays, ("readout.1", "readout.3"))
    np.testing.assert_allclose(logits.reshape(3, -1), ours(GATED, params, x)[..., 0], rtol=1e-4, atol=1e-5)


def test_wavenet_with_the_converted_arrays_equals_ours():
    params, arrays = module(WAVENET)
    x = torch_parity.levels(WAVENET, 3)
    h = np.pad(arrays["embedding.weight"][x].transpose(0, 2, 1)[:, :, :-1], [(0, 0), (0, 0), (1, 0)])
    skips = 0
    for layer in range(3):
        z = gate(conv(h, arrays, f"layers.{layer}.conv", [(2**layer, 0)], dilation=2**layer))
        skips = skips + dense(z, arrays, f"layers.{layer}.skip")
        h = h + dense(z, arrays, f"layers.{layer}.residual") if layer < 2 else h
    logits = readout(skips, arrays, ("readout.1", "readout.3")).transpose(0, 2, 1)
    np.testing.assert_allclose(logits, ours(WAVENET, params, x), rtol=1e-4, atol=1e-5)


def norm(h, arrays, name):
    centred = h - h.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def linear(h, arrays, name):
    return h @ arrays[f"{name}.weight"].T + arrays.get(f"{name}.bias", 0)


def test_a_transformer_with_the_converted_arrays_equals_ours():
    params, arrays = module(TRANSFORMER)
    x = torch_parity.levels(TRANSFORMER, 3)
    positions = arrays["rows.weight"][:, None] + arrays["columns.weight"]
    h = arrays["embedding.weight"][np.pad(x[:, :-1], [(0, 0), (1, 0)], constant_values=2)] + positions.reshape(9, 6)
    for name in ("blocks.0", "blocks.1"):
        normed = norm(h, arrays, f"{name}.attention_norm")
        q, k, v = (linear(normed, arrays, f"{name}.{part}").reshape(3, 9, 2, 3) for part in ("query", "key", "value"))
        weights = np.exp(np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(3)) * np.tri(9)
        y = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(axis=-1, keepdims=True), v).reshape(3, 9, 6)
        h = h + linear(y, arrays, f"{name}.out")
        wide = linear(norm(h, arrays, f"{name}.mlp_norm"), arrays, f"{name}.wide")
        h = h + linear(np.asarray(jax.nn.gelu(wide)), arrays, f"{name}.narrow")
    logits = linear(norm(h, arrays, "norm"), arrays, "readout")
    np.testing.assert_allclose(logits, ours(TRANSFORMER, params, x), rtol=1e-4, atol=1e-5)


def test_no_parameter_is_zero():
    leaves = jax.tree.leaves(torch_parity.parameters(GATED))
    assert all(np.all(leaf != 0) for leaf in leaves)


def test_differences_are_relative_to_ours():
    assert torch_parity.relative_difference(np.array([3.0, 4.4]), np.array([3.0, 4.0])) == pytest.approx(0.08)
    with pytest.raises(RuntimeError, match="shapes differ"):
        torch_parity.relative_difference(np.zeros((2, 1)), np.zeros(2))
