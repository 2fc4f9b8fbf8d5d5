import numpy as np
import pytest
from PIL import Image

from gm_jax.plotting import animation, images

RNG = np.random.default_rng(0)


def frames_of(path):
    with Image.open(path) as picture:
        assert picture.format == "GIF"
        assert picture.info["loop"] == 0
        found = []
        for index in range(picture.n_frames):
            picture.seek(index)
            found.append((np.asarray(picture.convert("RGB")), picture.info["duration"]))
    return found


def test_each_state_is_a_frame_and_the_last_one_stays_longest(tmp_path):
    states = [RNG.integers(0, 17, (4, 6, 6, 1)) for _ in range(5)]
    found = frames_of(animation.write(tmp_path / "a" / "chain.gif", states, levels=17))
    assert [duration for _, duration in found] == [800, 800, 800, 800, 1500]
    for (frame, _), state in zip(found, states, strict=True):
        np.testing.assert_array_equal(frame, images.grid_image(images.as_grid(state), 17))


def test_a_long_chain_keeps_its_ends(tmp_path):
    states = np.stack([np.full((1, 2, 2, 1), level % 256) for level in range(256)])
    found = frames_of(animation.write(tmp_path / "chain.gif", states, levels=256))
    assert 50 <= len(found) <= 60
    shown = [int(frame[frame.shape[0] // 4, frame.shape[1] // 4, 0]) for frame, _ in found]
    assert (shown[0], shown[-1]) == (0, 255)
    assert shown == sorted(shown)


def test_pictures_are_joined_in_their_order(tmp_path):
    paths = []
    for level in (0, 90, 200):
        paths.append(tmp_path / f"{level}.png")
        Image.new("RGB", (640, 480), (level, level, level)).save(paths[-1])
    found = frames_of(animation.join(tmp_path / "all.gif", paths))
    assert [frame.shape for frame, _ in found] == [(240, 320, 3)] * 3
    assert [int(frame[0, 0, 0]) for frame, _ in found] == [0, 90, 200]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one state of images"):
        animation.write(tmp_path / "a.gif", [np.zeros((3, 2))], levels=2)
    with pytest.raises(ValueError, match="at least one picture"):
        animation.join(tmp_path / "a.gif", [])
    assert list(tmp_path.iterdir()) == []
