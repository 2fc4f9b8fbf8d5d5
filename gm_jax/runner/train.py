"""The verb `train`: trains a run, or resumes the run in the folder; ends with an evaluation."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from tyro.conf import arg

from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import ExperimentConfig
from gm_jax.recipes.presets import Preset


def flags(
    config: ExperimentConfig, workdir: Path, description: str, presets: Mapping[str, Preset] = MappingProxyType({})
) -> Any:
    """Returns a dataclass instance with the default of every flag: `config`, `workdir`, `cluster`.

    Args:
        config: the experiment's defaults.
        workdir: the default folder for the experiment's own data; the flag's default is None, for `default_workdir`.
        description: of the experiment, for --help.
        presets: of the experiment.
    """
    fields = [
        *preset_flag(presets),
        ("config", Annotated[type(config), arg(name="")], dataclasses.field(default=config)),
        *choice_flags(type(config)),
        (
            "workdir",
            Annotated[
                Path | None,
                arg(
                    help="The run's folder. The same command again resumes the run in it.",
                    help_behavior_hint=f"(default: {workdir}, or {workdir}-NAME for another --data.name)",
                ),
            ],
            dataclasses.field(default=None),
        ),
        ("cluster", ClusterConfig, dataclasses.field(default_factory=ClusterConfig)),
    ]
    about = f"{description}\n\nVerbs: train (this one, the default), evaluate, sample, plan; each has --help."
    return dataclasses.make_dataclass("TrainArgs", fields, namespace={"__doc__": about}, frozen=True)()


def default_workdir(workdir: Path, own: str, chosen: str) -> Path:
    """Returns the folder of a run if none is given: one for each data set, so that commands do not collide.

    Args:
        workdir: for the experiment's own data.
        own: the name of its own data.
        chosen: the name of the data to train on.
    """
    if chosen == own:
        return workdir
    from gm_jax.data.sources import short_name  # numpy, which --help does without

    return workdir.with_name(f"{workdir.name}-{short_name(chosen)}")


def choices(config_type: type) -> dict[str, dict[str, type]]:
    """Returns the fields that hold one of several sections: field -> name -> section."""
    found = {}
    for name, hint in typing.get_type_hints(config_type).items():
        sections = [option for option in typing.get_args(hint) if dataclasses.is_dataclass(option)]
        if sections:
            found[name] = {getattr(section, "name"): section for section in sections}  # noqa: B009
    return found


def choice_flags(config_type: type) -> list[tuple[str, Any, Any]]:
    """Returns dataclass fields for the flags that choose a section, e.g. `--network {unet,mlp}`."""
    found = []
    for name, sections in choices(config_type).items():
        chosen = Literal[tuple(sections)]  # type: ignore[valid-type]
        default = getattr(next(f.default for f in dataclasses.fields(config_type) if f.name == name), "name", None)
        usual, short = ("the usual one for the data", "by the data") if default is None else (default, default)
        text = f"Which {name}; by default {usual}. With --help it lists the --{name}.* flags."
        flag = name.replace("_", "-")
        hint = Annotated[chosen | None, arg(name=flag, help=text, help_behavior_hint=f"(default: {short})")]
        found.append((f"chosen_{name}", hint, dataclasses.field(default=None)))
    return found


def preset_flag(presets: Mapping[str, Preset]) -> list[tuple[str, Any, Any]]:
    """Returns a dataclass field for the flag `--preset`, which names the presets; none if there are none."""
    if not presets:
        return []
    titles = [
        f"{name}: {preset.title}" + (f", {preset.published}" if preset.published else "")
        for name, preset in presets.items()
    ]
    text = f"A published configuration, which other flags change. {'. '.join(titles)}. See docs/presets.md."
    hint = Annotated[Literal[tuple(presets)] | None, arg(name="preset", help=text)]  # type: ignore[valid-type]
    return [("chosen_preset", hint, dataclasses.field(default=None))]


def train_run(module: str, config: ExperimentConfig, workdir: Path, cluster: ClusterConfig | None = None) -> None:
    """Trains the run in `workdir` to its end, evaluates it and draws its pictures.

    Args:
        module: of the experiment.
        config: its configuration.
        workdir: the run's folder.
        cluster: how several processes find each other; None for a single process.
    """
    from gm_jax.runner import session

    session.run_to_its_end(module, config, workdir, cluster or ClusterConfig())
