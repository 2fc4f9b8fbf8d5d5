"""What a VQ-VAE keeps of pictures: their reconstructions from the codes."""

from collections.abc import Callable, Mapping

from gm_jax.models.vq_vae import VQVAE
from gm_jax.plotting import layout
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params


def reconstruct(model: VQVAE, params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
    """Decodes the codes of x [B, ...]: the mean of p(x | c(x)), float32 [B, ...] on the data set's scale."""
    return model.decode(params, model_state, model.codes(params, model_state, key, x))


def grids(model: VQVAE) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of a VQ-VAE of images as functions (params, model_state, key, x) -> Grid on the data set's scale.

    reconstructions: rows of data, each above its reconstructions.

    Args:
        model: the VQ-VAE.
    """

    def reconstructions(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        examples = layout.first_examples(x)
        return Grid(
            layout.rows_in_turn(examples, reconstruct(model, params, model_state, key, examples)),
            title=f"Reconstructions: mean of p(x | c), for the {model.num_places} codes c of each picture",
            rows=("data", "reconstruction"),
            group=2,
        )

    return {"reconstructions": reconstructions}
