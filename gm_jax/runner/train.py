"""The verb `train`: trains a run, or resumes the run in the folder; ends with an evaluation."""

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import ExperimentConfig


def flags(config: ExperimentConfig, workdir: Path, description: str) -> Any:
    """Returns a dataclass instance with the default of every flag: `config`, `workdir`, `cluster`.

    Args:
        config: the experiment's defaults.
        workdir: the default folder for the experiment's own data; the flag's default is None, for `default_workdir`.
        description: of the experiment, for --help.
    """
    fields = [
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
        text = f"Which {name}; by default the usual one for the data. With --help it lists the --{name}.* flags."
        flag = name.replace("_", "-")
        hint = Annotated[chosen | None, arg(name=flag, help=text, help_behavior_hint="(default: by the data)")]
        found.append((f"chosen_{name}", hint, dataclasses.field(default=None)))
    return found


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
