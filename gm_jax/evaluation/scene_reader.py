"""Reads pictures of coloured digits back, without knowing their captions: the other direction of `data.scenes`.

The saturation of a pixel, max - min over its channels, is the ink of a glyph times the chroma of its colour, on any
grey background. So the glyphs are where the saturation is high; an empty row or column between them separates two. Then

    colour        the palette's nearest in the direction of the summed pixel - min over its channels
    size          the longer side of the box: 12 pixels and more are large
    place         the third of the canvas, by rows and columns, around the centre of the box
    relation      the axis along which the centres of two boxes differ more
    background    the nearest grey to the median of the other pixels
    digit         `glyphs-cnn`, a classifier of the box's ink, resized to 14 x 14; its weights are part of gm_jax
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from gm_jax.data.captions import ALONE, NOT_SAID, PLACES, Scenes
from gm_jax.data.scenes import GLYPH_SIDES, GREYS, INKS, SIDE, fitted
from gm_jax.evaluation import features

CROP = max(GLYPH_SIDES)

_SATURATED = 60  # of 255: about a third of the full ink
_LARGE = 12  # pixels
_SMALLEST_PART = 6  # the longer side of what counts as a glyph of its own
_LONGEST_GLYPH = 17  # pixels; what is longer is two glyphs that touch
_THIRDS = (12, 20)  # the centres of places are 8, 16 and 24
_BATCH = 500


class Shown(NamedTuple):
    """What pictures show, apart from the digits' classes.

    Attributes:
        scenes: of N pictures; digit is 0 for each glyph that was found. Of two glyphs, the first is on the left of or
            above the second, and the arrangement is this relation.
        crops: [N, 2, 14, 14] uint8: the ink of each glyph, 0 if there is none.
    """

    scenes: Scenes
    crops: np.ndarray


def read(images: np.ndarray) -> Scenes:
    """Reads what pictures show.

    Args:
        images: [N, 32, 32, 3]; uint8 levels, or floats from 0 to 1.
    Returns:
        Scenes; NOT_SAID stands for what is not shown. Of two glyphs, the first is on the left of or above the second.
    Raises:
        ValueError: the images have another shape.
    """
    shown = find_glyphs(images)
    found = shown.scenes.digit >= 0
    digit = shown.scenes.digit.copy()
    if found.any():
        digit[found] = _classify(shown.crops[found])
    return shown.scenes._replace(digit=digit)


def find_glyphs(images: np.ndarray) -> Shown:
    """Finds the glyphs of pictures, with their colour, size and place.

    Args:
        images: as in `read`.
    """
    x = np.asarray(images)
    if x.ndim != 4 or x.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"Expected images [N, {SIDE}, {SIDE}, 3]; got {list(x.shape)}.")
    x = x.astype(np.float32) if x.dtype == np.uint8 else 255 * np.asarray(x, np.float32)
    num = len(x)
    pair = lambda value: np.full((num, 2), value, np.int32)  # noqa: E731
    digit, colour, size = pair(NOT_SAID), pair(NOT_SAID), pair(NOT_SAID)
    arrangement, background = np.full(num, NOT_SAID, np.int32), np.empty(num, np.int32)
    crops = np.zeros((num, 2, CROP, CROP), np.uint8)
    above_grey = x - x.min(axis=-1, keepdims=True)
    saturation = above_grey.max(axis=-1)
    masks = _without_specks(saturation > _SATURATED)
    for n in range(num):
        background[n] = _background(x[n], masks[n])
        boxes, arrangement[n] = _boxes(masks[n])
        for index, box in enumerate(boxes):
            hue = (above_grey[n][box] * masks[n][box][..., None]).sum(axis=(0, 1))
            digit[n, index] = 0
            colour[n, index] = int(np.argmax(_DIRECTIONS @ hue))
            size[n, index] = int(max(masks[n][box].shape) >= _LARGE)
            ink = np.clip(saturation[n][box] / _CHROMAS[colour[n, index]], 0, 1)
            crops[n, index] = np.rint(255 * fitted(ink, CROP))
        if len(boxes) == 1:
            for array in (digit, colour, size):
                array[n, 1] = ALONE
    return Shown(Scenes(digit, colour, size, arrangement, background), crops)


_ABOVE_GREY = (INKS - INKS.min(axis=1, keepdims=True)).astype(np.float32)
_CHROMAS = _ABOVE_GREY.max(axis=1)
_DIRECTIONS = _ABOVE_GREY / np.linalg.norm(_ABOVE_GREY, axis=1, keepdims=True)

_Box = tuple[slice, slice]


def _without_specks(masks: np.ndarray) -> np.ndarray:
    """Removes the pixels of masks [N, H, W] that have no neighbour among their eight."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(np.int8)
    height, width = masks.shape[1:]
    count = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3))
    return masks & (count > 1)


def _background(image: np.ndarray, mask: np.ndarray) -> int:
    rest = image.mean(axis=-1)[~mask]
    return int(np.argmin(np.abs(GREYS - np.median(rest)))) if len(rest) else NOT_SAID


def _boxes(mask: np.ndarray) -> tuple[list[_Box], int]:
    """Returns the boxes of one or two glyphs, first left or top, and their arrangement; an empty image has no box."""
    whole = _tight(mask, (slice(0, SIDE), slice(0, SIDE)))
    if whole is None:
        return [], NOT_SAID
    best: tuple[float, list[_Box], int] | None = None
    for axis, relation in ((1, "left of"), (0, "above")):
        parts = _halves(mask, whole, axis)
        if parts is None:
            continue
        distance = float(np.abs(np.subtract(_centre(parts[1]), _centre(parts[0]))[axis]))
        if best is None or distance > best[0]:
            best = distance, parts, len(PLACES) + (0 if relation == "left of" else 2)
    if best is not None:
        return best[1], best[2]
    row, column = (int(np.digitize(position, _THIRDS)) for position in _centre(whole))
    return [whole], 3 * row + column


def _halves(mask: np.ndarray, whole: _Box, axis: int) -> list[_Box] | None:
    """Cuts a box along an axis where it is empty, or too long for one glyph; None if there is nothing to cut."""
    profile = mask[whole].sum(axis=1 - axis)
    inner = np.arange(1, len(profile) - 1)
    empty = inner[profile[1:-1] == 0]
    candidates = list(empty[np.argsort(np.abs(empty - len(profile) / 2), kind="stable")])
    if len(profile) > _LONGEST_GLYPH:
        middle = np.arange(len(profile) // 2 - 4, len(profile) // 2 + 5)
        candidates.append(middle[np.argmin(profile[middle])])
    for cut in candidates:
        start, stop = whole[axis].start, whole[axis].stop
        spans = slice(start, start + int(cut)), slice(start + int(cut), stop)
        parts = [_tight(mask, (span, whole[1]) if axis == 0 else (whole[0], span)) for span in spans]
        found = [part for part in parts if part is not None and _longer_side(part) >= _SMALLEST_PART]
        if len(found) == 2:
            return found
    return None


def _tight(mask: np.ndarray, box: _Box) -> _Box | None:
    """Returns the smallest box of the mask inside a box; None if it is empty there."""
    inside = mask[box]
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = box[0].start, box[1].start
    return slice(top + rows[0], top + rows[-1] + 1), slice(left + columns[0], left + columns[-1] + 1)


def _longer_side(box: _Box) -> int:
    return int(max(side.stop - side.start for side in box))


def _centre(box: _Box) -> tuple[float, float]:
    return (box[0].start + box[0].stop) / 2, (box[1].start + box[1].stop) / 2


def _classify(crops: np.ndarray) -> np.ndarray:
    """Classifies crops [M, 14, 14] uint8, [M] from 0 to 9, in batches of one shape."""
    classifier = features.digit_classifier("glyphs-cnn")
    padded = np.concatenate([crops, np.zeros((-len(crops) % _BATCH, CROP, CROP), np.uint8)])[..., None]
    found = [
        np.asarray(_most_likely()(classifier.params, padded[start : start + _BATCH]))
        for start in range(0, len(padded), _BATCH)
    ]
    return np.concatenate(found)[: len(crops)]


@functools.cache
def _most_likely() -> Any:
    apply = features.digit_classifier("glyphs-cnn").apply
    return jax.jit(lambda params, x: apply(params, x).log_probs.argmax(axis=1))
