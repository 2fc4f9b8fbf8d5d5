"""Feature extractors: named networks with fixed weights that map images to features and class probabilities.

    digits-cnn   this repository's classifier of 8x8 digits       weights committed
    mnist-cnn    this repository's classifier of 28x28 digits     weights committed
    inception    Inception v3, the variant used for the FID       weights from a file that you provide

A distance between features is only meaningful together with its extractor. So an extractor carries its name, a SHA-256
of its weights and its resize rule, and every result repeats them (`facts`). With `inception` and the public weights the
Frechet distance is the FID; with any other extractor it is not the FID and is not called so.

Images are uint8, 0..255. `as_images` converts data with other numbers of levels and refuses anything else.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from gm_jax.errors import UserError
from gm_jax.files import opened, replacing
from gm_jax.hashing import tensors_digest
from gm_jax.networks import inception as inception_network
from gm_jax.networks.digit_classifier import DigitClassifier
from gm_jax.ops import resize
from gm_jax.types import Array, PyTree

EXTRACTORS = ("digits-cnn", "mnist-cnn", "inception")
WEIGHTS = Path(__file__).parent / "weights"

# SHA-256 of the checkpoint that torch-fidelity (weights-inception-2015-12-05-6726825d.pth) and pytorch-fid
# (pt_inception-2015-12-05-6726825d.pth) publish, converted from Google's graph of 2015-12-05.
INCEPTION_CHECKPOINT = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

# Name -> side of its images. `glyphs-cnn` belongs to `scene_reader` and compares no samples.
_SMALL = {"digits-cnn": 8, "mnist-cnn": 28, "glyphs-cnn": 14}
_HOW_TO_CONVERT = "Convert the public checkpoint with python -m tools.convert_inception."


class Features(NamedTuple):
    """The output of an extractor for N images.

    Attributes:
        features: [N, D]; used for distances, precision and recall.
        log_probs: [N, K] log p(y|x); used for the Inception Score.
    """

    features: Array
    log_probs: Array


class Extractor(NamedTuple):
    """A network with fixed weights that maps images to features.

    Attributes:
        name: the name in results, e.g. "digits-cnn".
        weights: SHA-256 of the weights (`tensors_digest`), in hex.
        resize: how images of another size are resized.
        side: required side of the images; None if it resizes images of any size.
        channels: accepted numbers of channels.
        num_features: D.
        params: the weights.
        apply: (params, images [B, H, W, C] uint8) -> Features; pure.
    """

    name: str
    weights: str
    resize: str
    side: int | None
    channels: tuple[int, ...]
    num_features: int
    params: PyTree
    apply: Callable[[PyTree, Array], Features]

    @property
    def facts(self) -> dict[str, Any]:
        """The settings that every result must carry."""
        return {"extractor": self.name, "weights": self.weights, "resize": self.resize}


def load(name: str, weights: Path | None = None, *, any_weights: bool = False) -> Extractor:
    """Loads an extractor by its name.

    Args:
        name: one of EXTRACTORS.
        weights: file of weights; required for `inception`, not allowed for the others.
        any_weights: also accept weights other than the public ones.
    Raises:
        UserError: the name is unknown, or the file is missing, damaged or not the public one.
    """
    if name in EXTRACTORS[:2]:
        if weights is not None:
            raise UserError(f"the weights of {name} are part of gm_jax: omit the file of weights.")
        return digit_classifier(name)
    if name == "inception":
        if weights is None:
            raise UserError(f"inception needs a file of weights.\n{_HOW_TO_CONVERT}")
        return inception(weights, any_weights=any_weights)
    raise UserError(f"there is no feature extractor '{name}': choose one of {', '.join(EXTRACTORS)}.")


@functools.cache
def digit_classifier(name: str) -> Extractor:
    """Loads this repository's classifier of digits: "digits-cnn" (8x8), "mnist-cnn" (28x28) or "glyphs-cnn" (14x14).

    Raises:
        UserError: the file of weights is missing or damaged.
    """
    tensors, _ = read_weights(WEIGHTS / f"{name}.safetensors")
    network, side = DigitClassifier(), _SMALL[name]

    def apply(params: PyTree, images: Array) -> Features:
        outputs = network.apply({"params": params}, images.astype(jnp.float32) / 255.0)
        features, logits = cast(tuple[Array, Array], outputs)
        return Features(features, jax.nn.log_softmax(logits))

    return Extractor(
        name=name,
        weights=tensors_digest(tensors),
        resize="none",
        side=side,
        channels=(1,),
        num_features=network.hidden,
        params=unflatten(tensors),
        apply=apply,
    )


def inception(path: Path, *, any_weights: bool = False) -> Extractor:
    """Loads Inception v3 in the variant used for the FID, `networks.inception`.

    Args:
        path: file made by `tools/convert_inception.py`.
        any_weights: also accept weights converted from a checkpoint other than the public one.
    Raises:
        UserError: the file is missing, damaged, not an Inception v3, or from another checkpoint.
    """
    tensors, metadata = read_weights(path)
    source = metadata.get("checkpoint_sha256", "an unknown checkpoint")
    if source != INCEPTION_CHECKPOINT and not any_weights:
        raise UserError(
            f"{path} was not converted from the public checkpoint, so the result would not be the FID:\n"
            f"got {source}, need {INCEPTION_CHECKPOINT}.\n"
            "Convert the public checkpoint, or pass any_weights=True in Python to accept other weights."
        )
    try:
        params = inception_network.params_from_tensors(tensors)
    except KeyError as error:
        raise UserError(f"{path} has no tensor {error}, so it is not an Inception v3.\n{_HOW_TO_CONVERT}") from None
    except ValueError as error:
        raise UserError(f"{path} is not an Inception v3: {error}.\n{_HOW_TO_CONVERT}") from None
    network = inception_network.InceptionV3()

    def apply(params: PyTree, images: Array) -> Features:
        images = images.astype(jnp.float32)
        side = inception_network.SIDE
        resized = resize.bilinear_tf1(images, height=side, width=side)
        rgb = jnp.broadcast_to(resized, (*resized.shape[:3], 3))
        outputs = cast(inception_network.InceptionOutputs, network.apply({"params": params}, rgb))
        return Features(outputs.features, jax.nn.log_softmax(outputs.logits_without_bias))

    return Extractor(
        name="inception",
        weights=tensors_digest(tensors),
        resize="bilinear to 299x299 as in TensorFlow 1",
        side=None,
        channels=(1, 3),
        num_features=inception_network.NUM_FEATURES,
        params=params,
        apply=apply,
    )


def as_images(x: np.ndarray, extractor: Extractor, *, levels: int = 256) -> np.ndarray:
    """Converts data with integer levels to the uint8 images 0..255 that an extractor accepts.

    Args:
        x: [N, H, W, C] uint8, 0 .. levels - 1.
        extractor: the extractor that will see the images.
        levels: number of levels of the data.
    Raises:
        UserError: x is not such an array, has the wrong size or number of channels, or holds fewer than two images.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.dtype != np.uint8:
        raise UserError(f"{extractor.name} needs images [N, H, W, C] of uint8, got {list(x.shape)} of {x.dtype}.")
    if len(x) < 2:
        raise UserError(f"distances and scores need at least two images, got {len(x)}.")
    if x.shape[3] not in extractor.channels:
        accepted = " or ".join(map(str, extractor.channels))
        raise UserError(f"{extractor.name} needs images of {accepted} channels, got {x.shape[3]}.")
    if extractor.side not in (None, x.shape[1]) or extractor.side not in (None, x.shape[2]):
        size = f"{extractor.side}x{extractor.side}"
        raise UserError(f"{extractor.name} needs images of {size}, got {x.shape[1]}x{x.shape[2]}.")
    if x.max() >= levels:
        raise UserError(f"the images must have levels 0..{levels - 1}, got {x.max()}: check `levels`.")
    if levels == 256:
        return x
    return np.rint(x * (255.0 / (levels - 1))).astype(np.uint8)


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """Reads the tensors and the metadata of a safetensors file; no code in the file is executed.

    Raises:
        UserError: the file is missing, or does not match the digest that `write_weights` stored in it.
    """
    try:
        with opened(path):  # nor a folder, a pipe or a device
            pass
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise UserError(f"there is no file of weights {path}: check the path.") from None
    except Exception as error:  # safetensors also raises KeyError and TypeError, for types that numpy does not have
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a file of weights, or is damaged: {reason}") from None
    if metadata.get("tensors_sha256") != tensors_digest(tensors):
        raise UserError(f"{path} is damaged: its weights do not match their stored SHA-256. Make or download it again.")
    return tensors, metadata


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes tensors and metadata as safetensors, with a digest that `read_weights` verifies."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with replacing(path) as file:
        file.write(save(contiguous, {**metadata, "tensors_sha256": tensors_digest(contiguous)}))


def flatten(params: PyTree) -> dict[str, np.ndarray]:
    """Flattens nested dicts of arrays to {"a.b": array}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(tensors: Mapping[str, np.ndarray]) -> PyTree:
    """Inverts `flatten`."""
    params: dict = {}
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        functools.reduce(lambda node, parent: node.setdefault(parent, {}), parents, params)[last] = tensor
    return params
