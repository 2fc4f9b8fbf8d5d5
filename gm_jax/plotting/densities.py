"""A density of points in the plane, as a PNG: the data, what was learned of them, the latent's grid in data space."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from gm_jax.runner.experiment import Plane

_PIXELS = 160  # along each side of the learned density
_BINS = 60  # of the data's histogram
_LINES, _POINTS = 25, 400  # each way over the latent, and on each line
_REACH = 3.0  # of the latent's grid, each way from 0


def draw(path: Path, plane: Plane, params: Mapping, model_state: Mapping, x: np.ndarray) -> None:
    """Write a PNG of two or three panels, the first two on one scale of colours.

    Args:
        path: where to.
        plane: what there is to draw.
        params: of the model.
        model_state: what its networks carry besides.
        x: [N, 2] data.
    """
    from matplotlib.figure import Figure

    low, high = x.min(0), x.max(0)
    margin = 0.05 * (high - low)
    limits = list(zip(low - margin, high + margin, strict=True))
    extent = (*limits[0], *limits[1])
    density = density_on_grid(plane, params, model_state, limits)
    histogram = np.histogram2d(x[:, 0], x[:, 1], bins=_BINS, range=limits, density=True)[0].T
    figure = Figure(figsize=(10 if plane.push is None else 15, 5), layout="constrained")
    panels = figure.subplots(1, 2 if plane.push is None else 3, sharex=True, sharey=True)
    for axes, values, title in zip(panels, (histogram, density), ("data", "learned density"), strict=False):
        axes.imshow(values, origin="lower", extent=extent, vmin=0.0, vmax=float(np.quantile(density, 0.995)))
        axes.set_title(title)
    if plane.push is not None:
        for line in pushed_grid(plane, params, model_state):
            panels[2].plot(line[:, 0], line[:, 1], color="tab:blue", lw=0.6)
        panels[2].set_title("the latent's grid, pushed through the flow")
        panels[2].set_xlim(limits[0])
        panels[2].set_ylim(limits[1])
        panels[2].set_aspect("equal")
    figure.savefig(path, dpi=100)


def density_on_grid(
    plane: Plane, params: Mapping, model_state: Mapping, limits: list[tuple[float, float]]
) -> np.ndarray:
    """[rows, columns] density at the middles of a grid over the limits, the lowest row first."""
    middles = [low + (np.arange(_PIXELS) + 0.5) * (high - low) / _PIXELS for low, high in limits]
    grid = np.stack(np.meshgrid(*middles), axis=-1).reshape(-1, 2).astype(np.float32)
    log_density = np.asarray(jax.jit(plane.log_density)(params, model_state, grid), np.float64)
    return np.exp(log_density).reshape(_PIXELS, _PIXELS)


def pushed_grid(plane: Plane, params: Mapping, model_state: Mapping) -> np.ndarray:
    """[lines, points, 2] where the lines of a square grid over the latent lie in data space."""
    fixed, along = np.meshgrid(
        np.linspace(-_REACH, _REACH, _LINES), np.linspace(-_REACH, _REACH, _POINTS), indexing="ij"
    )
    lines = np.concatenate([np.stack([fixed, along], axis=-1), np.stack([along, fixed], axis=-1)])
    pushed = jax.jit(plane.push)(params, model_state, lines.reshape(-1, 2).astype(np.float32))
    return np.asarray(pushed).reshape(lines.shape)
