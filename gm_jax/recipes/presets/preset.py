"""The record of a preset: a published configuration, with what was published of it and what is not the same here."""

import dataclasses

from gm_jax.config import ExperimentConfig, saved
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A published configuration.

    Attributes:
        config: the configuration; its field `preset` is the name under which `presets.get` finds it.
        shape: of one example of the data that it is for.
        title: what is trained, in a few words.
        source: paper and code that the settings come from.
        published: what was published of it, with units; empty if nothing was.
        parameters: trainable parameters of the model here, of all players.
        count: how many the source has, and where a difference comes from.
        not_as_published: what is not as in the source.
    """

    config: ExperimentConfig
    shape: tuple[int, ...]
    title: str
    source: str
    published: str
    parameters: int
    count: str
    not_as_published: tuple[str, ...]

    @property
    def name(self) -> str:
        """The full name, "EXPERIMENT/NAME"."""
        return getattr(self.config, "preset", None) or ""


def departures(config: ExperimentConfig, preset: Preset) -> str:
    """Returns the fields of a configuration that are not the preset's, such as "train.steps=100", or "none"."""
    own, theirs = saved.facts(config), saved.facts(preset.config)
    names = [name for name in own if own[name] != theirs.get(name)]
    return ", ".join(f"{name}={_text(own[name])}" for name in names) or "none"


def check_shape(preset: Preset, data: str, shape: tuple[int, ...]) -> None:
    """Checks that a preset fits the data.

    Args:
        preset: the preset.
        data: name of the data.
        shape: of one example.

    Raises:
        UserError: the preset is for examples of another shape.
    """
    if shape != preset.shape:
        resized = ""
        if len(preset.shape) == len(shape) == 3 and preset.shape[2] == shape[2] and preset.shape[0] == preset.shape[1]:
            resized = f", resize the images by --data.size {preset.shape[0]},"
        raise UserError(
            f"the preset {preset.name} is for examples of {_sides(preset.shape)}, and those of {data} are "
            f"{_sides(shape)}: choose another --data.name{resized} or leave out --preset."
        )


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
