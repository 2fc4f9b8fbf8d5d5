"""Adds the result of a run to the published records in docs/results/; then run `python -m tools.results`.

    python -m tools.publish runs/vae --table vae --row vae-digits --model "VAE 64-500-500-50" --minutes 1.2 \
        --command "python -m experiments.vae"

The numbers, their kinds and their data come from the run's results.json; versions, commit and devices from its
versions.json. The command must give the configuration of the run, which is checked. A row of the same name is replaced,
but for numbers of the data themselves.
"""

import dataclasses
import importlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from gm_jax import runner
from gm_jax.config import Rate, saved
from gm_jax.errors import UserError
from gm_jax.evaluation import results as run_results
from gm_jax.files import read_json, write_text
from gm_jax.recipes.run_length import resolved
from gm_jax.runner import cli, hardware
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import load_saved
from tools.results import RECORDS, read

# Settings that are fields of the record, or that only locate the checkpoint.
_ELSEWHERE = ("standard_error", "standard_deviation")


@dataclasses.dataclass(frozen=True)
class Config:
    """Adds the result of a run to the published records."""

    run: Positional[Path]
    """The run's folder."""
    table: str
    """Which file of docs/results/: vae, autoregressive, flow, ..."""
    row: str
    """Name of the row, unique in its table."""
    model: str
    """What the table calls the model."""
    command: str
    """The command that made the run."""
    minutes: Rate
    """Wall clock of the command, in minutes."""
    busy: bool = False
    """Whether other work ran on the machine, so that the time is too long."""
    device: str | None = None
    """What it ran on; by default the processor of this machine and the run's devices."""
    published: float | None = None
    """The number in the literature."""
    source: str | None = None
    """Where it is published."""
    settings: tuple[str, ...] = ()
    """Which results to take if the run has several, e.g. K=5000."""
    folder: Path = RECORDS
    """Folder of the records."""


def publish(config: Config) -> str:
    """Writes the record of a run, and returns what was written.

    Raises:
        UserError: the folder holds no results, the command is another run's, or the choice of results is not unique.
    """
    folder, table = Folder(config.run), read(config.table, config.folder)
    found = load_saved(config.run)
    check_command(config.command, found)
    numbers = chosen_numbers(run_results.read(folder.results), table["columns"], config.settings)
    if not numbers:
        raise UserError(f"{folder.results} has none of the numbers of table {config.table!r}: evaluate the run first.")
    # What was not measured on a split is a fact of the data, e.g. their entropy, and no run has it.
    before = next((row["numbers"] for row in table["rows"] if row["id"] == config.row), [])
    facts = [number for number in before if number.get("split", "") is None]
    record = {
        "id": config.row,
        "model": config.model,
        "data": found.data["name"],
        "numbers": numbers + facts,
        "published": None
        if config.published is None
        else {"value": config.published, "note": None, "source": config.source},
        "command": config.command,
        "minutes": config.minutes,
        "busy": config.busy,
        **where_it_ran(folder.versions, config.device),
    }
    content = with_row(table, record)
    path = config.folder / f"{config.table}.json"
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return f"{path}: {config.row}, {len(numbers)} numbers. Next: python -m tools.results"


def with_row(table: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the table with a row in the place of the one of the same id, or as the last one."""
    rows = [one for one in table["rows"] if one["id"] != row["id"]]
    place = next((i for i, one in enumerate(table["rows"]) if one["id"] == row["id"]), len(rows))
    return {**table, "rows": [*rows[:place], row, *rows[place:]]}


def check_command(command: str, found: saved.Saved) -> None:
    """Checks that a command trains the configuration that a run has.

    Raises:
        UserError: it does not.
    """
    words = shlex.split(command)
    if words[:2] != ["python", "-m"] or len(words) < 3 or not words[2].startswith("experiments."):
        raise UserError(f"{command!r} is not a training command: write python -m experiments.NAME and its flags.")
    module = importlib.import_module(words[2])
    verb, args = cli.parse(module.CONFIG, words[3:], module=module)
    if verb != "train":
        raise UserError(f"{command!r} does not train: give the command that made the run.")
    values, _ = saved.with_added_fields(type(args.config), found.config)
    differences = saved.differences(resolved(args.config), values)
    if args.config.recipe != found.recipe or differences:
        raise UserError(f"the run has another configuration than {command!r}.\n{'; '.join(differences)}")


def chosen_numbers(
    records: Sequence[run_results.Record], columns: Sequence[Mapping[str, Any]], settings: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the results that the columns of a table show, as published numbers.

    Raises:
        UserError: several results of one name and unit remain.
    """
    names = {column["number"] for column in columns if "number" in column}
    wanted = dict(setting.partition("=")[::2] for setting in settings)
    chosen: dict[Any, run_results.Record] = {}
    for record in records:
        where = {key: value for column in columns for key, value in column.get("where", {}).items()}
        if record.name not in names or record.value is None:
            continue
        if any(str(record.settings.get(name)) != value for name, value in wanted.items()):
            continue
        key = (record.name, record.unit, *(record.settings.get(name) for name in where))
        if key in chosen:
            raise UserError(
                f"the run has several results {record.name} in {record.unit}: choose by --settings NAME=VALUE.\n"
                f"{chosen[key].settings} and {record.settings}"
            )
        chosen[key] = record
    return [published(record) for record in chosen.values()]


def published(record: run_results.Record) -> dict[str, Any]:
    """Returns a result of a run as a published number.

    Its standard error and deviation move out of the settings; each is None if the result has none.
    """
    settings = {name: value for name, value in record.settings.items() if name not in _ELSEWHERE}
    extra = {name: record.settings.get(name) for name in _ELSEWHERE}
    return {**record._asdict(), "settings": settings, **extra}


def where_it_ran(versions: Path, device: str | None) -> dict[str, Any]:
    """Returns device, versions and commit of the last start that versions.json holds.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        start = read_json(versions)[-1]
        packages, commit, devices = start["packages"], start["git"], start["devices"]
    except (OSError, ValueError, LookupError, TypeError):
        raise UserError(f"{versions} is missing or damaged: publish a run that has it.") from None
    machine = f"{hardware.processor()}, {os.cpu_count()} cores"
    return {"device": device or f"{machine}, {', '.join(devices)}", "versions": packages, "commit": commit}


if __name__ == "__main__":
    runner.program(Config, publish)
