"""Animated GIFs: states of a chain, or pictures drawn over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gm_jax.files import replacing
from gm_jax.plotting import images
from gm_jax.types import Array

_MOST_FRAMES = 60  # of one file, so that it stays small
_SECONDS, _LAST = 4.0, 1.5  # how long the animation takes, and how long its last frame stays
_SIDE = 320  # of a joined picture at most, in pixels


def write(path: Path, states: Sequence[Array | np.ndarray], *, levels: int) -> Path:
    """Draws states of the same examples, one frame each, and returns the path.

    Args:
        path: GIF to write.
        states: [N, H, W, C] images each, on the data's own scale; the last one stays longest.
        levels: number of levels of the data.
    Raises:
        ValueError: there are no states, or they are not images.
    """
    chosen = _spread(states)
    if not chosen or np.ndim(chosen[0]) != 4:
        raise ValueError("an animation needs at least one state of images [N, H, W, C]")
    frames = [images.grid_image(images.as_grid(np.asarray(state)), levels) for state in chosen]
    _save(path, [Image.fromarray(frame) for frame in frames])
    return path


def join(path: Path, pictures: Sequence[Path]) -> Path:
    """Joins pictures of equal size, one frame each, and returns the path.

    Args:
        path: GIF to write.
        pictures: PNGs; larger ones are made smaller.
    Raises:
        ValueError: there are no pictures.
    """
    chosen = _spread(pictures)
    if not chosen:
        raise ValueError("an animation needs at least one picture")
    frames = [Image.open(picture).convert("RGB") for picture in chosen]
    for frame in frames:
        frame.thumbnail((_SIDE, _SIDE))
    _save(path, frames)
    return path


def _spread(frames: Sequence) -> list:
    """Returns at most _MOST_FRAMES of the frames, evenly spread, with the first and the last."""
    indices = np.unique(np.rint(np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES))).astype(int))
    return [frames[index] for index in indices]


def _save(path: Path, frames: list[Image.Image]) -> None:
    each = int(1000 * _SECONDS / len(frames))
    durations = [each] * (len(frames) - 1) + [int(1000 * _LAST)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
