"""Draws arrays as PNG: grids of images, scatter plots of points in the plane, waveforms and training curves.

Examples are in the data's own levels: integers 0 .. levels - 1, or means as floats. matplotlib is imported only by the
functions that draw with it, because it takes long to import.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gm_jax.files import replacing

_GRID_WIDTH = 640  # smallest width of a grid in pixels, so that 8x8 digits are visible
_COLUMNS_AT_MOST = 10
_TILES, _TILES_PER_ROW, _TILE_WIDTH, _CAPTION = 8, 4, 320, 24

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]  # split -> metric -> [(step, value), ...]


def to_uint8(examples: np.ndarray, levels: int) -> np.ndarray:
    """Scales examples from 0 .. levels - 1 to uint8 0..255, rounded and clipped."""
    scaled = np.asarray(examples, np.float64) * (255.0 / (levels - 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def as_grid(examples: np.ndarray) -> np.ndarray:
    """Arranges [n, ...] as [rows, columns, ...], nearly square; drops examples that do not fill a row."""
    columns = min(_COLUMNS_AT_MOST, max(1, int(np.sqrt(len(examples)))))
    rows = len(examples) // columns
    return examples[: rows * columns].reshape(rows, columns, *examples.shape[1:])


def grid_image(grid: np.ndarray, levels: int) -> np.ndarray:
    """Joins [rows, columns, H, W, C] examples to one image [height, width, 3] uint8, enlarged by an integer factor."""
    rows, columns, height, width, channels = grid.shape
    images = to_uint8(grid, levels)
    padded = np.pad(images, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], constant_values=128)
    sheet = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), columns * (width + 1), channels)
    sheet = np.pad(sheet, [(1, 0), (1, 0), (0, 0)], constant_values=128)
    sheet = np.repeat(sheet, 3, axis=2) if channels == 1 else sheet[..., :3]
    factor = max(1, round(_GRID_WIDTH / sheet.shape[1]))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def draw_grid(path: Path, grid: np.ndarray, levels: int | None, *, behind: np.ndarray | None = None) -> None:
    """Draws a grid of examples as PNG: images [H, W, C], points [2] or waveforms [T].

    Args:
        path: PNG to write.
        grid: [rows, columns, ...] examples.
        levels: number of levels of the data; None for points.
        behind: [N, 2] data points to draw in grey behind points; ignored for other examples.
    Raises:
        ValueError: examples of this shape cannot be drawn.
    """
    grid = np.asarray(grid)
    shape = grid.shape[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(shape) == 3 and levels is not None:
        _save(path, Image.fromarray(grid_image(grid, levels)))
    elif shape == (2,):
        _scatter(path, grid.reshape(-1, 2), behind)
    elif len(shape) == 1 and levels is not None:
        _waveforms(path, grid, levels)
    else:
        raise ValueError(f"cannot draw examples of shape {shape} with {levels} levels")


def tile(path: Path, drawn: Mapping[str, Path]) -> None:
    """Joins PNGs of equal size to one PNG, each below its caption: at most eight, including the first and the last.

    Args:
        path: PNG to write.
        drawn: caption -> PNG.
    """
    count = min(_TILES, len(drawn))
    captions = [list(drawn)[round(index)] for index in np.linspace(0, len(drawn) - 1, count)]
    tiles = [Image.open(drawn[caption]).convert("RGB") for caption in captions]
    width, height = _TILE_WIDTH, round(tiles[0].height * _TILE_WIDTH / tiles[0].width)
    rows, columns = -(-count // _TILES_PER_ROW), min(count, _TILES_PER_ROW)
    sheet = Image.new("RGB", (columns * (width + 4), rows * (_CAPTION + height + 4)), "white")
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=0.7 * _CAPTION)
    for index, (caption, image) in enumerate(zip(captions, tiles, strict=True)):
        row, column = divmod(index, _TILES_PER_ROW)
        left, top = column * (width + 4), row * (_CAPTION + height + 4)
        text.text((left + width // 2, top + _CAPTION // 2), caption, fill="black", font=font, anchor="mm")
        sheet.paste(image.resize((width, height)), (left, top + _CAPTION))
    _save(path, sheet)


def read(path: Path) -> np.ndarray:
    """Reads a PNG as [height, width, 3] uint8."""
    return np.asarray(Image.open(path).convert("RGB"))


def draw_curves(path: Path, curves: Curves, *, validation_label: str = "validation -log p, nats") -> None:
    """Draws the training loss of every player, and -log p of the validation split, over steps.

    The losses of several players are not comparable with -log p, which then has its own panel below.

    Args:
        path: PNG to write.
        curves: split -> metric -> [(step, value), ...]. Draws "loss" and "<player>/loss" of the split "train", and
            "log_prob" of the split "validation".
        validation_label: label of -log p; states its kind and measure if they are known.
    """
    train = curves.get("train", {})
    labels = {"loss": "training loss"}
    labels |= {name: f"training loss of the {name[:-5]}" for name in sorted(train) if name.endswith("/loss")}
    losses = [(train[name], label, "") for name, label in labels.items() if name in train]
    log_probs = curves.get("validation", {}).get("log_prob", ())
    validation = [([(step, -value) for step, value in log_probs], validation_label, "o")] if log_probs else []
    panels = [losses, validation] if validation and len(labels) > 1 else [losses + validation]
    figure, _ = _figure()
    figure.clear()
    for axes, panel in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        for points, label, marker in panel:
            axes.plot(*np.array(points).T, marker=marker, ms=3, label=label)
        if panel:
            axes.set_ylim(curve_limits([np.array(points) for points, _, _ in panel]))
            axes.legend()
    axes.set_xlabel("step")
    figure.tight_layout()
    save_figure(path, figure)


def draw_validation(path: Path, curves: Mapping[str, np.ndarray]) -> Path:
    """Draws the validation of several models over time, and returns the path.

    Args:
        path: PNG to write.
        curves: label -> [N, 2] pairs (seconds of training, -log p in nats), finite.
    """
    figure, axes = _figure(height=4.5)
    for index, (label, curve) in enumerate(curves.items()):
        axes.plot(*curve.T, marker="o", ms=3, label=label, ls="-" if index < 10 else "--")
    # The first values of the worst models are cut off, because they would flatten the picture.
    ends = np.array([curve[-1, 1] for curve in curves.values()])
    low, spread = ends.min(), max(np.median(ends) - ends.min(), 0.05 * abs(ends.min()), 0.1)
    axes.set_ylim(low - 0.2 * spread, low + 5.0 * spread)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("validation -log p, nats")
    axes.legend(fontsize="small", ncols=2)
    figure.tight_layout()
    save_figure(path, figure)
    return path


def save_figure(path: Path, figure: Any, *, dpi: int = 120) -> None:
    """Writes a figure of matplotlib as PNG, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi)


def curve_limits(curves: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Returns the range of curves [points, (step, value)] after their first steps and without outliers.

    The first steps are so far from the rest that they would flatten the picture. (None, None) lets matplotlib choose.
    """
    first = 0.1 * max(curve[-1, 0] for curve in curves)
    late = [curve[curve[:, 0] > first, 1] for curve in curves]
    ends = np.concatenate([np.quantile(values, (0.01, 0.99)) for values in late if values.size])
    low, high = ends.min(), ends.max()
    margin = 0.1 * (high - low)
    return (low - margin, high + margin) if margin > 0 else (None, None)


def _scatter(path: Path, points: np.ndarray, behind: np.ndarray | None) -> None:
    """Draws points [N, 2] in front of grey ones."""
    figure, axes = _figure(square=True)
    if behind is not None:
        axes.scatter(*behind.T, s=2, linewidths=0, color="lightgrey")
    axes.scatter(points[:, 0], points[:, 1], s=2, linewidths=0, alpha=0.6)
    axes.set_aspect("equal")
    axes.set_xlim(-4.5, 4.5)
    axes.set_ylim(-4.5, 4.5)
    figure.tight_layout()
    save_figure(path, figure)


def _waveforms(path: Path, grid: np.ndarray, levels: int) -> None:
    """Draws the first column of the grid, one waveform below the other; at most ten, so that each is visible."""
    waves = grid[:_COLUMNS_AT_MOST, 0]
    figure, _ = _figure(square=True)
    figure.clear()
    for axes, wave in zip(figure.subplots(len(waves), sharex=True, squeeze=False)[:, 0], waves, strict=True):
        axes.plot(wave, lw=0.7)
        axes.set_ylim(0, levels - 1)
        axes.set_yticks([])
    figure.tight_layout()
    save_figure(path, figure)


def _save(path: Path, image: Image.Image) -> None:
    with replacing(path) as file:
        image.save(file, format="PNG")


def _figure(*, square: bool = False, height: float = 4.0) -> tuple[Any, Any]:
    """Returns a figure and its axes, without pyplot, which would keep every figure alive and choose a window system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5) if square else (7, height))
    return figure, figure.subplots()
