"""Curves over steps: a panel for each loss and for -log p, in ranges that the first steps do not decide."""

import numpy as np
import pytest

from gm_jax.plotting import curves as pictures
from gm_jax.plotting import images

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
    pictures.draw_curves(tmp_path / "curves.png", curves)
    height, width, _ = images.read(tmp_path / "curves.png").shape
    panels = sum(name.endswith("loss") for name in curves.get("train", {})) + ("validation" in curves)
    assert (height, width) == (max(480, round(120 * (0.6 + 2.2 * panels))), 840)


def test_smoothing_keeps_lines_and_averages_noise():
    line = 3.0 + 0.5 * np.arange(200)
    np.testing.assert_allclose(pictures.smoothed(line), line)
    noise = np.random.default_rng(0).standard_normal(2000)
    assert pictures.smoothed(noise)[200:-200].std() < 0.2


def test_a_first_value_that_is_near_is_shown_and_one_that_is_far_is_written(tmp_path):
    steps = np.arange(1, 41)
    later = np.linspace(1.0, 2.0, 40)
    for name, first in (("near", 2.8), ("far", 90.0)):
        values = np.concatenate([[first], later[1:]])
        figure_axes = _Axes()
        pictures._draw_panel(figure_axes, np.stack([steps, values], axis=1), "tab:blue")
        low, high = figure_axes.limits
        assert (low <= first <= high) == (name == "near")
        assert figure_axes.texts == ([] if name == "near" else ["the first value is 90"])


def test_the_first_values_of_a_stage_that_begins_late_do_not_decide_the_range():
    steps = np.arange(4_000, 6_001, 100)
    loss = np.where(steps < 4_200, 50.0, 1.0 + 1e-4 * steps)
    low, high = pictures.curve_limits([np.stack([steps, loss], axis=1)])
    assert 1.0 < low < high < 2.0


class _Axes:
    """Axes that remember their range and their titles."""

    def __init__(self):
        self.texts, self.limits = [], (0.0, 0.0)

    def plot(self, *args, **kwargs):
        pass

    grid = plot

    def set_ylim(self, low, high):
        self.limits = low, high

    def set_title(self, text, **style):
        self.texts.append(text)


def test_the_validation_label_is_drawn(tmp_path):
    curves = {"validation": {"log_prob": [(step, -3.0 * step) for step in STEPS]}}
    pictures.draw_curves(tmp_path / "plain.png", curves)
    pictures.draw_curves(
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
    low, high = pictures.curve_limits([np.stack([steps, loss], axis=1), validation])
    late = np.delete(loss, 150)[20:]
    assert low < late.min() < validation[-1, 1] < validation[2, 1] < high
    assert late.max() - 0.1 < high < late.max() + 2.0
    assert late.min() - 2.0 < low


def test_constant_curves_and_single_points_have_default_limits():
    for curve in ([(1, 2.0)], [(step, 2.0) for step in range(20)]):
        assert pictures.curve_limits([np.array(curve)]) == (None, None)


def test_validation_curves_hide_the_first_values_of_bad_models(tmp_path):
    good = np.stack([np.arange(1.0, 9.0), np.linspace(20.0, 10.0, 8)], axis=1)
    others = {name: good + np.array([0.0, 2.0]) for name in ("a (≤ binary)", "b (= binary)")}
    bad = good + np.array([0.0, 1e6])
    path = pictures.draw_validation(tmp_path / "v.png", {"good": good, **others, "bad": bad})
    assert images.read(path).shape == (540, 1080, 3)
    # Without the bad model the good one is drawn in the same place.
    alone = pictures.draw_validation(tmp_path / "alone.png", {"good": good, **others})
    blue = [(images.read(p)[:400] == (31, 119, 180)).all(axis=-1) for p in (path, alone)]
    assert blue[1].sum() > 100
    assert (blue[0] & blue[1]).sum() > 0.5 * blue[1].sum()
