"""Captions: a denoiser that reads words, and pairs of words that it has never seen together."""

import dataclasses
import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from gm_jax.models import diffusion, diffusion_space
from gm_jax.networks import attention
from gm_jax.networks.dit import DiT
from gm_jax.networks.text_encoder import PADDING, TextEncoder
from gm_jax.ops import diffusion_process
from gm_jax.plotting import images
from gm_jax.samplers import guidance
from gm_jax.samplers.ddim import ddim
from gm_jax.types import Params
from tools.lecture import training
from tools.lecture.page import Number, Page

_SIDE, _STEPS = 8, 100
_COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
_PLACES = {"upper left": (0, 0), "upper right": (0, 4), "lower left": (4, 0), "lower right": (4, 4)}
_PAIRS = tuple(itertools.product(range(len(_COLOURS)), range(len(_PLACES))))
_HELD_OUT = ((0, 3), (2, 0))  # a red square at the lower right, a blue one at the upper left
_TRAINED = tuple(pair for pair in _PAIRS if pair not in _HELD_OUT)
_EACH = 24  # samples of a caption


def captions() -> Page:
    """Captions: words that were never seen together."""
    trained, held_out = np.array(_TRAINED), np.array(_HELD_OUT)
    of_trained, of_held_out = (_drawn(pairs, each=_EACH, weight=1.0) for pairs in (trained, held_out))
    red = _drawn(np.array([(0, -1)]), each=400, weight=0.0)
    colours, places = _nearest(red)
    shares = np.bincount(places, minlength=len(_PLACES)) / len(places)

    def draw(path: Path) -> None:
        shown = [(_text(_TRAINED[index]), of_trained[_EACH * index :]) for index in (0, 5)]
        shown += [(f"{_text(pair)}\n(never seen)", of_held_out[_EACH * i :]) for i, pair in enumerate(_HELD_OUT)]
        shown.append(("red", red))
        figure = Figure(figsize=(9, 2.7), layout="constrained")
        for axes, (text, x) in zip(figure.subplots(1, len(shown)), shown, strict=True):
            grid = np.pad(x[:9], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0).reshape(3, 3, 10, 10, 3)
            axes.imshow(np.clip(0.5 + 0.5 * np.moveaxis(grid, 2, 1).reshape(30, 30, 3), 0, 1))
            axes.set_title(text, fontsize=9)
            axes.axis("off")
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        v_w = (1 + w) v(x_t, t, caption) - w v(x_t, t, no caption)
        the network reads   context_i = encoder(start, word_1, word_2)_i   by cross-attention, and their sum as the time
        """,
        (TextEncoder, DiT, attention.CrossAttention, diffusion.Diffusion, guidance.classifier_free_guidance),
        """
        Pictures of 8 x 8 pixels have a square of one of three colours at one of four places, and a caption of two
        words, its colour and its place. Some training captions lack a word, and a tenth of the examples lacks the
        caption. Two pairs of words are in no training example. The network draws them nonetheless if it is asked,
        because it has learned what each word changes.

        What a caption does not say is free, as it was in training: with the colour alone the squares are red, at the
        three places at which red squares were seen, and rarely at the fourth. Where the place is free, some samples
        mix two squares. The samples of two words are guided with w = 1, the others not.
        """,
        (
            Number("colour and place as said, trained pairs", _obeyed(of_trained, trained), 0.95, 1.0, ".2f"),
            Number("the same, pairs that were never seen", _obeyed(of_held_out, held_out), 0.75, 1.0, ".2f"),
            Number("whole squares among the latter", _whole(of_held_out), 0.75, 1.0, ".2f"),
            Number("share of red squares, caption red", float(np.mean(colours == 0)), 0.9, 1.0, ".2f"),
            Number("the rarest of the three places, caption red", float(shares[:3].min()), 0.05, 0.34, ".2f"),
            Number("share of the fourth place, caption red", float(shares[3]), 0.0, 0.12, ".2f"),
            Number("whole squares, caption red", _whole(red), 0.4, 1.0, ".2f"),
        ),
        draw,
    )


@functools.cache
def _captioned() -> tuple[diffusion.Diffusion, Params]:
    """Trains a diffusion transformer of the squares, once."""
    schedule = diffusion_process.linear_schedule(_STEPS, beta_min=0.1, beta_max=15.0)
    words = 1 + len(_COLOURS) + len(_PLACES)  # with the padding
    family = diffusion.Diffusion(
        network=DiT(48, layers=2, heads=2, text=TextEncoder((2,), words, 48, features=16, heads=1, layers=1)),
        space=diffusion_space.points(),
        schedule=schedule,
        shape=(_SIDE, _SIDE, 3),
        parameterization=diffusion.v_prediction(),
        sampler=ddim(schedule, 20),
        variance_fn=diffusion_process.transition_variance,
        num_tokens=2,
    )
    return family, training.train(family.model, _data(), steps=2_500, batch_size=64, learning_rate=3e-3).params


def _data() -> dict[str, np.ndarray]:
    """Draws 8,000 pictures [N, 8, 8, 3] of the trained pairs with their captions [N, 2], some of which lack a word."""
    rng = np.random.default_rng(0)
    pairs = np.array(_TRAINED)[rng.integers(len(_TRAINED), size=8_000)]
    x = np.stack([_picture(*pair) for pair in pairs]) + 0.05 * rng.normal(size=(len(pairs), _SIDE, _SIDE, 3))
    said = np.where(rng.random(pairs.shape) < 0.15, -1, pairs)
    return {"x": x.astype(np.float32), "tokens": _tokens(said)}


def _picture(colour: int, place: int) -> np.ndarray:
    x = np.full((_SIDE, _SIDE, 3), -1.0)
    row, column = list(_PLACES.values())[place]
    x[row : row + 4, column : column + 4] = list(_COLOURS.values())[colour]
    return x


def _tokens(pairs: np.ndarray) -> np.ndarray:
    """Writes captions [N, 2]: words first, then padding; -1 says nothing."""
    words = np.where(pairs < 0, PADDING, 1 + pairs + np.array([0, len(_COLOURS)]))
    only_second = (words[:, :1] == PADDING) & (words[:, 1:] != PADDING)
    return np.where(only_second, words[:, ::-1], words).astype(np.int32)


def _text(pair: tuple[int, int]) -> str:
    return f"{list(_COLOURS)[pair[0]]}, {list(_PLACES)[pair[1]]}"


def _drawn(pairs: np.ndarray, *, each: int, weight: float) -> np.ndarray:
    """Draws samples of captions, guided with a weight, [N each, 8, 8, 3]."""
    family, params = _captioned()
    label = jnp.asarray(_tokens(np.repeat(pairs, each, axis=0)))
    guided = dataclasses.replace(family, guidance=weight)
    return np.asarray(jax.jit(guided.sample, static_argnums=3)(params, {}, jax.random.key(1), len(label), label=label))


def _nearest(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns colour and place of the nearest clean picture."""
    clean = np.stack([_picture(*pair) for pair in _PAIRS])
    index = np.argmin(np.sum((x[:, None] - clean[None]) ** 2, axis=(2, 3, 4)), axis=1)
    return index // len(_PLACES), index % len(_PLACES)


def _whole(x: np.ndarray) -> float:
    """Returns the share of samples that are one of the clean pictures, up to noise."""
    clean = np.stack([_picture(*pair) for pair in _PAIRS])
    errors = np.min(np.mean((x[:, None] - clean[None]) ** 2, axis=(2, 3, 4)), axis=1)
    return float(np.mean(np.sqrt(errors) < 0.25))


def _obeyed(x: np.ndarray, pairs: np.ndarray) -> float:
    """Returns the share of samples whose colour and place are those of their captions."""
    colour, place = np.repeat(pairs, _EACH, axis=0).T
    found = _nearest(x)
    return float(np.mean((found[0] == colour) & (found[1] == place)))
