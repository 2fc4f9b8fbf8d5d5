"""What is refused of a picture to start from, before anything is drawn; test_text_to_image.py draws."""

import types

import numpy as np
import pytest
from PIL import Image

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.runner import image_edits
from tests.captioned_model import captioned

SPEC, DIGITS = Spec("captions", (8, 8, 3), 256, None, ""), Spec("digits", (8, 8, 1), 17, 10, "")


@pytest.fixture
def paths(tmp_path):
    found = {"picture": tmp_path / "picture.png", "small": tmp_path / "small.png"}
    for path, shape in zip(found.values(), ((8, 8, 3), (4, 5, 3)), strict=True):
        Image.fromarray(np.full(shape, 200, np.uint8)).save(path)
    return found


def test_a_picture_is_read_once_for_each_sample_and_a_mask_is_where_it_is_white(paths):
    assert image_edits.read_image(SPEC, paths["picture"], 3).shape == (3, 8, 8, 3)
    mask = image_edits.read_mask(paths["small"])
    assert (mask.shape, mask.dtype, mask.all()) == ((4, 5), bool, True)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: image_edits.read_image(SPEC, p["picture"].with_suffix(".jpg"), 1), "there is no picture"),
        (lambda p: image_edits.read_image(SPEC, p["small"], 1), "is 4 x 5, and the pictures of captions are 8 x 8"),
        (lambda p: image_edits.read_image(DIGITS, p["picture"], 1), "needs a run on images of 256 levels"),
        (lambda p: edits(strength=1.5), "--strength 1.5 is out of its range"),
        (lambda p: edits(strength=-1.0), "--strength -1 is out of its range"),
        (lambda p: edits(strength=1.0, mask=np.ones((4, 5), bool)), "mask is 4 x 5, and the pictures are 8 x 8"),
        (lambda p: edits(family=None, strength=1.0), "cannot start from a picture"),
    ],
)
def test_what_does_not_fit_is_refused(paths, call, match):
    with pytest.raises(UserError, match=match):
        call(paths)


def edits(*, family="own", **settings):
    experiment = types.SimpleNamespace(family=captioned()[0] if family == "own" else family)
    run = types.SimpleNamespace(spec=SPEC, experiment=experiment)
    return image_edits.draw_edits(run, None, np.zeros((1, 8, 8, 3), np.uint8), seed=0, **settings)
