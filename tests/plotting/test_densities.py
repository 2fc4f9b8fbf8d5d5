"""The density, its grid and its pushed lines, on a density known in closed form."""

import numpy as np
from PIL import Image

from gm_jax.plotting import densities

LIMITS = [(-1.0, 3.0), (-2.0, 2.0)]


def log_density(x):
    """A density four times as high on the right as on the left, and zero in the upper half."""
    return np.where(x[:, 1] > 0.0, -np.inf, np.log(np.where(x[:, 0] > 1.0, 0.2, 0.05)))


def test_the_density_is_drawn_with_the_right_orientation():
    grid = densities.density_on_grid(log_density, LIMITS)
    rows, columns = grid.shape
    np.testing.assert_allclose(grid[: rows // 2, : columns // 2], 0.05, rtol=1e-5)
    np.testing.assert_allclose(grid[: rows // 2, columns // 2 :], 0.2, rtol=1e-5)
    assert not grid[rows // 2 :].any()
    cell = 4.0 * 4.0 / grid.size
    np.testing.assert_allclose(grid.sum() * cell, 1.0, rtol=1e-5)


def test_the_grid_is_pushed_line_by_line():
    lines = densities.pushed_grid(lambda z: 2.0 * z + 1.0)
    half = len(lines) // 2
    assert np.all(lines[:half, :, 0] == lines[:half, :1, 0])  # vertical lines
    assert np.all(lines[half:, :, 1] == lines[half:, :1, 1])  # horizontal lines
    np.testing.assert_allclose([lines.min(), lines.max()], [-5.0, 7.0], rtol=1e-6)


def test_a_map_from_the_latent_plane_adds_a_third_panel(tmp_path):
    x = np.random.default_rng(0).uniform((-1.0, -2.0), (3.0, 0.0), size=(500, 2))
    widths = []
    for push in (None, lambda z: z):
        path = tmp_path / "density.png"
        densities.draw_density(path, log_density, x, push=push)
        with Image.open(path) as picture:
            widths.append(picture.width)
    assert widths[1] > 1.3 * widths[0]


def test_a_picture_is_as_high_as_its_data_are(tmp_path):
    heights = []
    for top in (-1.0, 2.0):
        x = np.random.default_rng(0).uniform((-1.0, -2.0), (3.0, top), size=(500, 2))
        densities.draw_density(tmp_path / "density.png", log_density, x)
        with Image.open(tmp_path / "density.png") as picture:
            heights.append(picture.height)
    assert 1.4 * heights[0] < heights[1] < 2.0 * heights[0]
