"""Arrays to PNG: levels become grey values, examples their tiles of the grid, points and curves files."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gm_jax.plotting import images


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_span_black_to_white(levels):
    shown = images.to_uint8(np.array([0, levels - 1]), levels)
    assert shown.dtype == np.uint8
    assert shown.tolist() == [0, 255]


def test_means_between_or_outside_the_levels_are_rounded_and_clipped():
    shown = images.to_uint8(np.array([-3.0, 0.501, 1.7]), 2)
    assert shown.tolist() == [0, 128, 255]


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


def test_points_are_drawn_as_a_scatter_plot(tmp_path):
    points = np.random.default_rng(0).standard_normal((10, 10, 2))
    images.draw_grid(tmp_path / "points.png", points, None)
    images.draw_grid(tmp_path / "none.png", np.full_like(points, 99.0), None)
    assert images.read(tmp_path / "points.png").std() > images.read(tmp_path / "none.png").std()


def test_points_are_drawn_in_front_of_the_data(tmp_path):
    points, data = np.full((1, 1, 2), 2.0), np.full((1, 2), -2.0)
    for name, behind in (("alone", None), ("both", data)):
        images.draw_grid(tmp_path / f"{name}.png", points, None, behind=behind)
    alone, both = (images.read(tmp_path / f"{name}.png") for name in ("alone", "both"))
    rows, columns = np.nonzero((alone != both).any(axis=-1))
    # One grey dot, below and to the left of the centre.
    assert 0 < len(rows) < 30
    assert rows.min() > 300
    assert columns.max() < 300
    assert np.ptp(both[rows, columns].astype(int), axis=-1).max() <= 1


def test_other_shapes_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"cannot draw examples of shape \(3,\)"):
        images.draw_grid(tmp_path / "x.png", np.zeros((1, 1, 3)), None)


STEPS = range(1, 9)
LOSS = {"loss": [(step, 5.0 / step) for step in STEPS]}
NEGATIVE_LOSS = {"loss": [(step, -float(step)) for step in STEPS]}  # a density has such a loss
PLAYERS = {"one/loss": [(step, 1.0 / step) for step in STEPS], "two/loss": [(step, 0.1 * step) for step in STEPS]}


@pytest.mark.parametrize(
    "curves",
    [
        {"train": LOSS, "validation": {"log_prob": [(4, -3.0)]}},
        {"train": NEGATIVE_LOSS},
        {"train": PLAYERS},
        {"train": PLAYERS, "validation": {"log_prob": [(4, -30.0)]}},
        {"train": {"loss": [(1, 1.0)]}},
        {"train": {"other": [(1, 1.0)]}},
        {},
    ],
)
def test_curves_are_drawn_for_any_set_of_metrics(curves, tmp_path):
    images.draw_curves(tmp_path / "curves.png", curves)
    assert images.read(tmp_path / "curves.png").shape == (480, 840, 3)


def test_the_validation_label_is_drawn(tmp_path):
    curves = {"validation": {"log_prob": [(step, -3.0 * step) for step in STEPS]}}
    images.draw_curves(tmp_path / "plain.png", curves)
    images.draw_curves(
        tmp_path / "kind.png", curves, validation_label="validation -log p, nats (<= upper bound, binary)"
    )
    plain, kind = (images.read(tmp_path / f"{name}.png") for name in ("plain", "kind"))
    assert (plain != kind).any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_steps_and_outliers_do_not_flatten_the_curves(sign):
    steps = np.arange(100, 20_100, 100)
    loss = sign * 90.0 + 10.0 * np.exp(-steps / 4000) + 1000.0 * np.exp(-steps / 100)
    loss[150] = 1e6
    validation = np.stack([steps[9::10], sign * 90.0 + 5.0 * np.exp(-steps[9::10] / 4000) + 3.0], axis=1)
    low, high = images.curve_limits([np.stack([steps, loss], axis=1), validation])
    late = np.delete(loss, 150)[20:]
    assert low < late.min() < validation[-1, 1] < validation[2, 1] < high
    assert late.max() - 0.1 < high < late.max() + 2.0
    assert late.min() - 2.0 < low


def test_constant_curves_and_single_points_have_default_limits():
    for curve in ([(1, 2.0)], [(step, 2.0) for step in range(20)]):
        assert images.curve_limits([np.array(curve)]) == (None, None)


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


def test_validation_curves_hide_the_first_values_of_bad_models(tmp_path):
    good = np.stack([np.arange(1.0, 9.0), np.linspace(20.0, 10.0, 8)], axis=1)
    others = {name: good + np.array([0.0, 2.0]) for name in ("a (≤ binary)", "b (= binary)")}
    bad = good + np.array([0.0, 1e6])
    path = images.draw_validation(tmp_path / "v.png", {"good": good, **others, "bad": bad})
    assert images.read(path).shape == (540, 840, 3)
    # Without the bad model the good one is drawn in the same place.
    alone = images.draw_validation(tmp_path / "alone.png", {"good": good, **others})
    blue = [(images.read(p)[:400] == (31, 119, 180)).all(axis=-1) for p in (path, alone)]
    assert blue[1].sum() > 100
    assert (blue[0] & blue[1]).sum() > 0.5 * blue[1].sum()
