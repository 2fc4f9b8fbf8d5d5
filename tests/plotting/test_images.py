"""Arrays to PNG: levels become grey values, examples their tiles of the grid, labels stand where they belong."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gm_jax.plotting import images
from gm_jax.plotting.layout import Grid


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_span_black_to_white(levels):
    shown = images.to_uint8(np.array([0, levels - 1]), levels)
    assert shown.dtype == np.uint8
    assert shown.tolist() == [0, 255]


def test_means_between_or_outside_the_levels_are_rounded_and_clipped_and_what_is_no_number_is_black():
    shown = images.to_uint8(np.array([-3.0, 0.501, 1.7, np.nan, np.inf, -np.inf]), 2)
    assert shown.tolist() == [0, 128, 255, 0, 255, 0]


@pytest.mark.parametrize(("num", "shape"), [(1, (1, 1)), (3, (3, 1)), (64, (8, 8)), (100, (10, 10)), (250, (25, 10))])
def test_a_grid_is_nearly_square_and_in_order(num, shape):
    grid = images.as_grid(np.arange(num)[:, None])
    assert grid.shape == (*shape, 1)
    assert grid.ravel().tolist() == list(range(num))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_at_its_place_in_the_grid(channels):
    rng = np.random.default_rng(0)
    grid = rng.integers(0, 256, (2, 3, 4, 5, channels)).astype(np.uint8)
    sheet = images.grid_image(grid, 256)
    factor = sheet.shape[0] // (2 * 5 + 1)
    assert sheet.shape == ((2 * 5 + 1) * factor, (3 * 6 + 1) * factor, 3)
    small = sheet[::factor, ::factor]
    np.testing.assert_array_equal(np.broadcast_to(grid[1, 2], (4, 5, 3)), small[6:10, 13:18])
    np.testing.assert_array_equal(small[0], 128)  # the frame


def test_a_drawn_grid_is_read_back_unchanged(tmp_path):
    grid = np.random.default_rng(0).integers(0, 17, (2, 2, 8, 8, 1)).astype(np.uint8)
    path = tmp_path / "deep" / "grid.png"
    images.draw_grid(path, grid, 17)
    np.testing.assert_array_equal(images.read(path), images.grid_image(grid, 17))


def blue(picture):
    """Where a picture shows samples: the pixels that are more blue than red."""
    return picture[..., 2].astype(int) - picture[..., 0] > 60


def test_points_are_drawn_as_a_scatter_plot(tmp_path):
    points = np.random.default_rng(0).standard_normal((10, 10, 2))
    images.draw_grid(tmp_path / "points.png", points, None)
    images.draw_grid(tmp_path / "none.png", np.full_like(points, 99.0), None, behind=points.reshape(-1, 2))
    shown, hidden = (blue(images.read(tmp_path / f"{name}.png")).sum() for name in ("points", "none"))
    # The range is that of the data, which the samples are far from: only the legend shows them.
    assert shown > 500 > 100 > hidden


def test_the_range_of_points_has_a_margin_and_ignores_one_that_is_far_away():
    points = np.random.default_rng(0).uniform(-2.0, 3.0, (2000, 2))
    points[0] = 1e6
    points[1] = np.nan
    for low, high in images.point_limits(points):
        assert -2.8 < low < -2.2
        assert 3.2 < high < 3.8
    flat = images.point_limits(points * (1.0, 0.1))
    np.testing.assert_allclose(np.diff(flat[0]), np.diff(flat[1]))  # a square
    assert images.point_limits(np.full((3, 2), np.inf)) == [(-1.0, 1.0)] * 2


def test_points_are_drawn_in_front_of_the_data(tmp_path):
    points, data = np.zeros((1, 1, 2)), np.random.default_rng(0).standard_normal((500, 2))
    for name, behind in (("alone", None), ("both", data)):
        images.draw_grid(tmp_path / f"{name}.png", points, None, behind=behind)
    alone, both = (images.read(tmp_path / f"{name}.png") for name in ("alone", "both"))
    rows, columns = np.nonzero((alone != both).any(axis=-1))
    grey = np.ptp(both[rows, columns].astype(int), axis=-1) <= 1
    assert grey.sum() > 10
    assert blue(both).any()


def text_of(path):
    """The labels around a grid, as an image that is black where they are."""
    return images.read(path).min(axis=-1) < 128


def test_labels_stand_beside_their_rows_and_above_their_columns(tmp_path):
    grid = Grid(
        np.full((4, 3, 8, 8, 1), 255, np.uint8),
        values=np.array([3, 4, 5, 6]),
        title="A title",
        rows=("z[{}]", ""),
        columns=("left", "", "right"),
        group=2,
    )
    assert grid.row_labels() == ["z[3]", "", "z[5]", ""]
    images.draw_grid(tmp_path / "grid.png", grid, 256)
    plain = images._sheet(grid, 256)[0]
    shown = images.read(tmp_path / "grid.png")
    left, head = shown.shape[1] - plain.shape[1] - 8, shown.shape[0] - plain.shape[0] - 8
    assert left > 20
    assert head > 30
    text = text_of(tmp_path / "grid.png")[:, :left]
    tile = plain.shape[0] // 4
    rows = [text[head + row * tile : head + (row + 1) * tile].any() for row in range(4)]
    assert rows == [True, False, True, False]
    above = text_of(tmp_path / "grid.png")[head - 20 : head, left:]
    columns = [above[:, part].any() for part in np.array_split(np.arange(above.shape[1] - 8), 3)]
    assert columns == [True, False, True]


def test_groups_of_rows_have_gaps_and_keep_every_image(tmp_path):
    examples = np.random.default_rng(0).integers(0, 256, (6, 2, 4, 4, 1)).astype(np.uint8)
    for group, gaps in ((0, 0), (2, 2), (3, 1), (-1, 1)):
        images.draw_grid(tmp_path / "grid.png", Grid(examples, group=group), 256)
        shown = images.read(tmp_path / "grid.png")
        white = (shown == 255).all(axis=(1, 2))
        assert np.count_nonzero(np.diff(white.astype(int)) == 1) == gaps, group


def test_given_pixels_are_tinted_blue(tmp_path):
    given = np.zeros((1, 4, 4, 1), bool)
    given[0, :2] = True
    examples = np.full((1, 2, 4, 4, 1), 255, np.uint8)
    sheet = images._sheet(Grid(examples, given=given), 256)[0]
    factor = sheet.shape[0] // 6
    small = sheet[factor // 2 :: factor, factor // 2 :: factor].astype(int)
    assert (small[1:3, 1:5, 2] > small[1:3, 1:5, 0] + 50).all()
    assert (small[3:5, 1:5] == 255).all()


def test_samples_are_below_a_row_of_data():
    samples, data = np.arange(100)[:, None], -np.arange(12)[:, None]
    grid = images.below_data(samples, data)
    assert grid.examples.shape == (11, 10, 1)
    np.testing.assert_array_equal(grid.examples[0], data[:10])
    np.testing.assert_array_equal(grid.examples[1:].ravel(), samples.ravel())
    assert grid.row_labels() == ["data", "samples", *[""] * 9]
    assert images.below_data(samples, data[:5]).examples.shape == (10, 10, 1)


def test_a_long_title_is_broken_into_lines(tmp_path):
    examples = np.zeros((2, 2, 8, 8, 1), np.uint8)
    for name, title in (("short", "word"), ("long", "word " * 60)):
        images.draw_grid(tmp_path / f"{name}.png", Grid(examples, title=title), 2)
    short, long = (images.read(tmp_path / f"{name}.png").shape for name in ("short", "long"))
    assert short[1] == long[1]
    assert long[0] > short[0] + 40


def test_other_shapes_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"cannot draw examples of shape \(3,\)"):
        images.draw_grid(tmp_path / "x.png", np.zeros((1, 1, 3)), None)


def test_matplotlib_is_imported_only_by_functions_that_draw():
    code = "import sys, gm_jax.plotting.images; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("grid", [(3, 2, 16), (12, 1, 16), (1, 1, 16)])
def test_waveforms_are_drawn_one_below_the_other(tmp_path, grid):
    path = tmp_path / "waves.png"
    images.draw_grid(path, np.random.default_rng(0).integers(0, 64, grid).astype(np.uint8), 64)
    assert (images.read(path) < 128).any()


@pytest.mark.parametrize(("count", "shape"), [(1, (348, 324, 3)), (5, (696, 1296, 3)), (30, (696, 1296, 3))])
def test_tiles_run_from_the_first_picture_to_the_last(tmp_path, count, shape):
    drawn = {f"step {index}": tmp_path / f"{index}.png" for index in range(count)}
    for index, path in enumerate(drawn.values()):
        Image.fromarray(np.full((50, 50, 3), 5 * index, np.uint8)).save(path)
    images.tile(tmp_path / "tiled.png", drawn)
    sheet = images.read(tmp_path / "tiled.png")
    assert sheet.shape == shape
    last = min(count, 8) - 1
    row, column = divmod(last, 4)
    assert sheet[24, 0].tolist() == [0, 0, 0]
    assert sheet[348 * row + 24, 324 * column].tolist() == [5 * (count - 1)] * 3
    # Each caption is black on white, above its tile.
    assert sheet[:2, :320].min() == 255
    assert sheet[348 * row : 348 * row + 24, 324 * column : 324 * column + 320].min() < 64
