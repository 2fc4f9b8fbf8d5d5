"""Sorts decoded images into the splits, one at a time: in memory, or on disk if they need more than MOST_IN_MEMORY.

On disk they go straight into an entry of `array_cache`, from which they are then read by memory map, so that any number
of images is decoded in the memory of a few. Both ways end with the same arrays.
"""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import array_cache, image_files, memory
from gm_jax.data.array_cache import Splits, Stored
from gm_jax.data.splits import SPLITS
from gm_jax.errors import UserError
from gm_jax.files import cache_home

Examples = Iterable[tuple[np.ndarray, int | None]]  # image [H, W, C] uint8, label

_LOG = logging.getLogger("gm_jax")


class Plan(NamedTuple):
    """What is to be decoded.

    Attributes:
        entry: name of the cache entry.
        shape: [H, W, C] of every image.
        split_of: [N] uint8, for each example in the order of decoding its split, an index into SPLITS.
        has_labels: whether each example has a label.
        facts: of the data, except "levels", which is found here.
        origin: of the data, for messages.
        remedy: what to do if they are too many.
    """

    entry: str
    shape: tuple[int, ...]
    split_of: np.ndarray
    has_labels: bool
    facts: Mapping[str, Any]
    origin: str
    remedy: str = "choose a smaller --data.size, or fewer images"

    @property
    def num_bytes(self) -> int:
        """Bytes of all images."""
        return len(self.split_of) * math.prod(self.shape)

    def shapes(self) -> dict[str, dict[str, tuple[tuple[int, ...], np.dtype]]]:
        """Returns split -> name -> shape and dtype of its array."""
        sizes = np.bincount(self.split_of, minlength=len(SPLITS)).tolist()
        return {
            split: {
                "x": ((size, *self.shape), np.dtype(np.uint8)),
                **({"label": ((size,), np.dtype(np.int32))} if self.has_labels else {}),
            }
            for split, size in zip(SPLITS, sizes, strict=True)
        }


def write(plan: Plan, examples: Examples, is_usable: Callable[[Splits, Any], bool]) -> Stored:
    """Decodes examples into their splits, and keeps them in the cache.

    Args:
        plan: what is to be decoded.
        examples: N images and labels, each decoded when it is needed.
        is_usable: whether what the cache holds (splits, facts) is what the plan describes; asked if another process has
            decoded the same data in the meantime.
    Returns:
        The splits, the plan's facts and "levels"; without hashes for what is in memory.
    Raises:
        UserError: the images fit neither into memory nor on the disk of the cache.
    """
    if plan.num_bytes > memory.MOST_IN_MEMORY:
        stored = _read_or_write_on_disk(plan, examples, is_usable)
        return _write_in_memory(plan, examples) if stored is None else stored
    stored = _write_in_memory(plan, examples)
    array_cache.write(plan.entry, stored.splits, stored.facts)
    return stored


def _read_or_write_on_disk(plan: Plan, examples: Examples, is_usable: Callable[[Splits, Any], bool]) -> Stored | None:
    """Returns the images in the cache; None if it has no room for them, but memory has.

    The room is measured when no other process decodes, and what killed ones have left and the plan's own damaged entry
    are removed.

    Raises:
        UserError: as of `write`.
    """
    root = cache_home()
    with contextlib.ExitStack() as stack:
        try:
            if root is not None:
                stack.enter_context(array_cache.alone(root))
        except OSError:
            root = None
        if root is None:
            _refuse_without_memory(plan, None)
            return None
        stored = array_cache.read(plan.entry)  # another process may have decoded the same data in the meantime
        if stored is not None and is_usable(stored.splits, stored.facts):
            return stored
        del stored
        array_cache.remove(plan.entry)
        free = shutil.disk_usage(root).free if os.access(root, os.W_OK | os.X_OK) else None
        if free is None or plan.num_bytes >= free:
            _refuse_without_memory(plan, free)
            return None
        with _naming(plan, root):
            folder = stack.enter_context(array_cache.building(root))
        _write_on_disk(plan, examples, folder, root)
        stored = array_cache.read(plan.entry)
    if stored is None:
        raise UserError(f"{root / plan.entry} was removed or changed while it was written: repeat the command.")
    return stored


def _refuse_without_memory(plan: Plan, free: int | None) -> None:
    """Warns that the images, for which the cache has no room, are decoded into memory.

    Args:
        plan: what is to be decoded.
        free: bytes of the cache's disk; None if the cache cannot be written to.

    Raises:
        UserError: the memory is too small.
    """
    cache = cache_home() or "the cache"
    has = "cannot be written to" if free is None else f"has {_gb(free)} free"
    if plan.num_bytes > memory.physical() // 2:
        raise UserError(
            f"The {_described(plan)} need {_gb(plan.num_bytes)}; {cache} {has}, and this machine has "
            f"{_gb(memory.physical())} of memory:\n{plan.remedy}, or name a larger disk by XDG_CACHE_HOME."
        )
    lacks = "cannot be written to" if free is None else "has no room"
    _LOG.warning("%s %s: images of %s are read into memory", cache, lacks, _gb(plan.num_bytes))


def _write_in_memory(plan: Plan, examples: Examples) -> Stored:
    splits = {
        split: {name: memory.allocate(*spec, plan.origin, plan.remedy) for name, spec in arrays.items()}
        for split, arrays in plan.shapes().items()
    }
    x = [arrays["x"] for arrays in splits.values()]
    seen = _sort(plan, examples, lambda split, name, row, value: splits[split][name].__setitem__(row, value))
    return Stored(splits, {**plan.facts, "levels": image_files.make_levels(x, seen)}, {})


def _write_on_disk(plan: Plan, examples: Examples, folder: Path, root: Path) -> None:
    _LOG.warning("decoding the %s into %s, which takes a while, once", _described(plan), root)
    with array_cache.Writer(folder, plan.shapes()) as writer:

        def append(split: str, name: str, _: int, value: Any) -> None:
            with _naming(plan, root):
                writer.append(split, name, value)

        seen = _sort(plan, examples, append)
        levels = image_files.make_levels([], seen)
        with _naming(plan, root):
            if levels == 2 and seen[255]:
                writer.change("x", lambda part: np.minimum(part, 1))
            writer.finish(root / plan.entry, {**plan.facts, "levels": levels})


def _sort(plan: Plan, examples: Examples, put: Callable[[str, str, int, Any], None]) -> np.ndarray:
    """Gives each example to put(split, name of the array, row in it, value); returns the pixel values seen, [256] bool.

    After a value that is neither 0 nor 1 nor 255 the others are not looked at, because the levels are known to be 256.
    """
    seen = np.zeros(256, bool)
    rows, are_256 = [0] * len(SPLITS), False
    for index, (image, label) in zip(plan.split_of.tolist(), examples, strict=True):
        put(SPLITS[index], "x", rows[index], image)
        if plan.has_labels:
            put(SPLITS[index], "label", rows[index], np.int32(label))  # pyright: ignore[reportArgumentType]
        rows[index] += 1
        if not are_256:
            seen[image] = True
            are_256 = bool(seen[2:255].any())
    return seen


@contextlib.contextmanager
def _naming(plan: Plan, root: Path) -> Iterator[None]:
    """Explains the errors of the cache's disk."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The {_described(plan)} cannot be kept in {root} ({error.strerror or error}): free "
            f"{_gb(plan.num_bytes)} there, or name a larger disk by XDG_CACHE_HOME."
        ) from None


def _described(plan: Plan) -> str:
    return f"{len(plan.split_of):,} examples of {plan.origin}"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g} GB"
