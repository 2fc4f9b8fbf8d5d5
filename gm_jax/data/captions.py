"""A small language for pictures of digits: the words, captions as tokens, and what a caption says.

    a [SIZE] COLOUR DIGIT [at the PLACE] [on BACKGROUND]                       one digit
    a [SIZE] COLOUR DIGIT RELATION a [SIZE] COLOUR DIGIT [on BACKGROUND]       two digits, e.g.

        a red seven left of a small blue two

What a caption does not say is free. The vocabulary is closed: 33 words and the padding, token 0. `scenes` draws the
pictures; `evaluation.obedience` reads them back.
"""

import re
from typing import NamedTuple

import numpy as np

from gm_jax.data.names import unknown_name
from gm_jax.errors import UserError

LENGTH = 12  # tokens of a caption, padded with 0

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
SIZES = ("small", "large")
BACKGROUNDS = ("black", "grey", "white")
# The rows of a 3 x 3 board, then the relations of the first digit to the second.
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
ARRANGEMENTS = PLACES + RELATIONS
ALONE, NOT_SAID = -2, -1

VOCABULARY = (
    *("<pad>", "a", "at", "the", "on", "of"),
    *("left", "right", "top", "bottom", "centre", "above", "below"),
    *(*DIGITS, *COLOURS, *SIZES, *BACKGROUNDS),
)

_TOKEN = {word: token for token, word in enumerate(VOCABULARY)}


class Scenes(NamedTuple):
    """What N captions say, or what N pictures show, as indices of the words above.

    Attributes:
        digit: [N, 2] of DIGITS: the first and the second digit; ALONE for the second if there is one digit.
        colour: [N, 2] of COLOURS, in the same order.
        size: [N, 2] of SIZES.
        arrangement: [N] of ARRANGEMENTS: the place of one digit, or the relation of the first of two to the second.
        background: [N] of BACKGROUNDS.

    An entry is NOT_SAID if a caption leaves it free, or if a picture does not show it.
    """

    digit: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    arrangement: np.ndarray
    background: np.ndarray

    def rows(self, index: np.ndarray | slice) -> "Scenes":
        """Returns the scenes of some rows."""
        return Scenes(*(array[index] for array in self))


def encode(text: str) -> np.ndarray:
    """Turns a prompt into tokens.

    Args:
        text: words of the vocabulary in any order; letters may be large, and commas and full stops are ignored.
    Returns:
        [LENGTH] int32, padded with 0.
    Raises:
        UserError: the prompt is empty or too long, or has an unknown word.
    """
    words = re.sub(r"[,.]", " ", text.lower()).split()
    if not words:
        raise UserError(f'the prompt is empty: write one such as "{decode(_EXAMPLE)}".')
    for word in words:
        if _TOKEN.get(word, 0) == 0:
            raise unknown_name("word", word, VOCABULARY[1:])
    if len(words) > LENGTH:
        raise UserError(f"the prompt has {len(words)} words: give at most {LENGTH}.")
    return _padded([_TOKEN[word] for word in words])


def decode(tokens: np.ndarray) -> str:
    """Turns the tokens [L] of a caption into its text; padding is left out.

    Raises:
        ValueError: a token is not one of the vocabulary.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not ((tokens >= 0) & (tokens < len(VOCABULARY))).all():
        raise ValueError(f"Expected tokens [L] from 0 to {len(VOCABULARY) - 1}; got {tokens}.")
    return " ".join(VOCABULARY[token] for token in tokens if token)


def describe(scenes: Scenes) -> np.ndarray:
    """Writes the captions of scenes.

    Args:
        scenes: of N; size, place and background may be NOT_SAID.
    Returns:
        [N, LENGTH] int32.
    """
    two = scenes.digit[:, 1] >= 0
    first, second = (_noun_phrase(scenes, index) for index in (0, 1))
    relation, place = (np.where(mask, scenes.arrangement, NOT_SAID) for mask in (two, ~two))
    columns = [*first, *_column(_words(ARRANGEMENTS, 2), relation), *second]
    columns += [*_column(_words([f"at the {name}" for name in ARRANGEMENTS], 4), place)]
    columns += [*_column(_words([f"on {name}" for name in BACKGROUNDS], 2), scenes.background)]
    slots = np.stack(columns, axis=1)
    order = np.argsort(slots == 0, axis=1, kind="stable")  # words first, then the gaps
    return np.take_along_axis(slots, order, axis=1)[:, :LENGTH].astype(np.int32)


def parse(tokens: np.ndarray) -> Scenes:
    """Reads what captions say.

    Args:
        tokens: [N, LENGTH].
    Raises:
        UserError: a caption does not follow the grammar.
    """
    rows = [_parse(decode(caption)) for caption in np.asarray(tokens)]
    digit, colour, size = (np.array([row[i] for row in rows], np.int32).reshape(-1, 2) for i in range(3))
    return Scenes(digit, colour, size, *(np.array([row[i] for row in rows], np.int32) for i in (3, 4)))


_NOUN = f"a (?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) ({'|'.join(DIGITS)})"
_LONGEST_FIRST = "|".join(sorted(PLACES, key=len, reverse=True))
_GRAMMAR = re.compile(
    f"{_NOUN}(?: at the ({_LONGEST_FIRST})| ({'|'.join(RELATIONS)}) {_NOUN})?(?: on ({'|'.join(BACKGROUNDS)}))?"
)


def _parse(text: str) -> tuple[list[int], list[int], list[int], int, int]:
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise UserError(
            f'"{text}" is not a caption of the grammar, so that no picture can be compared with it: write one such as '
            f'"{decode(_EXAMPLE)}".'
        )
    size, colour, digit, place, relation, size2, colour2, digit2, background = match.groups()
    alone = ALONE if relation is None else NOT_SAID
    index = lambda names, word, missing=NOT_SAID: missing if word is None else names.index(word)  # noqa: E731
    return (
        [index(DIGITS, digit), index(DIGITS, digit2, alone)],
        [index(COLOURS, colour), index(COLOURS, colour2, alone)],
        [index(SIZES, size), index(SIZES, size2, alone)],
        index(ARRANGEMENTS, place or relation),
        index(BACKGROUNDS, background),
    )


def _noun_phrase(scenes: Scenes, index: int) -> list[np.ndarray]:
    """Returns the columns "a", size, colour, digit of the first or the second digit; 0 where there is no word."""
    present = np.where(scenes.digit[:, index] >= 0, 0, NOT_SAID)
    parts = (SIZES, scenes.size), (COLOURS, scenes.colour), (DIGITS, scenes.digit)
    article = _column(_words(["a"], 1), present)
    return [*article, *(column for names, array in parts for column in _column(_words(names, 1), array[:, index]))]


def _words(names: tuple[str, ...] | list[str], width: int) -> np.ndarray:
    """Returns the tokens of names, [names + 1, width]; the last row, which index -1 selects, is 0."""
    rows = [[_TOKEN[word] for word in name.split()] for name in names] + [[]]
    return np.array([row + [0] * (width - len(row)) for row in rows])


def _column(table: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    """Returns the columns of the rows that an index [N] selects; a negative index selects 0."""
    return list(table[np.maximum(index, -1)].T)


def _padded(tokens: list[int]) -> np.ndarray:
    return np.array(tokens + [0] * (LENGTH - len(tokens)), np.int32)


_EXAMPLE = _padded([_TOKEN[word] for word in ["a", "red", "seven", "left", "of", "a", "small", "blue", "two"]])
