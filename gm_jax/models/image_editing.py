"""Samples that start from an image: image to image, and inpainting, with any diffusion model.

Image to image (SDEdit) with strength s visits the last share s of the sampler's times t_1 > ... > t_N only:

    x_t = a_t x_0 + sigma_t eps,    t the first of the last round(s N) times                              (1)

s = 0 returns x_0, and s = 1 draws a sample that does not depend on it. Inpainting writes the known places of x_0,
diffused anew to the time of each step, over what the step has drawn (RePaint without its repetitions):

    x_s <- m x_s + (1 - m) (a_s x_0 + sigma_s eps),    m = 1 where the image is drawn                      (2)

At time 0 the known places are those of x_0 exactly.

Sources: Meng et al., "SDEdit", ICLR 2022, arXiv:2108.01073, section 3. Lugmayr et al., "RePaint", CVPR 2022,
    arXiv:2201.09865, eq. 8.
"""

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.models.diffusion import Diffusion
from gm_jax.models.path_sampling import PathSampler
from gm_jax.ops import diffusion_process, predictions
from gm_jax.ops.predictions import Prediction
from gm_jax.samplers import diffusion as samplers
from gm_jax.types import Array, Key, ModelState, Params


def edit(
    model: Diffusion,
    params: Params,
    model_state: ModelState,
    key: Key,
    x_0: Array,
    *,
    strength: float,
    mask: Array | None = None,
    label: Array | None = None,
) -> Array:
    """Draws an image near each x_0, on the scale of x_0.

    Args:
        model: with a sampler that visits steps of its schedule.
        params: of the model.
        model_state: of the model.
        key: that of `sample`; with strength 1 and no mask, the result is that of `sample`, bit for bit.
        x_0: [B, ...] images, as the model diffuses them.
        strength: s of (1), from 0 to 1.
        mask: m of (2), bool, of the shape of x_0 or one that broadcasts to it; None to draw everything.
        label: [B] labels or [B, L] captions; None for p(x).
    Returns:
        [B, ...] x_0.
    Raises:
        UserError: the strength is not from 0 to 1, or the sampler follows a continuous path.
    """
    if not 0.0 <= strength <= 1.0:
        raise UserError(f"the strength is {strength:g}: use a number from 0 (the image itself) to 1 (a new sample).")
    if isinstance(model.sampler, PathSampler):
        raise UserError("an image can only be edited by steps of the schedule: use --sampler.method ddim or ancestral.")
    step_fn, times = model.sampler
    count = round(strength * len(times))
    if count == 0:
        return x_0
    noise_key, key = jax.random.split(key)
    eps = jax.random.normal(noise_key, x_0.shape)
    times = times[len(times) - count :]
    t = jnp.asarray(times[0])
    is_new = count == len(model.sampler.times)
    x_t = eps if is_new else predictions.diffuse(x_0, eps, model.schedule.signal(t), model.schedule.noise(t))
    step_fn = step_fn if mask is None else keeping(step_fn, x_0, mask)
    predict_fn = model.predict_fn(params, model_state, label)
    return samplers.sample(step_fn, predict_fn, model.schedule, key, x_t, times, clip=model.space.clip)


def edit_pixels(
    model: Diffusion,
    params: Params,
    model_state: ModelState,
    key: Key,
    x: Array,
    *,
    strength: float,
    mask: Array | None = None,
    label: Array | None = None,
) -> Array:
    """Draws an image near each x [B, H, W, C], of data that are diffused themselves; arguments are those of `edit`.

    The mask is [H, W] bool, True where the image is drawn.
    """
    places = None if mask is None else mask[..., None]
    x_0 = model.space.prepare(x)
    return model.space.to_data(edit(model, params, model_state, key, x_0, strength=strength, mask=places, label=label))


def keeping(step_fn: samplers.StepFn, x_0: Array, mask: Array) -> samplers.StepFn:
    """Makes a step that keeps the known places of x_0, (2).

    Args:
        step_fn: the step.
        x_0: [B, ...] images.
        mask: m, bool, True at the places that the step draws.
    """

    def step(key: Key, x_t: Array, prediction: Prediction, log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
        drawn = step_fn(key, x_t, prediction, log_alpha_bar_s, log_alpha_bar_t)
        eps = jax.random.normal(jax.random.fold_in(key, 1), x_0.shape, x_0.dtype)
        known = predictions.diffuse(x_0, eps, *diffusion_process.signal_and_noise(log_alpha_bar_s))
        return jnp.where(mask, drawn, known)

    return step


def mask_of_latents(mask: Array, event_shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> Array:
    """Computes which latents of an image are drawn: those with a pixel that is.

    Args:
        mask: [H, W] bool, True where the image is drawn.
        event_shape: (H, W, C) of the image.
        latent_shape: (H / f, W / f, Z).
    Returns:
        [H / f, W / f, 1] bool.
    Raises:
        UserError: the mask has other sides than the image, or latents are not an image.
    """
    if mask.shape != event_shape[:2]:
        given, wanted = (" x ".join(map(str, shape)) for shape in (mask.shape, event_shape[:2]))
        raise UserError(f"the mask is {given}, and the image is {wanted}: give a mask of the same sides.")
    if len(latent_shape) != 3:
        raise UserError("only a model whose latents are an image can keep a part of a picture: leave the mask out.")
    height, width, _ = latent_shape
    return jnp.any(mask.reshape(height, mask.shape[0] // height, width, -1), axis=(1, 3))[..., None]
