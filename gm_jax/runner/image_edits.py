"""Edited pictures of a run: image to image, and inpainting."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.data import image_files
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.runner import arguments
from gm_jax.runner.family_functions import functions_of
from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.training.state import TrainState


def read_image(spec: Spec, path: Path, num: int) -> np.ndarray:
    """Returns [num, H, W, C] uint8 copies of a picture.

    Raises:
        UserError: it cannot be read, has another size than the data, or the data are not such images.
    """
    if len(spec.shape) != 3 or spec.levels != 256:
        raise UserError(f"--image needs a run on images of 256 levels, and {spec.name} has none: leave it out.")
    image = _decoded(path, spec.shape[2])
    if image.shape != spec.shape:
        given, wanted = (f"{height} x {width}" for height, width in (image.shape[:2], spec.shape[:2]))
        raise UserError(f"{path} is {given}, and the pictures of {spec.name} are {wanted}: give one of this size.")
    return np.broadcast_to(image, (num, *spec.shape))


def read_mask(path: Path) -> np.ndarray:
    """Returns [H, W] bool, True where a picture is white, and drawn again.

    Raises:
        UserError: it cannot be read.
    """
    return _decoded(path, 1)[..., 0] > 127


def draw_edits(
    run: Run, state: TrainState, x: Any, *, seed: int, strength: float, mask: Any = None, label: Any = None
) -> np.ndarray:
    """Draws a picture near each x [N, H, W, C], see `models.image_editing`.

    Args:
        run: whose model.
        state: its state.
        x: as the data set ships them.
        seed: of the noise.
        strength: from 0 (the picture itself) to 1 (a new one).
        mask: [H, W] bool, True where the picture is drawn again; None for everywhere.
        label: [N] labels or [N, L] captions; None for p(x).
    Raises:
        UserError: the model cannot edit, or an argument does not fit it.
    """
    x = arguments.as_data(run.spec, x)
    edit = functions_of(run.experiment.family).get("edit")
    if edit is None:
        raise UserError(
            "this model cannot start from a picture: leave --image out, or use ddpm, ddpm_conditional, "
            "latent_diffusion or text_to_image."
        )
    if mask is not None and np.shape(mask) != x.shape[1:3]:
        given, wanted = (" x ".join(map(str, shape)) for shape in (np.shape(mask), x.shape[1:3]))
        raise UserError(f"the mask is {given}, and the pictures are {wanted}: give a mask of the same sides.")
    if not 0.0 <= strength <= 1.0:
        raise UserError(f"--strength {strength:g} is out of its range: use a number from 0 to 1.")
    state = parallel.local(state)
    drawn = jax.jit(edit, static_argnames="strength")(
        state.eval_params,
        state.model_state,
        jax.random.key(seed),
        jnp.asarray(x),
        strength=strength,
        mask=None if mask is None else jnp.asarray(mask, bool),
        label=label,
    )
    return np.asarray(drawn)


def _decoded(path: Path, channels: int) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"there is no picture {path}: give the path of a PNG or a JPEG.")
    return image_files.decode(path, channels)
