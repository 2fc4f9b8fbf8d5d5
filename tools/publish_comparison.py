"""Makes the published records of `tools.compare`, docs/results/comparison.json, from the folder that it wrote.

    python -m tools.compare                                   # writes runs/compare, on an idle machine
    python -m tools.publish_comparison runs/compare --minutes 11
    python -m tools.results

The records are of one data set, with a row for each family that has results there. Families of the table that the
folder does not have keep their rows.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from gm_jax import runner
from gm_jax.config import Rate
from gm_jax.errors import UserError
from gm_jax.evaluation import results
from gm_jax.files import write_text
from gm_jax.runner.folder import Folder
from tools.publish import chosen_numbers, where_it_ran
from tools.results import RECORDS, read

_THE_DATA = "the data"


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes the published records of a comparison."""

    run: Positional[Path]
    """The folder that `tools.compare` wrote."""
    minutes: Rate
    """Wall clock of the command, in minutes."""
    command: str = "python -m tools.compare"
    """The command that made the folder."""
    data: str = "binarized_digits"
    """The data set whose rows are published."""
    busy: bool = False
    """Whether other work ran on the machine, so that each family trained for fewer steps."""
    device: str | None = None
    """What it ran on; by default the processor of this machine and jax's devices."""
    folder: Path = RECORDS
    """Folder of the records."""


def publish(config: Config) -> str:
    """Replaces the records of the families that the folder has; returns how many there are.

    Raises:
        UserError: the folder has no results on the data set, or no versions.json.
    """
    folder, table = Folder(config.run), read("comparison", config.folder)
    by_family: dict[str, list[results.Record]] = {}
    for record in results.read(folder.results):
        if record.data == config.data and "family" in record.settings:
            by_family.setdefault(record.settings["family"], []).append(record)
    if not by_family:
        raise UserError(f"{folder.results} has no results on {config.data}: give --data one of the comparison's.")
    facts = {
        "published": None,
        "command": config.command,
        "minutes": None,
        "busy": config.busy,
        **where_it_ran(folder.versions, config.device),
    }
    rows = {row["id"]: row for row in table["rows"]}
    for family, records in by_family.items():
        row = _row(family, config.data, chosen_numbers(records, table["columns"], ()), facts)
        rows[row["id"]] = row
    content = {**table, "minutes": config.minutes, "rows": list(rows.values())}
    path = config.folder / "comparison.json"
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return f"{path}: {len(by_family)} families. Next: python -m tools.results"


def _row(family: str, data: str, numbers: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of a family, with what its likelihood is of."""
    nll = next((number for number in numbers if number["name"] == "nll"), None)
    space = "" if nll is None or nll["measure"] != "continuous" else f"density on {nll['settings']['space']}"
    held_out = f" ({numbers[0]['examples']} held-out images)" if family == _THE_DATA else ""
    return {
        "id": family.replace(" ", "-"),
        "model": family + held_out,
        "data": data,
        "labels": {"measure": space or ("" if nll is None else nll["measure"])},
        "numbers": numbers,
        **facts,
    }


if __name__ == "__main__":
    runner.program(Config, publish)
