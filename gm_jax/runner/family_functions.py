"""What each family adds to sampling and to log-probabilities: its encoder, its decoder, its chain.

Every function takes (params, model_state, key, ...), so that `trained_run.TrainedRun` calls all of them alike.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError, refuse_options
from gm_jax.models.autoregressive import Autoregressive
from gm_jax.models.conditional_gan import ConditionalGAN
from gm_jax.models.conditional_vae import ConditionalVAE
from gm_jax.models.diffusion import Diffusion
from gm_jax.models.flow import Flow
from gm_jax.models.gan import GAN
from gm_jax.models.image_editing import edit_pixels
from gm_jax.models.latent_diffusion import LatentDiffusion
from gm_jax.models.vae import VAE
from gm_jax.models.vq_vae import VQVAE
from gm_jax.plotting import flow as flow_latents
from gm_jax.plotting import gan as gan_latents
from gm_jax.plotting import vae as vae_latents
from gm_jax.plotting import vq_vae as codes
from gm_jax.runner import samples
from gm_jax.types import Array, Key, ModelState, Params

FamilyFn = Callable[..., Any]  # (params, model_state, key, *arrays, **settings)


def functions_of(family: Any) -> Mapping[str, FamilyFn]:
    """Returns the functions of a family by name, such as encode, decode, reconstruct, trajectory, edit, complete."""
    match family:
        case VAE():
            return _of_vae(family)
        case LatentDiffusion():
            return {**_of_vae(family.autoencoder), "trajectory": _prior_trajectory(family), "edit": family.edit}
        case VQVAE():
            return {
                "encode": family.codes,
                "decode": _without_key(family.decode),
                "reconstruct": partial(codes.reconstruct, family),
            }
        case Flow():
            return {"encode": family.encode, "decode": _without_key(family.decode), "interpolate": _on_lines(family)}
        case GAN():
            return {"decode": _without_key(family.generate), "interpolate": _on_arcs(family)}
        case ConditionalVAE():
            return {"encode": _without_state(family.encode), "decode": _without_state_and_key(family.decode)}
        case ConditionalGAN():
            return {"decode": _without_key(family.generate), "interpolate": _on_arcs_of_classes(family)}
        case Diffusion():
            return {"trajectory": family.trajectory, "edit": partial(edit_pixels, family)}
        case Autoregressive():
            return {"complete": _without_state(family.complete)}
    return {}


def lines_of_latents(family: Any) -> bool:
    """Whether `interpolate` takes latents, because the family has no encoder."""
    return isinstance(family, GAN | ConditionalGAN)


def latent_label(family: Any, name: str, spec: Spec, label: Any, num: int) -> dict[str, Any]:
    """Returns what a function of latents takes besides arrays: the labels, if its latents belong to classes.

    Args:
        family: the family.
        name: of the function; one that the family does not have gets nothing.
        spec: of the data.
        label: a class, or one for each row; None if none is given.
        num: rows.
    Raises:
        UserError: the label is missing or does not exist, or the family has no place for it.
    """
    if name not in functions_of(family):
        return {}
    if not isinstance(family, ConditionalVAE | ConditionalGAN):
        refuse_options(label=label)
        return {}
    if label is None:
        raise UserError("the latents of this model belong to a class: give label=, a class, or one for each row.")
    return {"label": samples.label_rows(spec, label, num)}


def _of_vae(family: VAE) -> dict[str, FamilyFn]:
    def decode(params: Params, model_state: ModelState, key: Key, z: Array) -> Array:
        return family.decode(params, z)

    def reconstruct(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        return vae_latents.reconstruct(family, params, key, x)

    def interpolate(params: Params, model_state: ModelState, key: Key, x_a: Array, x_b: Array, *, num: int) -> Array:
        return vae_latents.interpolate(family, params, key, x_a, x_b, num=num)

    return {
        "encode": _without_state(family.encode),
        "decode": decode,
        "reconstruct": reconstruct,
        "interpolate": interpolate,
    }


def _on_lines(family: Flow) -> FamilyFn:
    def interpolate(params: Params, model_state: ModelState, key: Key, x_a: Array, x_b: Array, *, num: int) -> Array:
        return flow_latents.interpolate(family, params, model_state, key, x_a, x_b, num=num)

    return interpolate


def _on_arcs(family: GAN) -> FamilyFn:
    def interpolate(params: Params, model_state: ModelState, key: Key, z_a: Array, z_b: Array, *, num: int) -> Array:
        return gan_latents.interpolate(family, params, model_state, z_a, z_b, num=num)

    return interpolate


def _on_arcs_of_classes(family: ConditionalGAN) -> FamilyFn:
    def interpolate(
        params: Params, model_state: ModelState, key: Key, z_a: Array, z_b: Array, *, label: Array, num: int
    ) -> Array:
        return gan_latents.interpolate(family.given(label), params, model_state, z_a, z_b, num=num)

    return interpolate


def _prior_trajectory(family: LatentDiffusion) -> FamilyFn:
    def trajectory(params: Params, model_state: ModelState, key: Key, n: int, *, label: Array | None = None) -> Any:
        return family.prior.trajectory(params, {}, key, n, label=label)

    return trajectory


def _without_key(fn: FamilyFn) -> FamilyFn:
    def call(params: Params, model_state: ModelState, key: Key, *args: Any, **settings: Any) -> Any:
        return fn(params, model_state, *args, **settings)

    return call


def _without_state_and_key(fn: FamilyFn) -> FamilyFn:
    def call(params: Params, model_state: ModelState, key: Key, *args: Any, **settings: Any) -> Any:
        return fn(params, *args, **settings)

    return call


def _without_state(fn: FamilyFn) -> FamilyFn:
    def call(params: Params, model_state: ModelState, key: Key, *args: Any, **settings: Any) -> Any:
        return fn(params, key, *args, **settings)

    return call
