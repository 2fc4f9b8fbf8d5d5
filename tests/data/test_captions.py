"""The language of captions: tokens and text, prompts that are refused, and what a caption says."""

import numpy as np
import pytest

from gm_jax.data import captions
from gm_jax.errors import UserError


def test_tokens_are_padded_and_turn_back_into_the_text():
    text = "a red seven left of a small blue two"
    tokens = captions.encode(text)
    assert (tokens.shape, tokens.dtype) == ((captions.LENGTH,), np.int32)
    assert (tokens[9:] == 0).all()
    assert (tokens[:9] > 0).all()
    assert captions.decode(tokens) == text
    np.testing.assert_array_equal(captions.encode("  A red SEVEN left of a small blue two. "), tokens)


def test_every_word_has_one_token_and_zero_is_padding():
    assert len(set(captions.VOCABULARY)) == len(captions.VOCABULARY) == 34
    for token, word in enumerate(captions.VOCABULARY[1:], start=1):
        assert captions.encode(word)[0] == token
    assert captions.decode(np.zeros(captions.LENGTH, np.int32)) == ""


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        (" , . ", "empty"),
        ("a red sevn", "'sevn'. Did you mean 'seven'"),
        ("a blu two", "'blu'. Did you mean 'blue'"),
        ("a <pad> two", "no word '<pad>'"),
        (" ".join(["red"] * 13), "13 words: give at most 12"),
    ],
)
def test_a_wrong_prompt_is_one_message(prompt, message):
    with pytest.raises(UserError, match=message) as caught:
        captions.encode(prompt)
    assert len(str(caught.value).splitlines()) <= 2


def test_tokens_outside_the_vocabulary_are_refused():
    for tokens in ([-1], [len(captions.VOCABULARY)], [[1, 2]]):
        with pytest.raises(ValueError, match="tokens"):
            captions.decode(np.array(tokens))


def test_the_longest_captions_fit():
    texts = (
        "a small magenta seven right of a large yellow three on white",
        "a large magenta seven at the bottom right on white",
    )
    for text in texts:
        assert captions.decode(captions.encode(text)) == text


def test_a_caption_says_what_it_says_and_leaves_the_rest_free():
    rows = [
        ("a red seven left of a small blue two", (7, 2), (0, 4), (-1, 0), "left of", None),
        ("a large green zero at the top left on white", (0, -2), (2, -2), (1, -2), "top left", "white"),
        ("a cyan one", (1, -2), (3, -2), (-1, -2), None, None),
        ("a magenta nine below a magenta nine on black", (9, 9), (5, 5), (-1, -1), "below", "black"),
        ("a cyan one at the top on grey", (1, -2), (3, -2), (-1, -2), "top", "grey"),
    ]
    scenes = captions.parse(np.stack([captions.encode(row[0]) for row in rows]))
    for index, (_, digit, colour, size, arrangement, background) in enumerate(rows):
        assert tuple(scenes.digit[index]) == digit
        assert tuple(scenes.colour[index]) == colour
        assert tuple(scenes.size[index]) == size
        assert scenes.arrangement[index] == (captions.ARRANGEMENTS.index(arrangement) if arrangement else -1)
        assert scenes.background[index] == (captions.BACKGROUNDS.index(background) if background else -1)
    # Writing what was read gives the same captions.
    np.testing.assert_array_equal(captions.describe(scenes), np.stack([captions.encode(row[0]) for row in rows]))


@pytest.mark.parametrize(
    "text", ["red seven", "a seven", "a red seven on", "a red seven left", "a red seven a blue two"]
)
def test_what_is_not_a_caption_is_refused(text):
    with pytest.raises(UserError, match="not a caption of the grammar"):
        captions.parse(captions.encode(text)[None])
