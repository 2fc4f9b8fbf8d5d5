"""Draws training and validation over steps or seconds as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.plotting import images

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]  # split -> metric -> [(step, value), ...]

_SMOOTHED = 60  # points from which a curve is noisy enough to be smoothed


def draw_curves(path: Path, curves: Curves, *, validation_label: str = "-log p, nats", title: str = "") -> None:
    """Draws the training loss of every player, and -log p of the validation split, over steps.

    Each has a panel of its own, because losses of players and -log p have different scales and meanings.

    Args:
        path: PNG to write.
        curves: split -> metric -> [(step, value), ...]. Draws "loss" and "<player>/loss" of the split "train", and
            "log_prob" of the split "validation".
        validation_label: label of -log p; states its kind and measure if they are known.
        title: of the picture.
    """
    from matplotlib.figure import Figure  # here, because it takes long to import and most commands draw nothing

    train = curves.get("train", {})
    names = {"loss": "training loss"}
    names |= {name: f"training loss\n{name[:-5]}" for name in sorted(train) if name.endswith("/loss")}
    panels = [(np.array(train[name]), label, "tab:blue") for name, label in names.items() if name in train]
    log_probs = curves.get("validation", {}).get("log_prob", ())
    if log_probs:
        values = np.array([(step, -value) for step, value in log_probs])
        panels.append((values, f"validation\n{validation_label}", "tab:orange"))
    figure = Figure(figsize=(7, max(4.0, 0.6 + 2.2 * len(panels))), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, (points, label, colour) in zip(
        figure.subplots(max(1, len(panels)), sharex=True, squeeze=False)[:, 0], panels, strict=False
    ):
        _draw_panel(axes, points, colour)
        axes.set_ylabel(label, fontsize="small")
    figure.axes[-1].set_xlabel("step")
    images.save_figure(path, figure)


def _draw_panel(axes: Any, points: np.ndarray, colour: str) -> None:
    """Draws one curve in a range that its first steps do not decide, and writes how far they reach."""
    is_noisy = len(points) >= _SMOOTHED
    axes.plot(*points.T, color=colour, lw=0.8, alpha=0.35 if is_noisy else 1.0, marker="" if is_noisy else "o", ms=3)
    if is_noisy:
        axes.plot(points[:, 0], smoothed(points[:, 1]), color=colour, lw=1.5)
    low, high = curve_limits([points])
    first = points[0, 1]
    if low is not None and high is not None:
        spread = high - low
        if low - spread <= first <= high + spread:  # near enough to be shown too
            low, high = min(low, first - 0.05 * spread), max(high, first + 0.05 * spread)
        else:
            # Above the panel, where it hides no part of the curve.
            axes.set_title(f"the first value is {first:.4g}", loc="right", fontsize="small", color="0.4")
    axes.set_ylim(low, high)
    axes.grid(alpha=0.3)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Averages each value [N] with its neighbours: 1 in 40 of the curve on each side, or fewer near the ends."""
    reach = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    near = np.minimum(reach, np.minimum(index, len(values) - 1 - index))
    return (sums[index + near + 1] - sums[index - near]) / (2 * near + 1)


def draw_validation(path: Path, curves: Mapping[str, np.ndarray]) -> Path:
    """Draws the validation of several models over time, and returns the path.

    Args:
        path: PNG to write.
        curves: label -> [N, 2] pairs (seconds of training, -log p in nats), finite.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (label, curve) in enumerate(curves.items()):
        axes.plot(*curve.T, marker="o", ms=3, label=label, ls="-" if index < 10 else "--")
    # The first values of the worst models are cut off, because they would flatten the picture.
    ends = np.array([curve[-1, 1] for curve in curves.values()])
    low, spread = ends.min(), max(np.median(ends) - ends.min(), 0.05 * abs(ends.min()), 0.1)
    axes.set_ylim(low - 0.2 * spread, low + 5.0 * spread)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("validation -log p, nats")
    figure.legend(loc="outside right upper", fontsize="small")
    images.save_figure(path, figure)
    return path


def curve_limits(curves: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Returns the range of curves [points, (step, value)] after their first steps and without outliers.

    The first tenth of the steps is so far from the rest that it would flatten the picture. A curve may begin late, as
    that of the second stage of a run. (None, None) lets matplotlib choose.
    """
    start, end = min(curve[0, 0] for curve in curves), max(curve[-1, 0] for curve in curves)
    late = [curve[curve[:, 0] >= start + 0.1 * (end - start), 1] for curve in curves]
    ends = np.concatenate([np.quantile(values, (0.01, 0.99)) for values in late if values.size])
    low, high = ends.min(), ends.max()
    margin = 0.1 * (high - low)
    return (low - margin, high + margin) if margin > 0 else (None, None)
