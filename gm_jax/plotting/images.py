"""Arrays to PNG: grids of images, scatters of 2-D points, waveforms, curves. matplotlib is imported where it draws."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gm_jax.data.sources import Spec
from gm_jax.training.metrics import Line

_GRID_WIDTH = 640  # pixels that a grid should at least be wide: 8x8 digits are drawn large enough to see
_COLUMNS_AT_MOST = 10
_TILES, _TILES_A_ROW, _TILE_WIDTH, _CAPTION = 8, 4, 320, 24


def to_uint8(examples: np.ndarray, spec: Spec) -> np.ndarray:
    """Images in the data's own levels (integers, or means as floats) -> uint8 in 0..255."""
    scaled = np.asarray(examples, np.float64) * (255.0 / (spec.levels - 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def as_grid(examples: np.ndarray) -> np.ndarray:
    """[n, ...] -> [rows, columns, ...], nearly square; what does not fill a last row is left out."""
    columns = min(_COLUMNS_AT_MOST, max(1, int(np.sqrt(len(examples)))))
    rows = len(examples) // columns
    return examples[: rows * columns].reshape(rows, columns, *examples.shape[1:])


def grid_image(grid: np.ndarray, spec: Spec) -> np.ndarray:
    """[rows, columns, H, W, C] examples -> one image [height, width, 3] uint8, enlarged by a whole factor."""
    rows, columns, height, width, channels = grid.shape
    images = to_uint8(grid, spec)
    padded = np.pad(images, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], constant_values=128)
    sheet = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), columns * (width + 1), channels)
    sheet = np.pad(sheet, [(1, 0), (1, 0), (0, 0)], constant_values=128)
    sheet = np.repeat(sheet, 3, axis=2) if channels == 1 else sheet[..., :3]
    factor = max(1, round(_GRID_WIDTH / sheet.shape[1]))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def draw(path: Path, grid: np.ndarray, spec: Spec, *, behind: np.ndarray | None = None) -> None:
    """Write a PNG of [rows, columns, ...] examples: a grid of images, a scatter of 2-D points, or waveforms.

    `behind` are [N, 2] points of the data, in grey; of other data there is no room for them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(spec.shape) == 3:
        Image.fromarray(grid_image(grid, spec)).save(path)
    elif spec.shape == (2,):
        _scatter(path, np.asarray(grid).reshape(-1, 2), behind)
    elif len(spec.shape) == 1 and spec.levels is not None:
        _waveforms(path, np.asarray(grid), spec)
    else:
        raise ValueError(f"cannot draw examples of shape {spec.shape}")


def tile(path: Path, drawn: Mapping[str, Path]) -> None:
    """Write a PNG of PNGs of one size, each under its caption: eight at most, the first and the last among them."""
    count = min(_TILES, len(drawn))
    captions = [list(drawn)[round(index)] for index in np.linspace(0, len(drawn) - 1, count)]
    tiles = [Image.open(drawn[caption]).convert("RGB") for caption in captions]
    width, height = _TILE_WIDTH, round(tiles[0].height * _TILE_WIDTH / tiles[0].width)
    rows, columns = -(-count // _TILES_A_ROW), min(count, _TILES_A_ROW)
    sheet = Image.new("RGB", (columns * (width + 4), rows * (_CAPTION + height + 4)), "white")
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=0.7 * _CAPTION)
    for index, (caption, image) in enumerate(zip(captions, tiles, strict=True)):
        row, column = divmod(index, _TILES_A_ROW)
        left, top = column * (width + 4), row * (_CAPTION + height + 4)
        text.text((left + width // 2, top + _CAPTION // 2), caption, fill="black", font=font, anchor="mm")
        sheet.paste(image.resize((width, height)), (left, top + _CAPTION))
    sheet.save(path)


def read(path: Path) -> np.ndarray:
    """A PNG as [height, width, 3] uint8."""
    return np.asarray(Image.open(path).convert("RGB"))


def draw_curves(path: Path, lines: list[Line]) -> None:
    """Write a PNG of the training loss, of every player, and of the validation's -log p over steps.

    The losses of several players are no -log p: it has a panel of its own below theirs.
    """
    names = sorted({name for line in lines if line.split == "train" for name in line.values})
    players = [name.removesuffix("/loss") for name in names if name.endswith("/loss")]
    losses = [
        ("train", "loss", 1.0, "training loss"),
        *(("train", f"{player}/loss", 1.0, f"training loss of the {player}") for player in players),
    ]
    validation = ("validation", "log_prob", -1.0, "validation -log p, nats")
    apart = players and any(line.split == "validation" for line in lines)
    panels = [losses, [validation]] if apart else [[*losses, validation]]
    figure, _ = _figure()
    figure.clear()
    for axes, panel in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        curves = []
        for split, name, sign, label in panel:
            points = [
                (line.step, sign * line.values[name]) for line in lines if line.split == split and name in line.values
            ]
            if points:
                curves.append(np.array(points))
                axes.plot(*curves[-1].T, marker="o" if split == "validation" else "", ms=3, label=label)
        if curves:
            axes.set_ylim(_limits(curves))
            axes.legend()
    axes.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _limits(curves: list[np.ndarray]) -> tuple[float | None, float | None]:
    """The range of curves [points, (step, value)] where they have come down, but for outliers.

    The first steps are far off: they leave the picture rather than flatten it.
    """
    first = 0.1 * max(curve[-1, 0] for curve in curves)
    late = [curve[curve[:, 0] > first, 1] for curve in curves]
    ends = np.concatenate([np.quantile(values, (0.01, 0.99)) for values in late if values.size])
    low, high = ends.min(), ends.max()
    margin = 0.1 * (high - low)
    return (low - margin, high + margin) if margin > 0 else (None, None)


def _scatter(path: Path, points: np.ndarray, behind: np.ndarray | None) -> None:
    figure, axes = _figure(square=True)
    if behind is not None:
        axes.scatter(*behind.T, s=2, linewidths=0, color="lightgrey")
    axes.scatter(points[:, 0], points[:, 1], s=2, linewidths=0, alpha=0.6)
    axes.set_aspect("equal")
    axes.set_xlim(-4.5, 4.5)
    axes.set_ylim(-4.5, 4.5)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _waveforms(path: Path, grid: np.ndarray, spec: Spec) -> None:
    """One below the other, the first column of the grid; more than ten would be too thin to see."""
    waves = grid[:_COLUMNS_AT_MOST, 0]
    figure, _ = _figure(square=True)
    figure.clear()
    for axes, wave in zip(figure.subplots(len(waves), sharex=True, squeeze=False)[:, 0], waves, strict=True):
        axes.plot(wave, lw=0.7)
        axes.set_ylim(0, spec.levels - 1)
        axes.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _figure(*, square: bool = False):
    # The object interface: pyplot would keep every figure alive and pick a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5) if square else (7, 4))
    return figure, figure.subplots()
