"""Published configurations: named literals of the configurations of `recipes.configs`. They import no jax.

preset.py          the record of a preset, and its checks
vae.py             the IWAE of its paper
autoregressive.py  MADE, PixelRNN, PixelCNN, gated PixelCNN and PixelCNN++
flow.py            NICE, RealNVP and Glow
gan.py             SNGAN and WGAN-GP with residual networks
diffusion.py       DDPM and DiT
latent_diffusion.py  LDM-8
score.py           EDM

`docs/presets.md` is made of them by `python -m tools.presets`.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from gm_jax.config import ExperimentConfig
from gm_jax.errors import UserError
from gm_jax.recipes.presets import autoregressive, diffusion, flow, gan, latent_diffusion, score, vae
from gm_jax.recipes.presets.preset import Preset, check_shape, departures

_ROOMS = (autoregressive, diffusion, latent_diffusion, flow, gan, score, vae)
_ALL = tuple(preset for room in _ROOMS for preset in room.PRESETS)

# By full name, "EXPERIMENT/NAME", such as "ddpm/cifar10".
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def of(experiment: str) -> Mapping[str, Preset]:
    """Returns the presets of an experiment, such as "ddpm", by the names that its flag --preset takes."""
    prefix = f"{experiment}/"
    return {name.removeprefix(prefix): preset for name, preset in PRESETS.items() if name.startswith(prefix)}


def get(name: str, experiment: str | None = None) -> Preset:
    """Returns a preset.

    Args:
        name: its full name, or its name in the experiment.
        experiment: whose; None if the name is full.

    Raises:
        UserError: no preset has this name; the message suggests the nearest.
    """
    known = PRESETS if experiment is None else of(experiment)
    if name in known:
        return known[name]
    if not known:
        owners = dict.fromkeys(full.partition("/")[0] for full in PRESETS)
        raise UserError(f"{experiment} has no presets; these have: {', '.join(owners)}. Leave out --preset.")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    raise UserError(f"there is no preset {name!r}: did you mean {near[0]!r}? There are {', '.join(known)}.")


def check(config: ExperimentConfig, data: str, shape: tuple[int, ...]) -> None:
    """Checks that the preset that a configuration comes from, if any, fits the data.

    Raises:
        UserError: it is for examples of another shape.
    """
    preset = _preset_of(config)
    if preset is not None:
        check_shape(preset, data, shape)


def facts(config: ExperimentConfig) -> dict[str, Any]:
    """Returns what every result of a configuration that comes from a preset must state; nothing for another one."""
    preset = _preset_of(config)
    if preset is None:
        return {}
    published = {"published": preset.published} if preset.published else {}
    return {"preset": preset.name, **published, "departures": departures(config, preset)}


def _preset_of(config: ExperimentConfig) -> Preset | None:
    name = getattr(config, "preset", None)
    # A run of a version that had other presets is a run like any other.
    return None if name is None else PRESETS.get(name)
