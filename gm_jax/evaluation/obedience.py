"""Obedience: does a picture show what its caption says?

`scene_reader` reads the picture without knowing the caption, and each attribute that the caption says is compared:

    digit, colour, size   of each digit; a caption of two digits counts half for each
    count                 how many digits there are
    place                 of one digit; a picture of two digits shows none
    relation              of the first digit to the second; a picture of one digit shows none
    background
    caption               all of these at once

A picture of two glyphs is compared in the order in which more digits and colours are right, so that a picture in which
the digits have changed places is wrong in its relation alone. If both orders are equally good, the caption's holds.

Three numbers belong together: the rate of a model's pictures, the rate of real pictures of the same captions (the
ceiling, the reader's own errors), and the rate if captions are shuffled among the pictures (the floor, chance).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gm_jax.data import captions, scenes
from gm_jax.data.captions import NOT_SAID, PLACES, Scenes
from gm_jax.evaluation import scene_reader

ATTRIBUTES = ("digit", "colour", "size", "count", "place", "relation", "background", "caption")
GROUPS = ("all", "seen", "held_out")

_MOST_SHUFFLES = 100


class Rate(NamedTuple):
    """A share of pictures.

    Attributes:
        rate: the mean, from 0 to 1; nan if no caption says the attribute.
        standard_error: of (sum + 2) / (count + 4), which is near the mean and whose error is not 0 if all obey (Agresti
            & Coull, "Approximate Is Better than 'Exact' for Interval Estimation of Binomial Proportions", 1998); a half
            counts as a half; nan if no caption says the attribute.
        count: captions that say the attribute.
    """

    rate: float
    standard_error: float
    count: int


Rates = Mapping[str, Mapping[str, Rate]]  # group -> attribute -> Rate


def obedience(images: np.ndarray, tokens: np.ndarray) -> Rates:
    """Measures how pictures obey their captions.

    Args:
        images: [N, 32, 32, 3]; uint8 levels, or floats from 0 to 1.
        tokens: [N, LENGTH], the caption of each picture.
    Returns:
        For all captions, and for those without and with a combination that training does not have, the rate of each
        attribute.
    Raises:
        UserError: a caption does not follow the grammar of `data.captions`.
        ValueError: the numbers of pictures and captions differ, or the pictures have another shape.
    """
    said = captions.parse(tokens)
    if len(images) != len(said.background):
        raise ValueError(f"Expected one caption for each picture; got {len(said.background)} for {len(images)}.")
    return _rates(obeyed(scene_reader.read(images), said), scenes.held_out(said))


def floor(images: np.ndarray, tokens: np.ndarray) -> Rates:
    """Measures what `obedience` finds if captions are shuffled among the pictures: the mean over many shuffles.

    The k-th shuffle gives each picture the caption of the one k S places later, S = N / (number of shuffles + 1). The
    standard errors are those of one shuffle.

    Args:
        images: as in `obedience`; at least two.
        tokens: as in `obedience`.
    Raises:
        UserError: as in `obedience`.
        ValueError: as in `obedience`, or there are fewer than two pictures.
    """
    said, num = captions.parse(tokens), len(images)
    if num != len(said.background) or num < 2:
        raise ValueError(f"Expected two pictures or more, each with a caption; got {num} and {len(said.background)}.")
    shown, held_out = scene_reader.read(images), scenes.held_out(said)
    shuffles = min(num - 1, _MOST_SHUFFLES)
    each = [
        obeyed(shown.rows(np.roll(np.arange(num), shuffle * num // (shuffles + 1))), said)
        for shuffle in range(1, shuffles + 1)
    ]
    one = _rates(each[0], held_out)
    mean = _rates({name: np.mean([right[name] for right in each], axis=0) for name in ATTRIBUTES}, held_out)
    return {
        group: {name: rate._replace(standard_error=one[group][name].standard_error) for name, rate in rates.items()}
        for group, rates in mean.items()
    }


def obeyed(shown: Scenes, said: Scenes) -> dict[str, np.ndarray]:
    """Compares what N pictures show with what their captions say.

    Args:
        shown: from `scene_reader.read`: of two glyphs, the first is on the left of or above the second.
        said: from `captions.parse`.
    Returns:
        attribute -> [N] float64: 1 for obeyed, 0 for not, 1/2 if one of two digits obeys, nan if it is not said.
    """
    said = _left_or_upper_first(said)
    two, shows_two = said.digit[:, 1] >= 0, shown.digit[:, 1] >= 0
    swapped = shown._replace(**{name: getattr(shown, name)[:, ::-1] for name in ("digit", "colour", "size")})
    score = lambda scene: sum(_each(getattr(scene, n), getattr(said, n)).sum(axis=1) for n in ("digit", "colour"))  # noqa: E731
    swap = np.greater(score(swapped), score(shown))
    digit, colour, size = (np.where(swap[:, None], b, a) for a, b in zip(shown[:3], swapped[:3], strict=True))
    in_order = shown._replace(digit=digit, colour=colour, size=size)
    right: dict[str, np.ndarray] = {}
    for name in ("digit", "colour", "size"):
        given, says = getattr(in_order, name), getattr(said, name)
        with np.errstate(invalid="ignore"):
            right[name] = _each(given, says).sum(axis=1) / (says >= 0).sum(axis=1)
    count = np.where(shown.digit[:, 0] < 0, 0, 1 + shows_two)
    right["count"] = (count == 1 + two).astype(np.float64)
    same = (shown.arrangement == said.arrangement) & (count == 1 + two)
    right["place"] = np.where(~two & (said.arrangement != NOT_SAID), same, np.nan)
    right["relation"] = np.where(two, same & ~swap, np.nan)
    right["background"] = np.where(said.background >= 0, shown.background == said.background, np.nan)
    right["caption"] = np.all([np.isnan(each) | (each == 1) for each in right.values()], axis=0).astype(np.float64)
    return right


def _left_or_upper_first(said: Scenes) -> Scenes:
    """Writes "right of" and "below" the other way round."""
    relation = said.arrangement - len(PLACES)
    turn = (relation >= 0) & (relation % 2 == 1)
    digit, colour, size = (np.where(turn[:, None], array[:, ::-1], array) for array in said[:3])
    arrangement = np.where(turn, said.arrangement - 1, said.arrangement)
    return Scenes(digit, colour, size, arrangement, said.background)


def _each(shown: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Tells for each digit of a caption whether what it says is shown, [N, 2] bool."""
    return (said >= 0) & (shown == said)


def _rates(right: Mapping[str, np.ndarray], held_out: np.ndarray) -> Rates:
    groups = {"all": np.ones(len(held_out), bool), "seen": ~held_out, "held_out": held_out}
    return {group: {name: _rate(right[name][rows]) for name in ATTRIBUTES} for group, rows in groups.items()}


def _rate(right: np.ndarray) -> Rate:
    kept = right[~np.isnan(right)]
    if not len(kept):
        return Rate(float("nan"), float("nan"), 0)
    with_four = np.concatenate([kept, [0.0, 0.0, 1.0, 1.0]])
    return Rate(float(kept.mean()), float(with_four.std() / np.sqrt(len(with_four))), len(kept))
