"""Lines and arrows: the grid, the lengths, and a picture of two panels."""

import numpy as np
from PIL import Image

from gm_jax.plotting import vector_fields


def test_the_grid_spans_the_limits():
    points = vector_fields.grid_of([(-1.0, 3.0), (0.0, 2.0)])
    assert points.shape == (24 * 24, 2)
    np.testing.assert_allclose(points.min(0), [-1.0, 0.0])
    np.testing.assert_allclose(points.max(0), [3.0, 2.0])


def test_arrows_keep_their_direction_and_get_the_logarithm_of_their_length():
    found = vector_fields.shortened(np.array([[3.0, 4.0], [0.0, -0.5], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.6 * np.log(6), 0.8 * np.log(6)], [0.0, -np.log(1.5)], [0.0, 0.0]])


def test_a_picture_shows_lines_and_arrows(tmp_path):
    lines = np.cumsum(np.random.default_rng(0).normal(size=(20, 30, 2)), axis=0)
    seen = []

    def field(x):
        seen.append(x)
        return -x

    vector_fields.draw_flow(tmp_path / "flow.png", lines, field, lines[-1], field_name="score", title="a flow")
    assert len(seen) == 1
    with Image.open(tmp_path / "flow.png") as picture:
        assert picture.size == (900, 460)
