"""Models of classes with latents: the same latents in every class, and arcs between latents within a class."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.conditional_gan import ConditionalGAN
from gm_jax.models.conditional_vae import ConditionalVAE
from gm_jax.plotting import gan
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

GridFns = Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]

_MOST_CLASSES, _COLUMNS = 10, 10


def grids_of_vae(model: ConditionalVAE, shape: tuple[int, ...]) -> GridFns:
    """Pictures of a class-conditional VAE of images as functions (params, model_state, key, x) -> Grid.

    classes: the mean of p(x|z,y) for the same ten latents in every row, whose class is y.

    Args:
        model: the VAE.
        shape: shape of one example; the mapping is empty unless it is the shape of an image.
    """

    def classes(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        z, label = _latents_in_every_class(key, model.vae.latent_dim, model.num_classes)
        return _rows_of_classes(model.decode(params, z, label), "means of p(x | z, y)")

    return {"classes": classes} if len(shape) == 3 else {}


def grids_of_gan(model: ConditionalGAN, shape: tuple[int, ...]) -> GridFns:
    """Pictures of a class-conditional GAN of images as functions (params, model_state, key, x) -> Grid of data.

    classes: the same ten latents in every row, whose class is y; interpolations: an arc between two latents in each.

    Args:
        model: the GAN.
        shape: shape of one example; the mapping is empty unless it is the shape of an image.
    """

    def classes(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        z, label = _latents_in_every_class(key, model.gan.latent_dim, model.num_classes)
        return _rows_of_classes(model.generate(params, model_state, z, label), "generated pictures")

    def interpolations(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        label = jnp.arange(min(_MOST_CLASSES, model.num_classes))
        z_a, z_b = jax.random.normal(key, (2, len(label), model.gan.latent_dim))
        return Grid(
            gan.interpolate(model.given(label), params, model_state, z_a, z_b, num=_COLUMNS),
            title=f"{gan.TITLE}, in each class",
            rows=tuple(f"y = {y}" for y in range(len(label))),
            columns=tuple(f"{t:.2f}" for t in np.linspace(0.0, 1.0, _COLUMNS)),
        )

    return {"classes": classes, "interpolations": interpolations} if len(shape) == 3 else {}


def _latents_in_every_class(key: Key, latent_dim: int, num_classes: int) -> tuple[Array, Array]:
    """Returns ten latents for each class, [rows * 10, Z], and their labels."""
    rows = min(_MOST_CLASSES, num_classes)
    z = jax.random.normal(key, (_COLUMNS, latent_dim))
    return jnp.tile(z, (rows, 1)), jnp.repeat(jnp.arange(rows), _COLUMNS)


def _rows_of_classes(examples: Array, kind: str) -> Grid:
    grid = examples.reshape(-1, _COLUMNS, *examples.shape[1:])
    return Grid(
        grid,
        title=f"Classes: {kind}; all rows have the same ten latents, and y is the class",
        rows=tuple(f"y = {y}" for y in range(len(grid))),
    )
