"""The latent space of a GAN: generated examples on the way from one latent to another."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.gan import GAN
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

_LINES, _POINTS = 10, 10
TITLE = "Interpolations: generated pictures for z on an arc between two latents"


def arcs(z_a: Array, z_b: Array, num: int) -> Array:
    """Returns points on arcs between latents, on which normal latents keep their usual length.

        z(t) = (sin((1 - t) w) z_a + sin(t w) z_b) / sin w,    w the angle between z_a and z_b

    It is a line if w is 0, pi or not defined.

    Args:
        z_a: [B, Z] starts.
        z_b: [B, Z] ends.
        num: points on each arc, ends included.
    Returns:
        [B, num, Z].
    Source: White, "Sampling Generative Networks", arXiv:1609.04468, section 2.1.
    """
    t = jnp.linspace(0.0, 1.0, num)[None, :, None]
    norms = jnp.linalg.norm(z_a, axis=-1) * jnp.linalg.norm(z_b, axis=-1)
    cosine = jnp.sum(z_a * z_b, axis=-1) / jnp.where(norms > 0, norms, 1.0)
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))[:, None, None]
    sine = jnp.sin(angle)
    curved = (sine > 1e-4) & (norms > 0)[:, None, None]
    safe = jnp.where(curved, sine, 1.0)
    weights = [jnp.where(curved, jnp.sin(part * angle) / safe, part) for part in (1.0 - t, t)]
    return weights[0] * z_a[:, None] + weights[1] * z_b[:, None]


def interpolate(model: GAN, params: Params, model_state: ModelState, z_a: Array, z_b: Array, *, num: int) -> Array:
    """Generates examples on the arcs between pairs of latents.

    Args:
        model: the GAN.
        params: its parameters.
        model_state: its model state.
        z_a: [B, Z] starts of the arcs.
        z_b: [B, Z] ends of the arcs.
        num: points on each arc, ends included.
    Returns:
        [B, num, ...], as the data set ships them.
    """
    generate = jax.vmap(model.generate, in_axes=(None, None, 1), out_axes=1)
    return generate(params, model_state, arcs(z_a, z_b, num))


def grids(model: GAN, shape: tuple[int, ...]) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of a GAN of images as functions (params, model_state, key, x) -> Grid of data.

    interpolations: ten arcs between random latents.

    Args:
        model: the GAN.
        shape: shape of one example; the mapping is empty unless it is the shape of an image.
    """

    def interpolations(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        z_a, z_b = jax.random.normal(key, (2, _LINES, model.latent_dim))
        columns = tuple(f"{t:.2f}" for t in np.linspace(0.0, 1.0, _POINTS))
        return Grid(interpolate(model, params, model_state, z_a, z_b, num=_POINTS), title=TITLE, columns=columns)

    return {"interpolations": interpolations} if len(shape) == 3 else {}
