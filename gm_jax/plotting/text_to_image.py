"""Pictures of text to image: prompts, words that change one at a time, guidance, and where each word is read."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.models.latent_diffusion import LatentDiffusion
from gm_jax.ops import predictions
from gm_jax.plotting.layout import Grid
from gm_jax.plotting.vae import reconstructions
from gm_jax.types import Array, Key, ModelState, Params

WEIGHTS = (-1.0, 0.0, 1.0, 2.0, 4.0, 8.0)  # rows of `guidance`; -1 is the unconditional model
_COLUMNS = 8
_NOISE = 0.5  # of the schedule: the time at which attention maps are taken


class Captions(NamedTuple):
    """Prompts and their tokens.

    Attributes:
        texts: one for each.
        tokens: [N, L] int32.
    """

    texts: tuple[str, ...]
    tokens: Array


def grids(
    model: LatentDiffusion, prompts: Captions, changed: Captions
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Lists the pictures: functions (params, model_state, key, x) -> Grid.

    Args:
        model: a latent diffusion model with captions.
        prompts: of the grid of prompts, of the pictures along guidance, and of the attention maps.
        changed: prompts of which each differs from the one before in one word or place.
    """
    return {
        "prompts": partial(of_prompts, model, prompts, "Samples of each prompt"),
        "words": partial(of_prompts, model, changed, "A word or place changes in each row; a column has one noise"),
        "guidance": partial(guidance, model, prompts),
        "attention": partial(attention, model, prompts),
        "reconstructions": partial(reconstructions, model.autoencoder),
    }


def of_prompts(
    model: LatentDiffusion,
    prompts: Captions,
    title: str,
    params: Params,
    model_state: ModelState,
    key: Key,
    x: Array,
) -> Grid:
    """Draws a row of samples for each prompt, from the same noise in every row."""

    def row(caption: Array) -> Array:
        label = jnp.broadcast_to(caption, (_COLUMNS, *caption.shape))
        return model.sample(params, model_state, key, _COLUMNS, label=label)

    return Grid(jax.lax.map(row, prompts.tokens), title=f"{title}, {_weight(model)}", rows=prompts.texts)


def guidance(
    model: LatentDiffusion, prompts: Captions, params: Params, model_state: ModelState, key: Key, x: Array
) -> Grid:
    """Draws a sample of each prompt from the same noise in every row, guided by each of WEIGHTS."""

    def row(weight: Array) -> Array:
        guided = dataclasses.replace(model, prior=dataclasses.replace(model.prior, guidance=weight))
        return guided.sample(params, model_state, key, len(prompts.tokens), label=prompts.tokens)

    names = {-1.0: "no caption", 0.0: "w = 0 (no guidance)"}
    return Grid(
        jax.lax.map(row, jnp.asarray(WEIGHTS)),
        title="Guidance: a sample of each prompt from the same noise in each column, guided with weight w. From left: "
        + "; ".join(prompts.texts),
        rows=tuple(names.get(weight, f"w = {weight:g}") for weight in WEIGHTS),
    )


def attention(
    model: LatentDiffusion, prompts: Captions, params: Params, model_state: ModelState, key: Key, x: Array
) -> Grid:
    """Draws where the network reads each word of the first prompt: the sample, then a map for each word.

    A map is the mean of the layers' weights at half of the diffusion time, its largest value white.
    """
    caption, text = prompts.tokens[:1], prompts.texts[0]
    sample_key, noise_key = jax.random.split(key)
    z = model.prior.sample(params, {}, sample_key, 1, label=caption)
    schedule = model.prior.schedule
    t = jnp.full(1, max(1, round(_NOISE * schedule.num_steps)), jnp.int32)
    z_t = predictions.diffuse(z, jax.random.normal(noise_key, z.shape), schedule.signal(t), schedule.noise(t))
    _, kept = model.prior.network.apply({"params": params["diffusion"]}, z_t, t, caption, mutable=["attention_maps"])
    words = text.split()
    picture = model.decode(params, model_state, z)[0]
    height, width, channels = picture.shape

    def of_layer(weights: Array) -> Array:
        """Maps how much each of N places reads of each position, [N, L + 1], to an image for each word."""
        rows = round((len(weights) * height / width) ** 0.5)
        maps = weights.T[1 : len(words) + 1].reshape(len(words), rows, -1)  # the first position is the start token
        return jax.image.resize(maps, (len(words), height, width), "nearest")

    maps = sum(of_layer(leaf[0]) for leaf in jax.tree.leaves(kept["attention_maps"]))
    high = 255.0 if model.levels is None else model.levels - 1.0
    grey = jnp.round(high * maps / jnp.maximum(jnp.max(maps, axis=(1, 2), keepdims=True), 1e-9))
    shown = jnp.broadcast_to(grey[..., None], (*grey.shape, channels)).astype(picture.dtype)
    return Grid(
        jnp.concatenate([picture[None], shown])[None],
        title=f'Where the network reads each word of "{text}" at half of the diffusion time; each map by itself',
        columns=("sample", *words),
    )


def _weight(model: LatentDiffusion) -> str:
    return f"guided with w = {model.prior.guidance:g}"
