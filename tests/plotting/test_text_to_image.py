import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.plotting import text_to_image as plotting
from tests.captioned_model import IMAGES, STATE, captioned

KEY = jax.random.key(0)
PROMPTS = plotting.Captions(("a b", "c", "b b a"), jnp.array([[3, 4, 0], [5, 0, 0], [2, 2, 1]]))


@functools.cache
def grid(name):
    model, params = captioned()
    picture = plotting.grids(model, PROMPTS, PROMPTS)[name]
    return picture(params, STATE, KEY, IMAGES)


@pytest.mark.parametrize(
    ("name", "shape"), [("prompts", (3, 8)), ("words", (3, 8)), ("guidance", (6, 3)), ("reconstructions", (2, 3))]
)
def test_a_picture_has_a_row_for_each_thing_that_changes(name, shape):
    found = grid(name)
    assert found.examples.shape == (*shape, 8, 8, 3)
    assert len(found.rows) in (shape[0], found.group)


def test_rows_are_captions_and_their_samples_have_the_same_noise():
    model, params = captioned()
    found = grid("prompts")
    assert found.rows == PROMPTS.texts
    assert found.title == "Samples of each prompt, guided with w = 0"
    label = jnp.broadcast_to(PROMPTS.tokens[1], (8, 3))
    np.testing.assert_array_equal(found.examples[1], model.sample(params, STATE, KEY, 8, label=label))


def test_guidance_of_minus_one_is_no_caption():
    found = grid("guidance")
    model, params = captioned()
    none = model.sample(params, STATE, KEY, 3).astype(np.int32)
    assert np.abs(found.examples[0].astype(np.int32) - none).max() <= 1  # y - (y - none) rounds


@pytest.mark.slow
def test_a_map_for_each_word_is_white_where_it_is_read_most():
    found = grid("attention")
    assert found.columns == ("sample", "a", "b")
    maps = np.asarray(found.examples)[0, 1:]
    assert maps.shape == (2, 8, 8, 3)
    assert (maps.max(axis=(1, 2, 3)) == 255).all()
    assert len(np.unique(maps[0])) > 1
    # Each latent patch of 2 x 2 covers 4 x 4 pixels.
    blocks = maps[0, ..., 0].reshape(2, 4, 2, 4)
    assert (blocks == blocks[:, :1, :, :1]).all()
