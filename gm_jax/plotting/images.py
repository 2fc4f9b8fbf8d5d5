"""Draws examples as PNG: grids of images with their labels, scatter plots of points in the plane, and waveforms.

Examples are in the data's own levels: integers 0 .. levels - 1, or means as floats. matplotlib is imported only by the
functions that draw with it, because it takes long to import.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gm_jax.files import replacing
from gm_jax.plotting.layout import Grid

_GRID_WIDTH = 640  # approximate width of a grid in pixels, so that 8x8 digits are visible
_COLUMNS_AT_MOST = 10
_TILES, _TILES_PER_ROW, _TILE_WIDTH, _CAPTION = 8, 4, 320, 24
_FRAME, _TINT = 128, np.array([70, 120, 255])  # grey between examples; blue of the pixels that are given
_MARGIN, _TITLE, _LABEL = 8, 17, 14  # pixels around a picture, and the sizes of its texts
_DATA, _SAMPLES = "0.65", "tab:blue"  # colours of points and waveforms


def to_uint8(examples: np.ndarray, levels: int) -> np.ndarray:
    """Scales examples from 0 .. levels - 1 to uint8 0..255, rounded and clipped; what is not a number becomes 0."""
    scaled = np.nan_to_num(np.asarray(examples, np.float64) * (255.0 / (levels - 1)), nan=0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def as_grid(examples: np.ndarray) -> np.ndarray:
    """Arranges [n, ...] as [rows, columns, ...], nearly square; drops examples that do not fill a row."""
    columns = min(_COLUMNS_AT_MOST, max(1, int(np.sqrt(len(examples)))))
    rows = len(examples) // columns
    return examples[: rows * columns].reshape(rows, columns, *examples.shape[1:])


def below_data(samples: np.ndarray, data: np.ndarray | None, *, title: str = "", below: str = "") -> Grid:
    """Arranges samples [n, ...] in a grid, below a row of data.

    Args:
        samples: [n, ...] what a model has drawn.
        data: [m, ...] examples of the data, in the same form; None without any, or with fewer than the row needs.
        title: of the grid.
        below: what the title says further if there is a row of data.
    """
    grid = as_grid(samples)
    rows, columns = grid.shape[:2]
    if data is None or len(data) < columns:
        return Grid(grid, title=title)
    dtype = np.result_type(grid.dtype, data.dtype)
    grid = np.concatenate([data[None, :columns].astype(dtype), grid.astype(dtype)])
    return Grid(grid, title=title + below, rows=("data", "samples", *[""] * (rows - 1)), group=-1)


def grid_image(grid: np.ndarray, levels: int) -> np.ndarray:
    """Joins [rows, columns, H, W, C] examples to one image [height, width, 3] uint8, enlarged by an integer factor."""
    return _sheet(Grid(grid), levels)[0]


def _sheet(grid: Grid, levels: int) -> tuple[np.ndarray, list[int], int]:
    """Joins the images of a grid: the sheet [height, width, 3] uint8, the top of each row, the height of an image."""
    rows, columns, height, width, channels = grid.examples.shape
    images = to_uint8(np.asarray(grid.examples), levels)[..., : 1 if channels < 3 else 3]
    images = np.repeat(images, 3, axis=-1) if channels < 3 else images
    if grid.given is not None:
        given = np.asarray(grid.given)[:, None].any(axis=-1, keepdims=True)
        images = np.where(given, (0.55 * images + 0.45 * _TINT).astype(np.uint8), images)
    padded = np.pad(images, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], constant_values=_FRAME)
    strips = padded.transpose(0, 2, 1, 3, 4).reshape(rows, height + 1, columns * (width + 1), 3)
    factor = max(1, round(_GRID_WIDTH / (columns * (width + 1) + 1)))
    strips = np.pad(strips, [(0, 0), (1, 0), (1, 0), (0, 0)], constant_values=_FRAME)
    strips = strips.repeat(factor, axis=1).repeat(factor, axis=2)
    parts, tops, at = [], [], 0
    for row, strip in enumerate(strips):
        new_group = row > 0 and (row == 1 if grid.group < 0 else grid.group > 0 and row % grid.group == 0)
        if new_group:
            gap = np.full((_MARGIN, strip.shape[1], 3), 255, np.uint8)
            parts, at = [*parts, gap], at + _MARGIN
        elif row > 0:  # the frame between two rows is one line
            strip = strip[factor:]
            at -= factor
        tops.append(at)
        parts.append(strip)
        at += (height + 2) * factor
    return np.concatenate(parts), tops, (height + 2) * factor


def draw_grid(
    path: Path, grid: np.ndarray | Grid, levels: int | None, *, behind: np.ndarray | None = None, subtitle: str = ""
) -> None:
    """Draws a grid of examples as PNG: images [H, W, C], points [2] or waveforms [T].

    Args:
        path: PNG to write.
        grid: [rows, columns, ...] examples, or a grid with its labels.
        levels: number of levels of the data; None for points.
        behind: [N, ...] data to draw in grey behind points and beside waveforms; ignored for images.
        subtitle: a line below the title, such as the run and its step.
    Raises:
        ValueError: examples of this shape cannot be drawn.
    """
    grid = grid if isinstance(grid, Grid) else Grid(grid)
    examples = np.asarray(grid.examples)
    shape, titles = examples.shape[2:], [grid.title] if grid.title else []
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(shape) == 3 and levels is not None:
        _save(path, _labelled(grid, levels, subtitle))
    elif shape == (2,):
        _scatter(path, examples.reshape(-1, 2), behind, "\n".join([*titles, *([subtitle] if subtitle else [])]))
    elif len(shape) == 1 and levels is not None:
        _waveforms(path, examples, levels, behind, "\n".join([*titles, *([subtitle] if subtitle else [])]))
    else:
        raise ValueError(f"cannot draw examples of shape {shape} with {levels} levels")


def _labelled(grid: Grid, levels: int, subtitle: str) -> Image.Image:
    """Draws a grid of images with its title, the labels of its rows at the left and those of its columns above."""
    sheet, tops, height = _sheet(grid, levels)
    rows = grid.row_labels()
    if not (grid.title or subtitle or any(rows) or grid.columns):
        return Image.fromarray(sheet)
    title_font, font = (ImageFont.load_default(size=size) for size in (_TITLE, _LABEL))
    left = _MARGIN + max((round(font.getlength(label)) + _MARGIN for label in rows if label), default=0)
    width = left + sheet.shape[1] + _MARGIN
    titles = _wrapped(grid.title, title_font, width - 2 * _MARGIN)
    subtitles = _wrapped(subtitle, font, width - 2 * _MARGIN)
    head = _MARGIN + (_TITLE + 6) * len(titles) + (_LABEL + 6) * len(subtitles) + (_LABEL + 6) * bool(grid.columns)
    image = Image.new("RGB", (width, head + sheet.shape[0] + _MARGIN), "white")
    image.paste(Image.fromarray(sheet), (left, head))
    draw, top = ImageDraw.Draw(image), _MARGIN
    for lines, used, size, colour in ((titles, title_font, _TITLE, "black"), (subtitles, font, _LABEL, "#555555")):
        for line in lines:
            draw.text((_MARGIN, top), line, fill=colour, font=used)
            top += size + 6
    step = sheet.shape[1] / max(1, grid.examples.shape[1])
    column_font = _fitting(grid.columns, step - 2)
    for column, label in enumerate(grid.columns):
        place = (left + (column + 0.5) * step, head - _MARGIN / 2)
        draw.text(place, label, fill="black", font=column_font, anchor="mb")
    for label, row in zip(rows, tops, strict=True):
        draw.text((left - _MARGIN, head + row + height // 2), label, fill="black", font=font, anchor="rm")
    return image


def _fitting(labels: Sequence[str], width: float) -> Any:
    """Returns a font in which every label is at most so wide, unless it would be too small to read."""
    fonts = [ImageFont.load_default(size=size) for size in range(_LABEL, 8, -1)]
    fits = (font for font in fonts if all(font.getlength(label) <= width for label in labels))
    return next(fits, fonts[-1])


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    """Breaks a text into lines that fit the width."""
    if not text:
        return []
    characters = max(20, int(len(text) * width / max(font.getlength(text), 1)))
    return textwrap.wrap(text, characters)


def tile(path: Path, drawn: Mapping[str, Path], *, title: str = "") -> None:
    """Joins PNGs of equal size to one PNG, each below its caption: at most eight, including the first and the last.

    Args:
        path: PNG to write.
        drawn: caption -> PNG.
        title: above all of them.
    """
    count = min(_TILES, len(drawn))
    captions = [list(drawn)[round(index)] for index in np.linspace(0, len(drawn) - 1, count)]
    tiles = [Image.open(drawn[caption]).convert("RGB") for caption in captions]
    width, height = _TILE_WIDTH, round(tiles[0].height * _TILE_WIDTH / tiles[0].width)
    rows, columns = -(-count // _TILES_PER_ROW), min(count, _TILES_PER_ROW)
    lines = _wrapped(title, ImageFont.load_default(size=_TITLE), columns * (width + 4) - 2 * _MARGIN)
    head = (_TITLE + 6) * len(lines) + (_MARGIN if lines else 0)
    sheet = Image.new("RGB", (columns * (width + 4), head + rows * (_CAPTION + height + 4)), "white")
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=0.7 * _CAPTION)
    for index, line in enumerate(lines):
        place = (_MARGIN, _MARGIN + index * (_TITLE + 6))
        text.text(place, line, fill="black", font=ImageFont.load_default(size=_TITLE))
    for index, (caption, image) in enumerate(zip(captions, tiles, strict=True)):
        row, column = divmod(index, _TILES_PER_ROW)
        left, top = column * (width + 4), head + row * (_CAPTION + height + 4)
        text.text((left + width // 2, top + _CAPTION // 2), caption, fill="black", font=font, anchor="mm")
        # Without blur, unless it becomes smaller.
        how = Image.Resampling.NEAREST if width % image.width == 0 else Image.Resampling.LANCZOS
        sheet.paste(image.resize((width, height), how), (left, top + _CAPTION))
    _save(path, sheet)


def read(path: Path) -> np.ndarray:
    """Reads a PNG as [height, width, 3] uint8."""
    return np.asarray(Image.open(path).convert("RGB"))


def save_figure(path: Path, figure: Any, *, dpi: int = 120) -> None:
    """Writes a figure of matplotlib as PNG, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi)


def point_limits(points: np.ndarray) -> list[tuple[float, float]]:
    """Returns ranges (low, high) of equal length of the coordinates of points [N, D], without the outermost 1 in 500.

    Not every point, because one sample that is far away would make all others small.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    if not len(finite):
        return [(-1.0, 1.0)] * points.shape[1]
    low, high = np.quantile(finite, [0.002, 0.998], axis=0)
    middle, half = (low + high) / 2, 0.6 * max(np.max(high - low), 1e-3)
    return list(zip((middle - half).tolist(), (middle + half).tolist(), strict=True))


def _scatter(path: Path, points: np.ndarray, behind: np.ndarray | None, title: str) -> None:
    """Draws points [N, 2] in front of grey ones of the data, which define the range."""
    figure, axes = _figure(square=True)
    if behind is not None:
        axes.scatter(*behind.T, s=5, linewidths=0, color=_DATA, label="data")
    axes.scatter(points[:, 0], points[:, 1], s=5, linewidths=0, alpha=0.7, color=_SAMPLES, label="samples")
    axes.set_aspect("equal")
    horizontal, vertical = point_limits(points if behind is None else behind)
    axes.set_xlim(horizontal)
    axes.set_ylim(vertical)
    axes.set_xlabel("x[0]")
    axes.set_ylabel("x[1]")
    axes.set_title(title, fontsize="medium")
    if behind is not None:
        axes.legend(loc="upper right", fontsize="small", markerscale=2)
    save_figure(path, figure)


def _waveforms(path: Path, grid: np.ndarray, levels: int, behind: np.ndarray | None, title: str) -> None:
    """Draws the first column of the grid, one waveform below the other, and data beside them; at most ten."""
    waves = grid[:_COLUMNS_AT_MOST, 0]
    columns = [("samples", _SAMPLES, waves)]
    if behind is not None:
        columns.insert(0, ("data", "0.35", behind[: len(waves)]))
    figure, _ = _figure(height=1.0 + 0.6 * len(waves))
    figure.clear()
    panels = figure.subplots(len(waves), len(columns), sharex=True, sharey=True, squeeze=False)
    for column, (name, colour, shown) in enumerate(columns):
        panels[0, column].set_title(name, fontsize="medium")
        panels[-1, column].set_xlabel("time, in steps")
        for axes, wave in zip(panels[:, column], shown, strict=False):
            axes.plot(wave, lw=0.7, color=colour)
    panels[0, 0].set_ylim(0, levels - 1)
    panels[0, 0].set_yticks([0, levels - 1])
    figure.supylabel("level", fontsize="medium")
    figure.suptitle(title, fontsize="medium")
    save_figure(path, figure)


def _save(path: Path, image: Image.Image) -> None:
    with replacing(path) as file:
        image.save(file, format="PNG", optimize=True)


def _figure(*, square: bool = False, height: float = 4.0) -> tuple[Any, Any]:
    """Returns a figure and its axes, without pyplot, which would keep every figure alive and choose a window system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5.5) if square else (7, height), layout="constrained")
    return figure, figure.subplots()
