"""What samples are compared by: named networks with fixed weights, from images to features and class probabilities.

    digits-cnn   this repository's classifier of 8x8 digits                      weights committed
    mnist-cnn    the same, of 28x28 digits                                       weights committed
    inception    Inception v3 with the FID variant's departures                  weights from a file that you give

A distance between features means nothing without what made them, so an extractor carries its name, a SHA-256 of its
weights and the way images are resized, and every result repeats them (`facts`). With `inception` and the public weights
the Frechet distance is the FID; with any other extractor it is not, and is not called so.

Images are uint8, 0..255; `as_images` makes them of data with other levels, and refuses what is none.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError
from gm_jax.hashing import tensors_digest
from gm_jax.networks import inception as inception_network
from gm_jax.networks.digit_classifier import DigitClassifier
from gm_jax.ops import resize
from gm_jax.types import Array, PyTree

EXTRACTORS = ("digits-cnn", "mnist-cnn", "inception")
WEIGHTS = Path(__file__).parent / "weights"

# The checkpoint that torch-fidelity and pytorch-fid publish, made from Google's graph of 2015-12-05; the first eight
# digits of its hash are in its name, weights-inception-2015-12-05-6726825d.pth or pt_inception-2015-12-05-6726825d.pth.
INCEPTION_CHECKPOINT = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

_SMALL = {"digits-cnn": 8, "mnist-cnn": 28}  # sides of their images
_HOW_TO_CONVERT = "python -m tools.convert_inception makes it of the public checkpoint"


class Features(NamedTuple):
    """What an extractor says of images.

    Attributes:
        features: [N, D], for distances, precision and recall.
        log_probs: [N, K] log p(y|x), for the Inception Score.
    """

    features: Array
    log_probs: Array


class Extractor(NamedTuple):
    """A network with fixed weights.

    Attributes:
        name: as results are named, e.g. "digits-cnn".
        weights: SHA-256 of the weights (`tensors_digest`), in hex.
        resize: what is done to images of another size.
        side: of the images that it takes; None for any, which are resized.
        channels: numbers of channels that it takes.
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
        """What every result must carry."""
        return {"extractor": self.name, "weights": self.weights, "resize": self.resize}


def load(name: str, weights: Path | None = None, *, any_weights: bool = False) -> Extractor:
    """An extractor by its name.

    Args:
        name: one of EXTRACTORS.
        weights: the file, for `inception` alone.
        any_weights: take a file of weights other than the public ones, too.
    Raises:
        UserError: there is none of that name, or its file is missing, damaged or not the known one.
    """
    if name in _SMALL:
        if weights is not None:
            raise UserError(f"the weights of {name} are part of gm_jax: leave the file out.")
        return digit_classifier(name)
    if name == "inception":
        if weights is None:
            raise UserError(f"inception needs a file of weights;\n{_HOW_TO_CONVERT}.")
        return inception(weights, any_weights=any_weights)
    raise UserError(f"there is no feature extractor '{name}'; there are {', '.join(EXTRACTORS)}.")


@functools.cache
def digit_classifier(name: str) -> Extractor:
    """This repository's own classifier of digits, "digits-cnn" (8x8) or "mnist-cnn" (28x28).

    Raises:
        UserError: its file is missing or damaged.
    """
    tensors, _ = read_weights(WEIGHTS / f"{name}.safetensors")
    network, side = DigitClassifier(), _SMALL[name]

    def apply(params: PyTree, images: Array) -> Features:
        features, logits = network.apply({"params": params}, images.astype(jnp.float32) / 255.0)
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
    """Inception v3 as the FID knows it, `networks.inception`.

    Args:
        path: a file that `tools/convert_inception.py` made.
        any_weights: take it even where it was made of another checkpoint than the public one.
    Raises:
        UserError: it is missing, damaged, no Inception's, or of another checkpoint.
    """
    tensors, metadata = read_weights(path)
    source = metadata.get("checkpoint_sha256", "nothing that is said")
    if source != INCEPTION_CHECKPOINT and not any_weights:
        raise UserError(
            f"{path} is not of the public checkpoint, and no FID would come of it: it was made of\n"
            f"{source}, need {INCEPTION_CHECKPOINT}.\nOther weights are taken where any weights are asked for."
        )
    try:
        params = inception_network.params_from_tensors(tensors)
    except KeyError as error:
        raise UserError(f"{path} has no tensor {error}: it is no Inception v3;\n{_HOW_TO_CONVERT}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no Inception v3: {error}.") from None
    network = inception_network.InceptionV3()

    def apply(params: PyTree, images: Array) -> Features:
        images = images.astype(jnp.float32)
        side = inception_network.SIDE
        resized = resize.bilinear_tf1(images, height=side, width=side)
        outputs = network.apply({"params": params}, jnp.broadcast_to(resized, (*resized.shape[:3], 3)))
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
    """Data with integer levels as the uint8 images 0..255 that an extractor takes.

    Args:
        x: [N, H, W, C] uint8, 0 .. levels - 1.
        extractor: what they are for.
        levels: of the data.
    Raises:
        UserError: they are no such images, not of the extractor's size or channels, or fewer than two.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.dtype != np.uint8:
        raise UserError(f"{extractor.name} takes images [N, H, W, C] of uint8, got {list(x.shape)} of {x.dtype}.")
    if len(x) < 2:
        raise UserError(f"distances and scores need at least two images, got {len(x)}.")
    if x.shape[3] not in extractor.channels:
        takes = " or ".join(map(str, extractor.channels))
        raise UserError(f"{extractor.name} takes images of {takes} channels, got {x.shape[3]}.")
    if extractor.side not in (None, x.shape[1]) or extractor.side not in (None, x.shape[2]):
        size = f"{extractor.side}x{extractor.side}"
        raise UserError(f"{extractor.name} takes images of {size}, got {x.shape[1]}x{x.shape[2]}.")
    if x.max() >= levels:
        raise UserError(f"the images have levels 0..{levels - 1}, got {x.max()}.")
    if levels == 256:
        return x
    return np.rint(x * (255.0 / (levels - 1))).astype(np.uint8)


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """The tensors of a safetensors file and what it says of itself; nothing in such a file is ever executed.

    Raises:
        UserError: it is missing or damaged: `write_weights` leaves a digest in it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError:
        raise UserError(f"there is no file of weights {path}.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no file of weights, or is damaged: {error}") from None
    if metadata.get("tensors_sha256") != tensors_digest(tensors):
        raise UserError(f"{path} is damaged: its weights are not those that were written.")
    return tensors, metadata


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors and what is to be said of them as safetensors, with a digest that `read_weights` checks."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, path, {**metadata, "tensors_sha256": tensors_digest(contiguous)})


def flatten(params: PyTree) -> dict[str, np.ndarray]:
    """Nested dicts of arrays -> {"a.b": array}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(tensors: Mapping[str, np.ndarray]) -> PyTree:
    """The inverse of `flatten`."""
    params: dict = {}
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        functools.reduce(lambda node, parent: node.setdefault(parent, {}), parents, params)[last] = tensor
    return params
