"""Draws what carries points of the plane from noise to data as PNG: lines of a flow, and a field of arrows."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from gm_jax.plotting import images

_ARROWS = 24  # along each side
_DATA = 1_000  # points of the data behind the panels

FieldFn = Callable[[np.ndarray], ArrayLike]  # x [N, 2] -> arrows [N, 2]


def draw_flow(
    path: Path, lines: np.ndarray, field: FieldFn, x: np.ndarray, *, field_name: str, title: str = ""
) -> None:
    """Draws lines of a flow from noise to data, and next to them a field of arrows.

    Args:
        path: PNG to write.
        lines: [T, N, 2] points at T times, the data last, on the scale of the data.
        field: [M, 2] points -> [M, 2] arrows, which are drawn with the logarithm of their lengths.
        x: [K, 2] data.
        field_name: what the arrows are.
        title: of the picture.
    """
    # Here, not above: matplotlib takes long to import, and most commands draw nothing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    left, right = figure.subplots(1, 2)
    behind = x[:_DATA]
    for axes in (left, right):
        axes.scatter(behind[:, 0], behind[:, 1], s=2, color="0.8")
        axes.set_aspect("equal")
        axes.set_xlabel("x[0]")
    left.set_ylabel("x[1]")
    left.plot(lines[:, :, 0], lines[:, :, 1], color="tab:blue", lw=0.5, alpha=0.7)
    left.scatter(lines[0, :, 0], lines[0, :, 1], s=6, color="tab:orange", label="noise", zorder=3)
    left.scatter(lines[-1, :, 0], lines[-1, :, 1], s=6, color="tab:red", label="samples", zorder=3)
    left.legend(fontsize="small")
    left.set_title("lines of the probability flow, scaled to the data")
    low, high = x.min(0), x.max(0)
    margin = 0.15 * (high - low)
    points = grid_of(list(zip(low - margin, high + margin, strict=True)))
    arrows = shortened(np.asarray(field(points), np.float64))
    right.quiver(*points.T, *arrows.T, np.hypot(*arrows.T), angles="xy", cmap="viridis", width=0.003)
    right.set_title(field_name)
    images.save_figure(path, figure, dpi=100)


def grid_of(limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns the points [N, 2] of a square grid over the limits, corners included."""
    sides = [np.linspace(low, high, _ARROWS) for low, high in limits]
    return np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2).astype(np.float32)


def shortened(arrows: np.ndarray) -> np.ndarray:
    """Gives each arrow [N, 2] the length log(1 + its length), so that short and long ones are seen together."""
    lengths = np.linalg.norm(arrows, axis=1, keepdims=True)
    return arrows * (np.log1p(lengths) / np.maximum(lengths, 1e-12))
