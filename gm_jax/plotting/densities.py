"""Draws a density of points in the plane as PNG: the data, the learned density, and the latent grid in data space."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from gm_jax.plotting import images

_PIXELS = 160  # along each side of the learned density
_BINS = 60  # of the histogram of the data
_LINES, _POINTS = 25, 400  # lines of the latent grid in each direction, and points on each line
_REACH = 3.0  # the latent grid spans [-_REACH, _REACH] in each direction

LogDensityFn = Callable[[np.ndarray], ArrayLike]  # x [N, 2] -> [N] nats
PushFn = Callable[[np.ndarray], ArrayLike]  # z [N, 2] -> x [N, 2]


def draw_density(
    path: Path, log_density: LogDensityFn, x: np.ndarray, *, push: PushFn | None = None, title: str = ""
) -> None:
    """Draws the data, the learned density and, with `push`, the latent grid in data space.

    The first two panels share one colour scale.

    Args:
        path: PNG to write.
        log_density: [N, 2] points in data space -> [N] nats.
        x: [N, 2] data.
        push: [N, 2] points of the latent plane -> [N, 2] in data space; None if the model has no such map.
        title: of the picture.
    """
    # Here, not above: matplotlib takes long to import, and most commands draw nothing.
    from matplotlib.figure import Figure

    low, high = x.min(0), x.max(0)
    margin = 0.05 * (high - low)
    limits = list(zip(low - margin, high + margin, strict=True))
    extent = (*limits[0], *limits[1])
    density = density_on_grid(log_density, limits)
    histogram = np.histogram2d(x[:, 0], x[:, 1], bins=_BINS, range=limits, density=True)[0].T
    # As high as the panels, whose scales are equal on both axes, and their labels need.
    height = float(np.clip(1.0 + 3.2 * (high - low)[1] / (high - low)[0], 2.5, 6.0))
    figure = Figure(figsize=(8.5 if push is None else 12, height), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(1, 2 if push is None else 3, sharex=True, sharey=True)
    for axes, values, heading in zip(panels, (histogram, density), ("data", "learned density"), strict=False):
        most = float(np.quantile(density, 0.995))
        shown = axes.imshow(values, origin="lower", extent=extent, vmin=0.0, vmax=most)
        axes.set_title(heading)
        axes.set_xlabel("x[0]")
    panels[0].set_ylabel("x[1]")
    figure.colorbar(shown, ax=list(panels[:2]), label="density", shrink=0.8, aspect=30)
    if push is not None:
        for line in pushed_grid(push):
            panels[2].plot(line[:, 0], line[:, 1], color="tab:blue", lw=0.6)
        panels[2].set_title("grid of latents, mapped to data")
        panels[2].set_xlabel("x[0]")
        panels[2].set_xlim(limits[0])
        panels[2].set_ylim(limits[1])
        panels[2].set_aspect("equal")
    images.save_figure(path, figure, dpi=100)


def draw_panel(path: Path, log_density: LogDensityFn, limits: Sequence[tuple[float, float]]) -> None:
    """Draws a density alone, as a square picture without axes.

    Args:
        path: PNG to write.
        log_density: [N, 2] points in data space -> [N] nats.
        limits: range (low, high) of each coordinate, of equal lengths.
    """
    from matplotlib.figure import Figure

    density = density_on_grid(log_density, limits)
    figure = Figure(figsize=(4, 4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    extent = (*limits[0], *limits[1])
    axes.imshow(density, origin="lower", extent=extent, vmin=0.0, vmax=float(np.quantile(density, 0.995)))
    images.save_figure(path, figure, dpi=100)


def density_on_grid(log_density: LogDensityFn, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Evaluates the density at the cell centres of a grid over the limits: [rows, columns], the lowest row first."""
    middles = [low + (np.arange(_PIXELS) + 0.5) * (high - low) / _PIXELS for low, high in limits]
    grid = np.stack(np.meshgrid(*middles), axis=-1).reshape(-1, 2).astype(np.float32)
    return np.exp(np.asarray(log_density(grid), np.float64)).reshape(_PIXELS, _PIXELS)


def pushed_grid(push: PushFn) -> np.ndarray:
    """Maps the lines of a square grid in the latent plane to data space: [lines, points, 2]."""
    fixed, along = np.meshgrid(
        np.linspace(-_REACH, _REACH, _LINES), np.linspace(-_REACH, _REACH, _POINTS), indexing="ij"
    )
    lines = np.concatenate([np.stack([fixed, along], axis=-1), np.stack([along, fixed], axis=-1)])
    return np.asarray(push(lines.reshape(-1, 2).astype(np.float32))).reshape(lines.shape)
