"""Reading pictures of coloured digits back: real canvases, damaged ones, and pictures without digits."""

import numpy as np
import pytest

from gm_jax.data import captions, scenes, sources
from gm_jax.evaluation import scene_reader


@pytest.fixture(scope="module")
def pictures():
    """Test pictures and everything that they show, whether their caption says it or not."""
    words = scenes._stream(7, 2, 400)
    drawn = scenes.draw_scenes(words, with_held_out=True)
    glyphs = scenes.handwriting(sources.load("digits").splits, 17)["test"]
    return scenes.paint(drawn, glyphs, words), _left_or_upper_first(drawn)


def _left_or_upper_first(drawn):
    turn = np.isin(drawn.arrangement, [captions.ARRANGEMENTS.index(name) for name in ("right of", "below")])
    digit, colour, size = (np.where(turn[:, None], array[:, ::-1], array) for array in drawn[:3])
    return captions.Scenes(digit, colour, size, drawn.arrangement - turn, drawn.background)


def test_what_a_picture_shows_is_read(pictures):
    x, truth = pictures
    shown = scene_reader.read(x)
    for name in ("colour", "size", "arrangement", "background"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(truth, name), err_msg=name)
    assert ((shown.digit >= 0) == (truth.digit >= 0)).all()
    assert np.mean(shown.digit == truth.digit) > 0.985


def test_floats_from_0_to_1_are_read_as_levels_are(pictures):
    x, _ = pictures
    for floats, levels in zip(scene_reader.read(x[:40] / 255.0), scene_reader.read(x[:40]), strict=True):
        np.testing.assert_array_equal(floats, levels)


def test_noise_and_blur_change_little(pictures):
    x, truth = pictures
    noisy = np.clip(x + np.random.default_rng(0).normal(0, 8, x.shape), 0, 255).astype(np.uint8)
    wide = np.pad(x.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    blurred = sum(wide[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3) if i == 1 or j == 1) / 5 / 255
    for damaged in (noisy, blurred):
        shown = scene_reader.read(damaged)
        for name in ("digit", "colour", "size", "arrangement", "background"):
            assert np.mean(getattr(shown, name) == getattr(truth, name)) > 0.96, name


def test_a_picture_without_digits_shows_none():
    empty = np.full((1, 32, 32, 3), 120, np.uint8)
    empty[0, 4, 4] = 225, 25, 25  # a speck
    shown = scene_reader.read(empty)
    assert (shown.digit == captions.NOT_SAID).all()
    assert (shown.colour == captions.NOT_SAID).all()
    assert shown.arrangement[0] == captions.NOT_SAID
    assert captions.BACKGROUNDS[shown.background[0]] == "grey"


def test_a_picture_full_of_colour_is_not_an_error():
    shown = scene_reader.read(np.broadcast_to(scenes.INKS[2].astype(np.uint8), (1, 32, 32, 3)))
    assert shown.background[0] == captions.NOT_SAID


def test_two_digits_that_touch_are_two():
    words = scenes._stream(1, 0, 1)
    scene = captions.Scenes(*(np.array(a) for a in ([[8, 0]], [[0, 0]], [[1, 1]], [9], [0])))
    glyphs = scenes.handwriting(sources.load("digits").splits, 17)["test"]
    x = scenes.paint(scene, glyphs, words)
    x[0, 14:18, 10:22] = scenes.INKS[0]  # a bar between them
    shown = scene_reader.read(x)
    assert captions.ARRANGEMENTS[shown.arrangement[0]] == "left of"
    assert (shown.digit >= 0).all()


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\[N, 32, 32, 3\]"):
        scene_reader.read(np.zeros((2, 28, 28, 1), np.uint8))
