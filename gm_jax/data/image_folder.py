"""Images in a folder of your own: "folder:PATH".

    PATH/*.png, *.jpg, *.jpeg              images without labels
    PATH/CLASS/**/*.png ...                a subfolder is a class; classes are numbered in alphabetical order, and by
                                           their value if all names are numbers
    PATH/{train,validation,test}/...       splits, each in one of the forms above; `val` is `validation`

Splits that are missing are cut by `splits`. Images are grey if all files are, else RGB; `image_files` has the other
conventions. Names that start with a dot are ignored, and so are files that are not images. The decoded arrays are
cached, unless a file is damaged.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from gm_jax import signals
from gm_jax.data import array_cache, image_files, split_writer, splits
from gm_jax.data.array_cache import Splits
from gm_jax.errors import UserError

T = TypeVar("T")

_CACHE_FORMAT = 1  # increase it if decoding or splitting changes
_DECODED = (".png", ".jpg", ".jpeg")
_OTHER_IMAGES = (".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".jxl", ".ppm", ".pgm")
_SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


class Images(NamedTuple):
    """Decoded images, in memory or mapped.

    Attributes:
        splits: "train", "validation", "test" -> {"x": [N, H, W, C] uint8, "label": [N] int32 if there are classes}.
        levels: 256, or 2 if the pixels take two values, which are then 0 and 1.
        num_classes: the number of classes, or None.
        cut: the rule by which missing splits were cut; None if none was.
        digests: SHA-256 of each array that comes from the cache.
    """

    splits: Splits
    levels: int
    num_classes: int | None
    cut: str | None
    digests: array_cache.Digests


class _Listing(NamedTuple):
    """The image files of each split, in order, with the class of each; the names of the classes."""

    files: dict[str, list[tuple[Path, str | None]]]
    classes: list[str]


def read_folder(folder: Path, size: int | None = None) -> Images:
    """Reads the images of a folder, from the cache if possible.

    Args:
        folder: the folder.
        size: rows and columns of the images; None if all files have one size.
    Raises:
        UserError: the folder does not exist, a file is damaged, empty or too large, the files differ in size and none
            is given, or there are too few images.
    """
    listing = _list(folder)
    entry = _cache_entry(folder, listing, size)
    stored = array_cache.read(entry)
    if stored is None or not _is_usable(stored.splits, stored.facts):
        plan = _plan(entry, folder, listing, size)
        stored = split_writer.write(plan, _decoded(listing, plan.shape, size), _is_usable)
    return Images(stored.splits, **stored.facts, digests=stored.digests)


def _list(folder: Path) -> _Listing:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: give the folder of your images by --data.name folder:PATH. If the images of a "
            "trained run have moved, give `evaluate` the folder that contains theirs now by --data-dir."
        )
    names = {child.name: child for child in _visible(folder) if child.is_dir()}
    shipped = "train" in names and all(name in _SPLIT_NAMES for name in names)
    parts: dict[str, Path] = {_SPLIT_NAMES[name]: child for name, child in names.items()} if shipped else {}
    if len(parts) < len(names) and shipped:
        raise UserError(f"{folder} has both 'val' and 'validation', which mean the same: keep one.")
    files = {split: _with_classes(part) for split, part in (parts or {"train": folder}).items()}
    for part, listed in files.items():
        if not listed:
            where = parts.get(part, folder)
            raise UserError(f"{where} has no PNG or JPEG images: give the folder that has them, or its parent.")
    classes = {name for listed in files.values() for _, name in listed}
    if None in classes and len(classes) > 1:
        raise UserError(f"{folder} has classes in some of its splits only: give all images a class, or none.")
    names_of_classes = sorted(name for name in classes if name is not None)
    if all(re.fullmatch("[0-9]+", name) for name in names_of_classes):
        names_of_classes.sort(key=int)
    return _Listing(files, names_of_classes)


def _with_classes(folder: Path) -> list[tuple[Path, str | None]]:
    """Lists the images of a folder, each with its class; the classes are the subfolders that have images."""
    own: list[tuple[Path, str | None]] = [
        (file, None) for file in _images([child for child in _visible(folder) if not child.is_dir()])
    ]
    below: list[tuple[Path, str | None]] = [
        (file, child.name) for child in _visible(folder) if child.is_dir() for file in _images(sorted(_walk(child)))
    ]
    if own and below:
        raise UserError(
            f"{folder} has images ({own[0][0].name}) beside subfolders of images ({below[0][1]}): put all images into "
            "subfolders, one for each class, or none."
        )
    return own or below


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _visible(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def _images(files: list[Path]) -> list[Path]:
    for file in files:
        if file.suffix.lower() in _OTHER_IMAGES:
            raise UserError(f"{file} is not a PNG or JPEG image: convert it, or move it away.")
    return [file for file in files if file.suffix.lower() in _DECODED]


def _plan(entry: str, folder: Path, listing: _Listing, size: int | None) -> split_writer.Plan:
    shape = _common_shape([file for listed in listing.files.values() for file, _ in listed], size)
    sizes = {split: len(listed) for split, listed in listing.files.items()}
    split_of, cut = splits.sort_examples(sizes, str(folder))
    facts = {"num_classes": len(listing.classes) or None, "cut": cut}
    return split_writer.Plan(entry, shape, split_of, bool(listing.classes), facts, str(folder))


def _decoded(listing: _Listing, shape: tuple[int, ...], size: int | None) -> Iterator[tuple[np.ndarray, int | None]]:
    """Decodes one image after another, split by split."""
    number: dict[str | None, int] = {name: index for index, name in enumerate(listing.classes)}
    for file, name in itertools.chain.from_iterable(listing.files.values()):
        signals.check()
        image = _refusing(file, lambda file=file: image_files.decode(file, shape[-1], size))
        if image.shape != shape:
            raise UserError(f"{file} has changed while it was read: repeat the command.")
        yield image, number.get(name)


def _common_shape(files: list[Path], size: int | None) -> tuple[int, int, int]:
    """Returns [H, W, C] of the decoded images, from the headers alone."""
    first, channels = None, 1
    for file in files:
        found = _refusing(file, lambda file=file: image_files.declared(file))
        channels = max(channels, found.channels)
        first = first or (file, found)
        if size is None and found[:2] != first[1][:2]:
            raise UserError(
                f"{file} has {found.height}x{found.width} pixels, and {first[0].name} has {first[1].height}x"
                f"{first[1].width}: give --data.size N, to which the centre of every image is resized."
            )
    if first is None:
        raise ValueError("no files")
    return (size or first[1].height, size or first[1].width, channels)


def _refusing(file: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except image_files.UnfitError as fault:
        raise UserError(f"{file} {fault}: repair it, or move it away.") from None


def _cache_entry(folder: Path, listing: _Listing, size: int | None) -> str:
    """Names the cache entry; the name changes with the files, their sizes and times, and the size of the images."""
    listed = [
        (split, os.path.relpath(file, folder), name, *_size_and_time(file))
        for split, files in listing.files.items()
        for file, name in files
    ]
    digest = hashlib.sha256(json.dumps([_CACHE_FORMAT, size, listing.classes, listed]).encode()).hexdigest()
    return f"folder-{re.sub('[^A-Za-z0-9_-]', '_', folder.name)[:40]}-{digest[:32]}"


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # a link to nothing; reading it names the file
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


_FACTS = ("levels", "num_classes", "cut")


def _is_usable(found: Splits, facts: object) -> bool:
    """Whether what the cache holds is a decoded folder; its hashes cover the arrays, and not which there are."""
    return (
        isinstance(facts, dict)
        and set(facts) == set(_FACTS)
        and facts["levels"] in (2, 256)
        and isinstance(facts["cut"], str | None)
        and (facts["num_classes"] is None or (type(facts["num_classes"]) is int and facts["num_classes"] > 0))
        and set(found) == set(splits.SPLITS)
        and all(arrays["x"].dtype == np.uint8 and arrays["x"].ndim == 4 for arrays in found.values() if "x" in arrays)
        and all(set(arrays) == ({"x", "label"} if facts["num_classes"] else {"x"}) for arrays in found.values())
    )
