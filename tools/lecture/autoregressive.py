"""Autoregressive models: what each pixel depends on, and what the order costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from gm_jax.data import pipeline
from gm_jax.losses import autoregressive as losses
from gm_jax.networks import made, pixelcnn, pixelrnn, wavenet
from gm_jax.ops import binarization, orders
from gm_jax.plotting import images
from gm_jax.types import Array, PyTree
from tools.lecture import worlds
from tools.lecture.page import Number, Page

_SIDE, _ROW, _COLUMN = 11, 7, 5  # of the images, and the pixel whose dependencies are drawn
_BEFORE = _ROW * _SIDE + _COLUMN  # pixels before it in raster order


def dependency_maps() -> Page:
    """What a pixel depends on, measured by gradients."""
    settings = {"event_shape": (_SIDE, _SIDE, 1), "levels": 2, "outputs_per_dim": 1, "first_size": 3}
    masks = jax.tree.map(lambda leaf: leaf[0], made.mask_sets(orders.raster((_SIDE, _SIDE, 1))[None], (400,)))
    maps = {
        "MADE": _pixel_map(made.MADE(_SIDE**2, (400,)), lambda x: x.reshape(len(x), -1), masks),
        "PixelRNN, Row LSTM": _pixel_map(pixelrnn.PixelRNN(**settings, lstm=pixelrnn.RowLSTM, hidden=4, layers=1)),
        "PixelRNN, Diagonal BiLSTM": _pixel_map(pixelrnn.PixelRNN(**settings, hidden=4, layers=1)),
        "PixelCNN": _pixel_map(pixelcnn.PixelCNN(**settings, features=8, layers=6)),
        "gated PixelCNN": _pixel_map(pixelcnn.GatedPixelCNN(**settings, features=8, layers=6)),
    }
    wave = _wavenet_map()
    unseen = {name: _BEFORE - int(np.sum(found > 0)) for name, found in maps.items()}

    def draw(path: Path) -> None:
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        axes = figure.subplot_mosaic("01234;wwwww", height_ratios=[3, 1.2])
        for place, (name, found) in enumerate(maps.items()):
            panel = axes[str(place)]
            panel.imshow(np.log10(np.where(found > 0, found / found.max(), np.nan)), cmap="viridis", vmin=-5, vmax=0)
            panel.plot(_COLUMN, _ROW, "s", color="tab:red", ms=7)
            panel.set(xticks=[], yticks=[])
            panel.set_title(f"{name}\n{unseen[name]} pixels unseen", fontsize="small")
        axes["w"].bar(np.arange(1, len(wave) + 1), np.where(wave > 0, 1.0, 0.0), width=0.9, color="tab:green")
        axes["w"].set(xlabel="steps back in time", yticks=[], title="WaveNet, dilations 1, 2, 4, 8: steps that matter")
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        p(x) = prod_i p(x_i | x_1 ... x_(i-1)),     map: |d outputs_i / d x_j|
        receptive field of a WaveNet of kernel size k: 1 + (k - 1) sum of dilations
        """,
        (made.MADE, pixelrnn.PixelRNN, pixelcnn.PixelCNN, pixelcnn.GatedPixelCNN, wavenet.WaveNet),
        """
        The networks are as initialised, with random noise on all parameters. The colour is the size of the gradient
        of the outputs at the red pixel in each other pixel, on a logarithmic scale. White means exactly 0: the output
        cannot depend on it. No network sees the red pixel or later ones, so that all are autoregressive.

        MADE sees all pixels before its own. A Row LSTM sees a triangle above; a Diagonal BiLSTM sees everything. The
        masked convolutions of PixelCNN leave a blind spot at the right above the pixel, which no number of layers
        removes. The two stacks of the gated PixelCNN remove it. WaveNet sees exactly the past that its dilations
        reach.
        """,
        (
            Number("pixels before the red one", _BEFORE, 82, 82, ".0f"),
            Number("unseen by MADE", unseen["MADE"], 0, 0, ".0f"),
            Number("unseen by a Row LSTM", unseen["PixelRNN, Row LSTM"], 5, 60, ".0f"),
            Number("unseen by a Diagonal BiLSTM", unseen["PixelRNN, Diagonal BiLSTM"], 0, 0, ".0f"),
            Number("unseen by PixelCNN: the blind spot", unseen["PixelCNN"], 5, 30, ".0f"),
            Number("unseen by the gated PixelCNN", unseen["gated PixelCNN"], 0, 0, ".0f"),
            Number("steps of the past that WaveNet sees", int(np.sum(wave > 0)), 16, 16, ".0f"),
            Number("1 + 1 + 2 + 4 + 8", wavenet.receptive_field(2, (1, 2, 4, 8)), 16, 16, ".0f"),
        ),
        draw,
    )


def order_bias() -> Page:
    """What the order of the pixels costs, in nats."""
    shape = (8, 8, 1)
    named = {name: orders.named(shape)[name] for name in ("raster", "column", "spiral", "random")}
    chosen = np.stack(list(named.values()))
    per_pixel = _nats_per_pixel(chosen, informed=True)  # [orders, examples, 64]
    uninformed = _nats_per_pixel(chosen, informed=False).sum(axis=2)
    without = uninformed[1] - uninformed[0]  # column minus raster
    nll = per_pixel.sum(axis=2)
    mean = dict(zip(named, nll.mean(axis=1), strict=True))
    difference = nll - nll[:1]
    error = dict(zip(named, difference.std(axis=1) / np.sqrt(nll.shape[1]), strict=True))

    def draw(path: Path) -> None:
        figure = Figure(figsize=(10, 5), layout="constrained")
        panels = figure.subplots(2, 4)
        for (name, order), each, (above, below) in zip(named.items(), per_pixel, panels.T, strict=True):
            above.imshow(np.argsort(order).reshape(8, 8), cmap="Blues")
            above.set(title=f"{name}: when\n{mean[name]:.2f} nats", xticks=[], yticks=[])
            shown = below.imshow(each.mean(axis=0).reshape(8, 8), cmap="magma", vmin=0, vmax=0.7)
            below.set(title="what it costs", xticks=[], yticks=[])
        figure.colorbar(shown, ax=panels[1, -1], label="nats")
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        log p(x) = sum_j log p(x_o(j) | x_o(1) ... x_o(j-1))       for any order o, with the true conditionals
        """,
        (losses.bernoulli_nll, made.mask_sets, orders.named),
        """
        With exact conditionals every order gives the same log p(x). A trained network need not. Here one MADE is
        trained for each order, with the same initial parameters and the same batches. Above: when a pixel is drawn,
        from light to dark. Below: what it costs on the test split, in nats. The costs move from
        pixel to pixel with the order, and their sum hardly changes.

        The biases of these networks begin at the frequency of each pixel. The last two numbers are a warning: with
        biases that begin at 0 the column order seems to cost more, because the black margin comes first there, has
        nothing but its biases to learn from, and the training is short. The order was not the reason. The differences
        are in pairs, on the same test images.
        """,
        (
            Number("raster order, nats", mean["raster"], 15, 25, ".2f"),
            Number("column order minus raster, nats", mean["column"] - mean["raster"], -0.8, 0.8, ".2f"),
            Number("its standard error, column", error["column"], 0.05, 0.4, ".2f"),
            Number("spiral order minus raster, nats", mean["spiral"] - mean["raster"], -0.8, 0.8, ".2f"),
            Number("its standard error, spiral", error["spiral"], 0.05, 0.4, ".2f"),
            Number("random order minus raster, nats", mean["random"] - mean["raster"], -0.8, 0.8, ".2f"),
            Number("its standard error, random", error["random"], 0.05, 0.4, ".2f"),
            Number("column minus raster, biases from 0, nats", without.mean(), 0.3, 2, ".2f"),
            Number("its standard error, biases from 0", without.std() / np.sqrt(len(without)), 0.05, 0.3, ".2f"),
        ),
        draw,
    )


def _noisy(params: PyTree) -> PyTree:
    """Adds noise to parameters, so that none is 0 as initialised."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noise = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noise)


def _pixel_map(network: nn.Module, prepare: Callable[[Array], Array] = lambda x: x, *args: Any) -> np.ndarray:
    """Mean |d outputs at the red pixel / d x| [side, side] over random images."""
    x = jax.random.uniform(jax.random.key(1), (4, _SIDE, _SIDE, 1))
    params = _noisy(jax.jit(network.init)(jax.random.key(0), prepare(x), *args)["params"])

    def output(x: Array) -> Array:
        outputs = cast(Array, network.apply({"params": params}, prepare(x), *args))
        return jnp.sum(outputs.reshape(len(x), -1)[:, _BEFORE])

    slopes = jax.jit(jax.grad(output))(x)
    return np.abs(np.asarray(slopes)).mean(axis=0).reshape(_SIDE, _SIDE)


def _wavenet_map() -> np.ndarray:
    """Gradient of the last output in the embedded step 1, 2, ... 24 before it."""
    network = wavenet.WaveNet(levels=4, outputs_per_dim=4, features=8, skip=16, dilations=(1, 2, 4, 8))
    params = _noisy(network.init(jax.random.key(0), jnp.zeros((1, 25), int))["params"])
    embedded = jax.random.normal(jax.random.key(1), (1, 25, 8))

    def output(e: Array) -> Array:
        return jnp.sum(cast(Array, network.apply({"params": params}, e, method="from_embedded"))[0, -1])

    slope = np.abs(np.asarray(jax.grad(output)(embedded)))[0].sum(axis=1)
    return slope[:-1][::-1]


def _nats_per_pixel(chosen: np.ndarray, *, informed: bool) -> np.ndarray:
    """Trains one MADE for each order [K, 64], all at once: -log p of each pixel [K, examples, 64] on the test split.

    Informed networks begin with the frequency of each pixel as their bias, others with 0.
    """
    network, optimizer = made.MADE(64, (256,)), optax.adam(optax.cosine_decay_schedule(1e-2, 800))
    masks = jax.tree.map(jnp.asarray, made.mask_sets(chosen, (256,)))
    train, test = (
        binarization.threshold(jnp.asarray(worlds.digits(split)["x"]), levels=17).reshape(-1, 64)
        for split in ("train", "test")
    )
    batches = jnp.asarray(pipeline.train_batches({"x": np.asarray(train)}, 100, 0, 0, 800)["x"])
    params = network.init(jax.random.key(0), train[:1], jax.tree.map(lambda leaf: leaf[0], masks))["params"]
    if informed:
        share = (jnp.sum(train, axis=0) + 0.5) / (len(train) + 1.0)
        params = {**params, "bias_1": jnp.log(share) - jnp.log1p(-share)}

    def run(masks: made.MaskSet) -> Array:
        def loss(params: PyTree, x: Array) -> Array:
            return jnp.mean(losses.bernoulli_nll(x, cast(Array, network.apply({"params": params}, x, masks))))

        def take(carry: tuple[PyTree, PyTree], x: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(params, x), moments)
            return (optax.apply_updates(params, updates), moments), None

        (last, _), _ = jax.lax.scan(take, (params, optimizer.init(params)), batches)
        logits = network.apply({"params": last}, test, masks)
        return jax.vmap(jax.vmap(lambda x, logit: losses.bernoulli_nll(x[None, None], logit[None, None])[0]))(
            test, logits
        )

    return np.asarray(jax.jit(jax.vmap(run))(masks))
