"""The latent space of a VAE: reconstructions, interpolations, traversals, and its active dimensions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.vae import VAE
from gm_jax.plotting import layout
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params


def reconstruct(model: VAE, params: Params, key: Key, x: Array) -> Array:
    """Decodes the mean of q(z|x): x [B, ...] -> the mean of p(x|z), float32 [B, ...] on the data set's scale."""
    return model.decode(params, model.encode(params, key, x)[0])


def interpolate(model: VAE, params: Params, key: Key, x_a: Array, x_b: Array, *, num: int) -> Array:
    """Decodes points on the straight lines between the posterior means of pairs.

    Args:
        model: the VAE.
        params: its parameters.
        key: noise that prepares the data, e.g. binarises them.
        x_a: [B, ...] starts of the lines.
        x_b: [B, ...] ends of the lines.
        num: points on each line, ends included.
    Returns:
        [B, num, ...] float32 means of p(x|z), on the data set's scale.
    """
    key_a, key_b = jax.random.split(key)
    z_a, z_b = model.encode(params, key_a, x_a)[0], model.encode(params, key_b, x_b)[0]
    return jax.vmap(model.decode, in_axes=(None, 1), out_axes=1)(params, jnp.linspace(z_a, z_b, num, axis=1))


def traverse(model: VAE, params: Params, z: Array, *, dims: Sequence[int] | Array, values: Array) -> Array:
    """Decodes copies of z in which one coordinate at a time takes each of the given values.

    Args:
        model: the VAE.
        params: its parameters.
        z: [Z] a latent.
        dims: the D coordinates to change.
        values: [V] the values that each of them takes.
    Returns:
        [D, V, ...] float32 means of p(x|z), on the data set's scale.
    """
    chex.assert_rank([z, values], 1)
    moved = jnp.stack([jax.vmap(z.at[dim].set)(values) for dim in dims])
    return jax.vmap(model.decode, in_axes=(None, 0))(params, moved)


def active_units(posterior_means: Array, *, threshold: float = 0.01) -> Array:
    """Finds the latent dimensions that carry information about x.

        A_u = Var_x(E_q(u|x)[u]) > threshold

    Args:
        posterior_means: [N, Z] means of q(z|x) over a data set.
        threshold: variance that the mean of an active unit exceeds.
    Returns:
        [Z] bool.
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, section 5.
    """
    chex.assert_rank(posterior_means, 2)
    return jnp.var(posterior_means, axis=0) > threshold


def reconstructions(model: VAE, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws rows of data, each above what the VAE makes of them."""
    examples = layout.first_examples(x)
    return Grid(
        layout.rows_in_turn(examples, reconstruct(model, params, key, examples)),
        title="Reconstructions: mean of p(x | z), for z the mean of q(z | x)",
        rows=("data", "reconstruction"),
        group=2,
    )


def grids(model: VAE, shape: tuple[int, ...]) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of a VAE of images as functions (params, model_state, key, x) -> Grid on the data set's scale.

    reconstructions: rows of data, each above its reconstructions; interpolations: up to ten lines between pairs;
    traversal: the ten dimensions of z that vary most, each from -3 to 3.

    Args:
        model: the VAE.
        shape: shape of one example; the mapping is empty unless it is the shape of an image.
    """

    def interpolations(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        first, second = layout.pairs(x)
        num = len(first)
        lines = interpolate(model, params, key, first, second, num=10) if num else jnp.zeros((0, 10, *shape))
        ends = [end[:, None].astype(lines.dtype) for end in (first, second)]
        return Grid(
            jnp.concatenate([ends[0], lines, ends[1]], axis=1),
            title="Interpolations: means of p(x | z) for z on a line between the codes of two pictures",
            columns=("data", *(f"{t:.2f}" for t in np.linspace(0.0, 1.0, 10)), "data"),
        )

    def traversal(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        mean = model.encode(params, key, x)[0]
        most_active = jnp.argsort(-jnp.var(mean, axis=0))[:10]
        num, values = most_active.shape[0], np.linspace(-3.0, 3.0, 11)
        return Grid(
            traverse(model, params, mean[0], dims=most_active, values=jnp.asarray(values, mean.dtype)),
            values=most_active,
            title=f"Traversals: the {num} of {model.latent_dim} dimensions of z that vary most. In each row one of "
            "them takes the value above; the others are those of one picture.",
            rows=("z[{}]",),
            columns=tuple(f"{value:g}" for value in values),
        )

    if len(shape) != 3:
        return {}
    return {
        "reconstructions": partial(reconstructions, model),
        "interpolations": interpolations,
        "traversal": traversal,
    }
