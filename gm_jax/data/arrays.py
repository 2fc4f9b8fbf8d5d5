"""Arrays of your own, in Python or in a file "npz:PATH".

    x or images          uint8 [N, H, W] or [N, H, W, C] images, uint8 [N, D] levels, or float [N, D] points
    label, labels or y   integers [N], from 0; optional
    levels               how many levels the uint8 values have; optional, by default 2 if they take two values, else 256

A name may carry a split, before it or after it: `x_train`, `train_images`, `y_test`, `val_labels`. Splits that are
missing are cut by `splits`. An .npz is read without unpickling, and only if its arrays are as large as their headers
declare and fit into memory.
"""

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import image_files, mapped_arrays, memory, splits
from gm_jax.data.array_cache import Splits
from gm_jax.errors import UserError

MOST_CLASSES = 1_000_000

_SPLIT = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
_NAME = {"x": "x", "images": "x", "image": "x", "label": "label", "labels": "label", "y": "label"}
_KNOWN = "x or images, label, labels or y, and levels; with _train, _validation or _test for splits"


class Arrays(NamedTuple):
    """Checked arrays.

    Attributes:
        splits: "train", "validation", "test" -> {"x": [N, ...], "label": [N] int32 if there are labels}.
        levels: of x; None for points.
        num_classes: the largest label and 1; None without labels.
        cut: the rule by which missing splits were cut; None if none was.
    """

    splits: Splits
    levels: int | None
    num_classes: int | None
    cut: str | None


def read_npz(file: Path, size: int | None = None) -> Arrays:
    """Reads a file of `numpy.savez`.

    Args:
        file: the file.
        size: rows and columns to resize images to; None to leave them.
    Raises:
        UserError: the file does not exist or is damaged, or its arrays are not what this module describes.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file: give your .npz file as --data.name npz:PATH.")
    _check_npz(file)
    try:
        with np.load(file, allow_pickle=False) as stored:
            named = {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile, zlib, lzma and numpy raise many types for what is damaged
        raise _damaged(file, str(error)) from None
    return from_arrays(named, str(file), size)


def from_arrays(named: Mapping[str, Any], origin: str, size: int | None = None) -> Arrays:
    """Checks arrays and cuts the splits that are missing.

    Args:
        named: name -> array, as this module describes; or split -> (array, or name -> array).
        origin: of the arrays, for messages.
        size: rows and columns to resize images to; None to leave them.
    Raises:
        UserError: the arrays are not what this module describes.
    """
    levels = None
    shipped: Splits = {}
    for name, array in _flat(named).items():
        if name == "levels":
            levels = _number_of_levels(np.asarray(array), origin)
            continue
        split, kind = _parse(name, origin)
        arrays = shipped.setdefault(split, {})
        if kind in arrays:
            raise UserError(f"{origin} has two arrays for {kind} of the {split} split: keep one of them.")
        arrays[kind] = _checked_x(name, array, origin) if kind == "x" else _checked_label(name, array, origin)
    _check_splits(shipped, origin)
    if size is not None:
        _resize(shipped, size, origin)
    num_levels = _levels(shipped, levels, origin)
    labels = [arrays["label"] for arrays in shipped.values() if "label" in arrays]
    num_classes = 1 + max(int(label.max()) for label in labels) if labels else None
    whole, cut = splits.cut_missing(shipped, origin)
    return Arrays(whole, num_levels, num_classes, cut)


def _flat(named: Mapping[str, Any]) -> dict[str, Any]:
    """Turns {"train": {"x": ...}, "test": x} into {"train_x": ..., "test_x": x}."""
    flat: dict[str, Any] = {}
    for name, value in named.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}_{inner}": array for inner, array in value.items()}
        else:
            flat[f"{name}_x" if name in _SPLIT else name] = value
    return flat


def _parse(name: str, origin: str) -> tuple[str, str]:
    """Returns the split and the kind, "x" or "label", of an array's name."""
    words = name.lower().split("_")
    pairs = [(words[0], words[-1]), (words[-1], words[0])] if len(words) == 2 else [("train", name.lower())]
    for split, kind in pairs:
        if split in _SPLIT and kind in _NAME:
            return _SPLIT[split], _NAME[kind]
    raise UserError(f"{origin} has an array {name!r}: the known names are {_KNOWN}.")


def _checked_x(name: str, array: Any, origin: str) -> np.ndarray:
    x = np.asarray(array)
    kind = f"{name} of {origin} is {x.dtype} {list(x.shape)}"
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise UserError(f"{kind}: give images [N, H, W] or [N, H, W, C], or points [N, D].")
    if np.issubdtype(x.dtype, np.floating):
        if x.ndim > 2:
            raise UserError(
                f"{kind}: images are uint8 levels from 0 to 255. Scale floats from [0, 1] by (255 * x).round(), and "
                "use .astype(np.uint8)."
            )
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise UserError(
                f"{kind}, of which {len(bad)} rows are not finite, the first is number {bad[0]}: repair them."
            )
        return x.astype(np.float32)
    if x.dtype != np.uint8:
        raise UserError(f"{kind}: give uint8 levels, by .astype(np.uint8), or float32 points.")
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim > 4 or (x.ndim == 4 and x.shape[-1] > 4):
        raise UserError(f"{kind}: give images as [N, H, W, C] with 1 to 4 channels, which come last.")
    return x.copy()  # what follows may change it


def _checked_label(name: str, array: Any, origin: str) -> np.ndarray:
    label = np.asarray(array)
    kind = f"{name} of {origin} is {label.dtype} {list(label.shape)}"
    if label.ndim == 2 and label.shape[1] == 1:
        label = label[:, 0]
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise UserError(f"{kind}: give labels as integers [N], from 0.")
    if len(label) and not 0 <= label.min() <= label.max() < MOST_CLASSES:
        raise UserError(f"{kind}, from {label.min()} to {label.max()}: labels are from 0 to {MOST_CLASSES - 1}.")
    return label.astype(np.int32)


def _check_splits(shipped: Splits, origin: str) -> None:
    if "x" not in shipped.get("train", {}):
        raise UserError(f"{origin} has no examples to train on: the known names are {_KNOWN}.")
    first = shipped["train"]
    for split, arrays in shipped.items():
        if set(arrays) != set(first):
            raise UserError(f"{origin} has {_listed(first)} in train and {_listed(arrays)} in {split}: give the same.")
        x = arrays["x"]
        if x.shape[1:] != first["x"].shape[1:] or x.dtype != first["x"].dtype:
            raise UserError(
                f"{origin} has x of {x.dtype} {list(x.shape)} in {split}, which does not fit the "
                f"{first['x'].dtype} {list(first['x'].shape)} of train: give examples of one shape."
            )
        if not len(x):
            raise UserError(f"{origin} has no examples in its {split} split: give some, or leave the split out.")
        if "label" in arrays and len(arrays["label"]) != len(x):
            raise UserError(f"{origin} has {len(arrays['label'])} labels of {len(x)} {split} examples: give one each.")


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    return " and ".join(sorted(arrays, reverse=True))


def _resize(shipped: Splits, size: int, origin: str) -> None:
    for arrays in shipped.values():
        x = arrays["x"]
        if x.ndim != 4 or x.shape[-1] == 2:
            raise UserError(f"--data.size {size} has no effect on {origin}, which has no images: leave it out.")
        arrays["x"] = image_files.resize_arrays(x, size)


def _levels(shipped: Splits, given: int | None, origin: str) -> int | None:
    """Returns the number of levels; turns binary images of 0 and 255 into 0 and 1."""
    if np.issubdtype(shipped["train"]["x"].dtype, np.floating):
        return None
    images = [arrays["x"] for arrays in shipped.values()]
    seen = np.zeros(256, bool)
    for x in images:
        seen |= np.bincount(x.reshape(-1), minlength=256) > 0
    if given is None:
        return image_files.make_levels(images, seen)
    highest = int(np.flatnonzero(seen)[-1])
    if highest >= given:
        raise UserError(f"{origin} has the level {highest}, and {given} levels, so that 0 is the lowest: give more.")
    return given


def _number_of_levels(array: np.ndarray, origin: str) -> int:
    if array.size != 1 or not np.issubdtype(array.dtype, np.integer) or not 2 <= array.item() <= 256:
        raise UserError(f"levels of {origin} is not a number from 2 to 256: leave it out, or give one.")
    return int(array.item())


def _check_npz(file: Path) -> None:
    """Compares the size that each array's header declares with its bytes, and all of them with the memory."""
    needed = 0
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.flag_bits & 1:
                    raise ValueError("it is encrypted")
                with archive.open(member) as stream:
                    shape, dtype, _ = mapped_arrays.read_header(stream)
                    if math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
                        raise ValueError(f"{member.filename} does not have the size that it declares")
                needed += member.file_size
    except Exception as error:  # as in `read_npz`
        raise _damaged(file, str(error)) from None
    if needed > memory.physical():
        raise UserError(
            f"The arrays of {file} need {needed / 2**30:.3g} GB of memory; this machine has "
            f"{memory.physical() / 2**30:.3g} GB: save fewer examples, or images as files for --data.name folder:PATH, "
            "which may be larger than memory."
        )


def _damaged(file: Path, fault: str) -> UserError:
    line = re.sub(r"\s+", " ", fault)[:150]
    return UserError(f"{file} is not a readable .npz of arrays ({line}): save it again by numpy.savez.")
