"""Whether the run in a folder can be resumed with a configuration."""

import dataclasses
import typing
from typing import Any

from gm_jax.config import ExperimentConfig, saved
from gm_jax.errors import UserError
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import in_todays_form, load_saved


def check_folder(folder: Folder, config: ExperimentConfig) -> None:
    """Checks that a folder is free, or holds a run that this configuration resumes.

    Raises:
        UserError: it holds something else, or a run whose configuration gives another result.
    """
    foreign = folder.foreign_files()
    if foreign:
        names = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise UserError(f"{folder.root} holds {names}, but no run: choose another --workdir, or move this away.")
    found = saved_run(folder)
    if found is None:
        return
    if found.recipe != config.recipe:
        raise UserError(f"{folder.root} holds a run of {found.command or found.recipe}: choose another --workdir.")
    found = in_todays_form(found, type(config), folder.root)
    differences = saved.differences(config, found.config)
    if differences and not is_extension(config, found.config):
        lines = [
            f"{folder.root} holds a run with another configuration: choose another --workdir, or remove the folder.",
            "; ".join(differences),
        ]
        if len(differences) == 1 and differences[0].startswith("train.steps:"):
            lines.append(
                "A run can be made longer if its learning rate is constant and both numbers of steps are multiples of "
                "train.checkpoint_every."
            )
        raise UserError("\n".join(lines))


def saved_run(folder: Folder) -> saved.Saved | None:
    """Returns what can be resumed in a folder; None if it holds no checkpoint, because there is nothing to protect.

    Raises:
        UserError: config.json is damaged, or is that of another program.
    """
    if not folder.holds_run():
        return None
    found = load_saved(folder.root)
    return found if folder.holds_checkpoint() else None


def is_extension(config: ExperimentConfig, found: dict[str, Any]) -> bool:
    """Whether a configuration is a saved one with more steps, and its first steps are bit for bit the saved run's.

    The learning rate must not depend on the number of steps. The old end must be a regular checkpoint of the longer
    run, and the compiled calls must keep their length: hence the multiples.
    """
    saved_train, more, every = found.get("train"), config.train.steps, config.train.checkpoint_every
    steps = saved_train.get("steps") if isinstance(saved_train, dict) else None
    if not isinstance(steps, int) or not 0 < steps < more or steps % every or more % every:
        return False
    as_saved = dataclasses.replace(typing.cast(Any, config), train=dataclasses.replace(config.train, steps=steps))
    return saved.first_steps_do_not_depend_on_their_number(config) and not saved.differences(as_saved, found)
