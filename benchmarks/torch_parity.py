"""Networks in gm_jax and their twins in torch_autoregressive.py, with the same parameters.

`network` builds ours, `parameters` draws its parameters, and `arrays` converts them to PyTorch's: transposed, split or
joined, never scaled. `arrays` is linear, so it also converts gradients.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import timing

if TYPE_CHECKING:
    from gm_jax.models.autoregressive_networks import OrderedNetwork, PixelLikelihood

Arrays = dict[str, np.ndarray]

TOLERANCE = 1e-4


class Pair(NamedTuple):
    """A network on both sides.

    Attributes:
        name: its class in torch_autoregressive.py.
        sizes: arguments of that class; they include "side" of an image, "length" of a sequence, or "num_dims".
        levels: levels per position. Two levels have one output, the log-odds; otherwise there is one output per level.
    """

    name: str
    sizes: Mapping[str, int]
    levels: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        if "side" in self.sizes:
            return (self.sizes["side"], self.sizes["side"], 1)
        if "length" in self.sizes:
            return (self.sizes["length"],)
        side = math.isqrt(self.sizes["num_dims"])
        return (side, side, 1)

    @property
    def num_dims(self) -> int:
        """The number of dimensions D."""
        return math.prod(self.shape)


MADE = Pair("MADE", {"num_dims": 784, "hidden": 500})
NADE = Pair("NADE", {"num_dims": 784, "hidden": 500})
PIXELCNN = Pair("PixelCNN", {"side": 28, "features": 64, "layers": 8, "first_size": 7, "size": 3})
GATED_PIXELCNN = PIXELCNN._replace(name="GatedPixelCNN")
WAVENET = Pair("WaveNet", {"length": 1024, "levels": 256, "features": 32, "skip": 256, "layers": 10}, levels=256)
TRANSFORMER = Pair("Transformer", {"side": 28, "features": 64, "heads": 4, "layers": 4})


def network(pair: Pair) -> "OrderedNetwork":
    """Builds our network as the experiments do."""
    from gm_jax.models import autoregressive_networks
    from gm_jax.networks import made, nade, pixelcnn, transformer, wavenet

    order, sizes = np.arange(pair.num_dims)[None], pair.sizes
    match pair.name:
        case "MADE":
            module = made.MADE(pair.num_dims, (sizes["hidden"],))
            return autoregressive_networks.masked_network(module, made.mask_sets(order, (sizes["hidden"],)), order)
        case "NADE":
            return autoregressive_networks.masked_network(nade.NADE(pair.num_dims, sizes["hidden"]), order, order)
        case "PixelCNN" | "GatedPixelCNN":
            settings = {name: size for name, size in sizes.items() if name != "side"}
            module = getattr(pixelcnn, pair.name)(pair.shape, pair.levels, outputs_per_dim=1, **settings)
            return autoregressive_networks.image_network(module)
        case "WaveNet":
            dilations = tuple(2**layer for layer in range(sizes["layers"]))
            module = wavenet.WaveNet(pair.levels, pair.levels, sizes["features"], sizes["skip"], dilations)
            return autoregressive_networks.sequence_network(module, length=pair.num_dims)
        case "Transformer":
            features, heads, layers = sizes["features"], sizes["heads"], sizes["layers"]
            module = transformer.CausalTransformer(pair.shape, pair.levels, 1, features, heads, layers)
            return autoregressive_networks.sequence_network(module, length=pair.num_dims)
    raise ValueError(f"unknown network {pair.name}: use a class of torch_autoregressive.py.")


def output(pair: Pair) -> "PixelLikelihood":
    """Returns the likelihood that the outputs define."""
    from gm_jax.models import autoregressive_networks
    from gm_jax.ops import binarization

    if pair.levels > 2:
        return autoregressive_networks.categorical(levels=pair.levels)
    return autoregressive_networks.bernoulli(lambda key, x: binarization.static(x), levels=2)


def parameters(pair: Pair) -> Any:
    """Draws our parameters: initialised and perturbed, so that none is zero and every gradient counts."""
    import jax
    import jax.numpy as jnp

    example = jnp.zeros((1, pair.num_dims), jnp.int32)
    initial = jax.jit(lambda key: network(pair).init(key, example, None))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(initial)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.02 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.map(np.asarray, jax.tree.unflatten(tree, moved))


def arrays(pair: Pair, params: Any) -> Arrays:
    """Converts parameters or gradients to PyTorch's state_dict, in its names and layout, and adds the masks."""
    convert = {
        "MADE": _made,
        "NADE": lambda pair, params: params,
        "PixelCNN": _pixelcnn,
        "GatedPixelCNN": _gated_pixelcnn,
        "WaveNet": _wavenet,
        "Transformer": _transformer,
    }
    converted = convert[pair.name](pair, params)
    return {name: np.array(array, np.float32, order="C") for name, array in converted.items()}


def initial_arrays(pair: Pair) -> Arrays:
    """Returns `parameters` in PyTorch's layout."""
    return arrays(pair, parameters(pair))


def levels(pair: Pair, n: int) -> np.ndarray:
    """Draws random levels [n, D] int32."""
    return np.random.default_rng(0).integers(pair.levels, size=(n, pair.num_dims), dtype=np.int32)


class Evaluation(NamedTuple):
    """One evaluation of our network, with everything that PyTorch needs to repeat it.

    Attributes:
        arrays: parameters in PyTorch's layout.
        x: levels [B, D].
        outputs: outputs [B, D, P].
        loss: loss of binary levels, a mean over the batch; None if not computed.
        grads: gradients of the loss in PyTorch's layout.
    """

    arrays: Arrays
    x: np.ndarray
    outputs: np.ndarray
    loss: float | None
    grads: Arrays


def evaluate(pair: Pair, batch_size: int, with_grads: bool) -> Evaluation:
    """Evaluates our outputs and, if asked, the objective that is trained and its gradients."""
    import jax

    from gm_jax.models import autoregressive

    params, x = parameters(pair), levels(pair, batch_size)
    outputs = jax.jit(lambda params, x: network(pair).outputs(params, x, None, 0))(params, x)
    loss, grads = None, {}
    if with_grads:
        model = autoregressive.Autoregressive(network=network(pair), likelihood=output(pair), shape=pair.shape).model
        batch = {"x": x.reshape(-1, *pair.shape).astype(np.uint8)}
        loss_fn = jax.jit(jax.value_and_grad(model.objectives[0].loss, has_aux=True))
        (loss, _), grads = loss_fn({"autoregressive": params}, {}, jax.random.key(0), batch)
        loss, grads = float(loss), arrays(pair, grads["autoregressive"])
    return Evaluation(arrays(pair, params), x, np.asarray(outputs), loss, grads)


def check(pair: Pair, batch_size: int, *, with_grads: bool = False) -> dict[str, float]:
    """Checks that both programs compute the same.

    Returns:
        Relative differences of PyTorch's outputs from ours and, if asked, of its loss and gradients (for gradients,
        that of the worst array).

    Raises:
        RuntimeError: they differ by more than TOLERANCE.
    """
    from benchmarks import torch_autoregressive

    ours = timing.in_own_process(evaluate, pair, batch_size, with_grads)
    theirs = (pair.name, dict(pair.sizes), ours.arrays)
    outputs = timing.in_own_process(torch_autoregressive.outputs, *theirs, ours.x)
    differences = {"outputs": relative_difference(outputs, ours.outputs)}
    if with_grads:
        loss, grads = timing.in_own_process(torch_autoregressive.loss_and_grads, *theirs, ours.x)
        differences["loss"] = abs(loss - ours.loss) / abs(ours.loss)
        differences["gradients"] = max(relative_difference(grads[name], ours.grads[name]) for name in grads)
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(
            f"the {pair.name}s differ: relative differences {differences}, at most {TOLERANCE} is allowed"
        )
    return differences


def relative_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Computes |theirs - ours| / |ours| with Euclidean norms."""
    if theirs.shape != ours.shape:
        raise RuntimeError(f"shapes differ: {theirs.shape} and {ours.shape}")
    return float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))


def _made(pair: Pair, params: Any) -> Arrays:
    from gm_jax.networks import made

    masks = made.mask_sets(np.arange(pair.num_dims)[None], (pair.sizes["hidden"],))
    positions, degrees = masks.positions[0], masks.degrees[0][0]
    return {
        "layers.0.weight": params["kernel_0"].T,
        "layers.0.bias": params["bias_0"],
        "layers.0.mask": np.asarray(degrees[:, None] >= positions[None, :]),
        "layers.2.weight": params["kernel_1"].T,
        "layers.2.bias": params["bias_1"],
        "layers.2.mask": np.asarray(positions[:, None] > degrees[None, :]),
    }


def _pixelcnn(pair: Pair, params: Any) -> Arrays:
    converted = _masked_conv("first", params["first"], own_pixel=False)
    for index in range(pair.sizes["layers"]):
        block, name = params[f"blocks_{index}"], f"blocks.{index}"
        converted |= _dense(f"{name}.narrow", block["narrow"], trailing=2)
        converted |= _masked_conv(f"{name}.conv", block["conv"], own_pixel=True)
        converted |= _dense(f"{name}.wide", block["wide"], trailing=2)
    return converted | _readout(params["readout"])


def _gated_pixelcnn(pair: Pair, params: Any) -> Arrays:
    converted = {}
    for index in range(pair.sizes["layers"] + 1):
        layer, name = params[f"stack_{index}"], f"stack.{index}"
        taps = _taps(layer["horizontal"]["taps"], 1 if index == 0 else pair.sizes["features"])
        converted |= {
            f"{name}.vertical.weight": layer["vertical"]["kernel"].transpose(3, 2, 0, 1),
            f"{name}.vertical.bias": layer["vertical"]["bias"],
            f"{name}.horizontal.weight": (taps[:-1] if index == 0 else taps).transpose(2, 1, 0)[:, :, None],
            f"{name}.horizontal.bias": layer["horizontal"]["taps"]["bias"],
        }
        converted |= _dense(f"{name}.link", layer["link"], trailing=2)
        converted |= _dense(f"{name}.residual", layer["residual"], trailing=2)
    return converted | _readout(params["readout"])


def _wavenet(pair: Pair, params: Any) -> Arrays:
    features, converted = pair.sizes["features"], {"embedding.weight": params["embedding"]["embedding"]}
    for index in range(pair.sizes["layers"]):
        conv, projection, name = params[f"convs_{index}"], params[f"projections_{index}"], f"layers.{index}"
        # The tap of the present is our first and PyTorch's last.
        converted[f"{name}.conv.weight"] = conv["kernel"][::-1].transpose(2, 1, 0)
        converted[f"{name}.conv.bias"] = conv["bias"]
        is_last = index == pair.sizes["layers"] - 1
        residual = {key: leaf[..., :features] for key, leaf in projection.items()}
        skip = {key: leaf[..., 0 if is_last else features :] for key, leaf in projection.items()}
        converted |= {} if is_last else _dense(f"{name}.residual", residual, trailing=1)
        converted |= _dense(f"{name}.skip", skip, trailing=1)
    converted |= _dense("readout.1", params["hidden"], trailing=1)
    return converted | _dense("readout.3", params["readout"], trailing=1)


def _transformer(pair: Pair, params: Any) -> Arrays:
    converted = {
        "embedding.weight": params["embedding"]["embedding"],
        "rows.weight": params["positions_0"]["embedding"],
        "columns.weight": params["positions_1"]["embedding"],
    }
    for index in range(pair.sizes["layers"]):
        block, name = params[f"blocks_{index}"], f"blocks.{index}"
        for norm in ("attention_norm", "mlp_norm"):
            converted |= _norm(f"{name}.{norm}", block[norm])
        for part in ("query", "key", "value", "out"):
            converted |= _dense(f"{name}.{part}", block["attention"][part], trailing=0)
        for part in ("wide", "narrow"):
            converted |= _dense(f"{name}.{part}", block[part], trailing=0)
    return converted | _norm("norm", params["norm"]) | _dense("readout", params["readout"], trailing=0)


def _norm(name: str, layer: Any) -> Arrays:
    return {f"{name}.weight": layer["scale"], f"{name}.bias": layer["bias"]}


def _dense(name: str, layer: Any, *, trailing: int) -> Arrays:
    """Converts a linear map to a convolution with `trailing` axes of size 1."""
    kernel = layer["kernel"].T
    converted = {f"{name}.weight": kernel.reshape(*kernel.shape, *(1,) * trailing)}
    return converted | ({f"{name}.bias": layer["bias"]} if "bias" in layer else {})


def _masked_conv(name: str, layer: Any, *, own_pixel: bool) -> Arrays:
    """Joins the rows above and the taps to the left to one k x k kernel, zero where it must not see."""
    above = layer["above"]["kernel"]
    reach, size, inputs, features = above.shape
    taps, mask = _taps(layer["left"]["taps"], inputs), np.zeros((size, size), np.float32)
    mask[:reach], mask[reach, : reach + own_pixel] = 1, 1
    kernel = np.zeros((size, size, inputs, features), np.float32)
    kernel[:reach], kernel[reach, : reach + own_pixel] = above, taps[: reach + own_pixel]
    weight, bias = kernel.transpose(3, 2, 0, 1), layer["left"]["taps"]["bias"]
    return {f"{name}.weight": weight, f"{name}.bias": bias, f"{name}.mask": mask}


def _taps(layer: Any, inputs: int) -> np.ndarray:
    """Returns the kernel [taps, I, O] of a `RowConv`; the last tap is the pixel itself."""
    return np.asarray(layer["kernel"]).reshape(-1, inputs, layer["kernel"].shape[1])


def _readout(layers: Any) -> Arrays:
    first, second = (_dense(f"readout.{2 * i + 1}", layers[f"MaskedDense_{i}"], trailing=2) for i in range(2))
    return first | second
