"""Captioned pictures: one or two digits in colour on canvases of 32 x 32 x 3, whose captions are true.

    captions         the digits of scikit-learn        captions:mnist   the digits of MNIST, which must be prepared

Scene k of a split is a pure function of (seed, k): it is made of words k W ... (k + 1) W - 1 of one Philox stream. The
digits of train, validation and test are different handwriting. A glyph is drawn if its five (MNIST: ten) nearest glyphs
of train all are the same digit, because the data are to be legible.

A picture is a blend of one grey and saturated colours,

    x = background + a (colour - background),    0 <= a <= 1 the ink of the glyph                         (1)

so that max(x) - min(x) over the channels is a times the chroma of the colour, on any background. `evaluation.obedience`
reads ink and hue by this.

Held out are 30 of the 300 combinations (digit, colour, relation), relation = alone or one of captions.RELATIONS, seen
from the digit: a red seven left of a blue two is (seven, red, left of) and (two, blue, right of). Train and validation
have none of them; every second scene of test has one. Each pair (digit, colour), (colour, relation), (digit, relation)
remains in train.
"""

from typing import NamedTuple

import numpy as np

from gm_jax.data.array_cache import Splits
from gm_jax.data.captions import (
    ALONE,
    BACKGROUNDS,
    COLOURS,
    DIGITS,
    NOT_SAID,
    PLACES,
    RELATIONS,
    SIZES,
    Scenes,
    describe,
)

CAPTIONS, CAPTIONS_MNIST = "captions", "captions:mnist"
NAMES = (CAPTIONS, CAPTIONS_MNIST)
NUM_EXAMPLES = {"train": 20_000, "validation": 2_000, "test": 2_000}
SIDE = 32
LEVELS = 256
GLYPH_SIDES = (10, 14)  # pixels of a small and of a large glyph, the longer of its sides
INKS = np.array(
    [[225, 25, 25], [222, 202, 22], [25, 190, 25], [25, 200, 225], [40, 60, 240], [225, 30, 210]], np.int64
)  # of COLOURS
GREYS = np.array([12, 120, 243], np.int64)  # of BACKGROUNDS

_SEED = 32
_MOST_GLYPHS = {"train": 4_000, "validation": 500, "test": 500}  # of a set larger than scikit-learn's
_FAINT = 0.15  # of the ink of a glyph; what is fainter does not count for its box
_WORDS = 24  # of the stream, for each scene
_BOX = max(GLYPH_SIDES)


class Glyphs(NamedTuple):
    """The handwriting of one split.

    Attributes:
        ink: [N, sizes, 14, 14] int64 of 0..255; a small glyph fills the first 10 rows and columns.
        first: [11] int64: the glyphs of digit d are first[d] ... first[d + 1] - 1.
    """

    ink: np.ndarray
    first: np.ndarray


def caption_splits(digits: Splits, levels: int, *, neighbours: int = 5) -> Splits:
    """Draws the splits, always the same arrays for the same digits.

    Args:
        digits: splits of uint8 levels [N, H, W, 1] with labels.
        levels: how many levels they have.
        neighbours: a glyph is drawn if so many nearest glyphs of train all are the same digit.
    Returns:
        "train" (20,000), "validation" (2,000), "test" (2,000) ->
            {"x": [N, 32, 32, 3] uint8, "tokens": [N, LENGTH] int32}.
    """
    splits = {}
    for index, (split, glyphs) in enumerate(handwriting(digits, levels, neighbours=neighbours).items()):
        words = _stream(_SEED, index, NUM_EXAMPLES[split])
        scenes = draw_scenes(words, with_held_out=split == "test")
        said = _leave_unsaid(scenes, words)
        splits[split] = {"x": paint(scenes, glyphs, words), "tokens": describe(said)}
    return splits


def is_held_out(digit: np.ndarray, colour: np.ndarray, relation: np.ndarray) -> np.ndarray:
    """Tells which combinations training does not have; one in ten, a Latin pattern.

    Args:
        digit: indices of captions.DIGITS, of any shape.
        colour: indices of captions.COLOURS.
        relation: 0 for a digit alone, 1 ... 4 for captions.RELATIONS, seen from this digit.
    """
    return (digit + 3 * colour + 7 * relation) % 10 == 0


def held_out(scenes: Scenes) -> np.ndarray:
    """Tells which scenes have a combination that training does not have, [N] bool."""
    two = scenes.digit[:, 1] >= 0
    relation = np.where(two, scenes.arrangement - len(PLACES), 0)
    seen_from = np.stack([np.where(two, relation + 1, 0), np.where(two, (relation ^ 1) + 1, 0)], axis=1)
    each = is_held_out(scenes.digit, scenes.colour, seen_from)
    return each[:, 0] | (each[:, 1] & two)


def draw_scenes(words: np.ndarray, with_held_out: bool) -> Scenes:
    """Draws scenes: with equal probability one digit in one of nine places, or two in one of four relations.

    Args:
        words: [N, 24] uint64, random.
        with_held_out: whether every second scene has a held-out combination; else none has.
    """
    num = len(words)
    two = _below(words[:, 0], 2) == 1
    relation = _below(words[:, 1], len(RELATIONS))
    arrangement = np.where(two, len(PLACES) + relation, _below(words[:, 2], len(PLACES)))
    rare = (np.arange(num) % 2 == 1) if with_held_out else np.zeros(num, bool)
    which = np.where(two, _below(words[:, 3], 2), 0)  # the digit that is held out, in a rare scene
    digit, colour = np.empty((num, 2), np.int64), np.empty((num, 2), np.int64)
    for index in (0, 1):
        seen_from = np.where(two, (relation ^ index) + 1, 0)
        all_words, kept_words = words[:, 4 + index], words[:, 6 + index]
        usual = _combination(kept_words, seen_from, held_out=False)
        held = _combination(kept_words, seen_from, held_out=True)
        other = np.where(rare, _below(all_words, len(DIGITS) * len(COLOURS)), usual)
        digit[:, index], colour[:, index] = np.divmod(np.where(rare & (which == index), held, other), len(COLOURS))
    size = np.stack([_below(words[:, 8 + index], len(SIZES)) for index in (0, 1)], axis=1)
    for array in (digit, colour, size):
        array[~two, 1] = ALONE
    return Scenes(digit, colour, size, arrangement, _below(words[:, 10], len(BACKGROUNDS)))


def paint(scenes: Scenes, glyphs: Glyphs, words: np.ndarray) -> np.ndarray:
    """Paints scenes, (1).

    Args:
        scenes: N of them, with nothing left unsaid.
        glyphs: the handwriting to choose from.
        words: [N, 24] uint64, random: of them come the handwriting and the exact positions.
    Returns:
        [N, 32, 32, 3] uint8.
    """
    num, room = len(words), SIDE + _BOX  # room for the empty part of a small glyph's box
    canvas = np.empty((num, room, room, 3), np.uint8)
    canvas[:] = GREYS[scenes.background].astype(np.uint8)[:, None, None, None]
    box = np.arange(_BOX)
    for index in (0, 1):
        chosen = np.flatnonzero(scenes.digit[:, index] >= 0)
        digit, size = scenes.digit[chosen, index], scenes.size[chosen, index]
        count = (glyphs.first[1:] - glyphs.first[:-1])[digit]
        glyph = glyphs.first[digit] + _below(words[chosen, 11 + index], count)
        ink = glyphs.ink[glyph, size][..., None].astype(np.int32)  # [n, 14, 14, 1]
        top, left = _corner(scenes.rows(chosen), index, words[chosen, 13 + 2 * index], words[chosen, 14 + 2 * index])
        where = (chosen[:, None, None], (top[:, None] + box)[:, :, None], (left[:, None] + box)[:, None, :])
        colour = INKS[scenes.colour[chosen, index]].astype(np.int32)[:, None, None, :]
        canvas[where] = (canvas[where] * (255 - ink) + colour * ink + 127) // 255
    return canvas[:, :SIDE, :SIDE].copy()


def handwriting(digits: Splits, levels: int, *, neighbours: int = 5) -> dict[str, Glyphs]:
    """Chooses legible digits and draws each in both sizes; those of the splits are different.

    Args:
        digits: splits of uint8 levels [N, H, W, 1] with labels.
        levels: how many levels they have.
        neighbours: a glyph is kept if so many nearest glyphs of train all are the same digit.
    """
    images, labels = {}, {}
    for split, arrays in digits.items():
        most = _MOST_GLYPHS[split]
        images[split] = np.asarray(arrays["x"][:most])[..., 0].astype(np.float64) / (levels - 1)
        labels[split] = np.asarray(arrays["label"][:most])
    reference, glyphs = images["train"].reshape(len(images["train"]), -1), {}
    for split, x in images.items():
        flat, label = x.reshape(len(x), -1), labels[split]
        distance = (reference**2).sum(1) - 2 * flat @ reference.T  # up to a constant for each row
        if split == "train":
            np.fill_diagonal(distance, np.inf)
        nearest = np.argpartition(distance, neighbours, axis=1)[:, :neighbours]
        kept = np.flatnonzero((labels["train"][nearest] == label[:, None]).all(axis=1))
        kept = kept[np.argsort(label[kept], kind="stable")]
        ink = np.stack([_in_both_sizes(image) for image in x[kept]])
        glyphs[split] = Glyphs(ink, np.searchsorted(label[kept], np.arange(len(DIGITS) + 1)))
    return glyphs


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes a picture [H, W] so that its longer side is `side`, in the middle of a square [side, side] of zeros."""
    scale = side / max(image.shape)
    height, width = (max(1, round(length * scale)) for length in image.shape)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side))
    square[top : top + height, left : left + width] = (
        _resampling(image.shape[0], height) @ image @ _resampling(image.shape[1], width).T
    )
    return square


def _in_both_sizes(image: np.ndarray) -> np.ndarray:
    """Crops a glyph [H, W] of 0..1 to its box and resizes it, [2, 14, 14] of 0..255."""
    ink = image > _FAINT
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    sizes = np.zeros((len(GLYPH_SIDES), _BOX, _BOX), np.int64)
    for index, side in enumerate(GLYPH_SIDES):
        drawn = fitted(box, side)
        # Steeper than linear, so that edges of enlarged digits are not blurred.
        sizes[index, :side, :side] = np.rint(255 * np.clip(1.5 * (drawn / drawn.max() - 0.5) + 0.5, 0, 1))
    return sizes


def _resampling(length: int, new: int) -> np.ndarray:
    """Returns the matrix [new, length] that resizes linearly, and smooths if it shrinks."""
    scale = length / new
    centre = (np.arange(new) + 0.5) * scale - 0.5
    centre = np.clip(centre, 0, length - 1)
    weight = np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(length)) / max(scale, 1))
    return weight / weight.sum(axis=1, keepdims=True)


def _corner(scenes: Scenes, index: int, down: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the top and the left, [n] each, of the box of the first or second digit; the words shift it.

    One digit is near one of 3 x 3 points. Two digits are each in their half of the canvas, with two rows or columns
    between them, and near the middle in the other direction.
    """
    side = np.asarray(GLYPH_SIDES)[scenes.size[:, index]]
    two = scenes.digit[:, 1] >= 0
    row, column = np.divmod(np.where(two, 0, scenes.arrangement), 3)
    relation = scenes.arrangement - len(PLACES)
    later = (relation + index) % 2  # 0 for the half that is left or above
    corners = []
    for cell, along, word in ((row, relation >= 2, down), (column, relation < 2, across)):
        alone = 8 * (cell + 1) - side // 2 + _below(word, np.full(len(word), 3)) - 1
        low, room = np.where(along, 1 + 16 * later, 8), np.where(along, 14, 16)
        corners.append(np.where(two, low + _below(word, room - side + 1), alone))
    return corners[0], corners[1]


def _leave_unsaid(scenes: Scenes, words: np.ndarray) -> Scenes:
    """Leaves words out of one caption in eight: each size with probability 1/2, the background too, a place with 1/4.

    More would slow learning: errors of what is unsaid hide what words change.
    """
    is_short = _below(words[:, 21], 8) == 0
    unsaid = np.stack([_below(words[:, 17 + index], 2) == 0 for index in (0, 1)], axis=1) & is_short[:, None]
    no_place = (_below(words[:, 19], 4) == 0) & (scenes.digit[:, 1] < 0) & is_short
    no_background = (_below(words[:, 20], 2) == 0) & is_short
    return scenes._replace(
        size=np.where(unsaid & (scenes.size >= 0), NOT_SAID, scenes.size),
        arrangement=np.where(no_place, NOT_SAID, scenes.arrangement),
        background=np.where(no_background, NOT_SAID, scenes.background),
    )


def _combination(words: np.ndarray, relation: np.ndarray, held_out: bool) -> np.ndarray:
    """Chooses digit * 6 + colour, [N], among the combinations of each relation that are held out, or are not."""
    digit, colour = np.divmod(np.arange(len(DIGITS) * len(COLOURS)), len(COLOURS))
    table = [np.flatnonzero(is_held_out(digit, colour, np.array(r)) == held_out) for r in range(len(RELATIONS) + 1)]
    allowed = np.stack(table)  # the same number for each relation
    return allowed[relation, _below(words, allowed.shape[1])]


def _below(words: np.ndarray, end: int | np.ndarray) -> np.ndarray:
    """Turns random words into integers below `end`, each equally probable to 1e-17."""
    return (words % np.asarray(end).astype(np.uint64)).astype(np.int64)


def _stream(seed: int, split: int, num: int) -> np.ndarray:
    """Returns the words of scenes 0 ... num - 1 of a split, [num, 24] uint64."""
    words = np.random.Philox(key=np.array([seed, split], np.uint64)).random_raw(num * _WORDS)
    return words.reshape(num, _WORDS)
