"""Makes a published table of speed, docs/results/speed_NAME.json, from what a benchmark measured.

    python -m benchmarks.energy_models --json energy.json     # on an idle machine
    python -m tools.publish_speed energy.json --table speed_energy --command "python -m benchmarks.energy_models"
    python -m tools.results

Each pair of a case of ours and a case of theirs becomes a row, wherever a comparison stands in the file, and so does
each experiment of `benchmarks.first_step`. A row of the same name is replaced. `--commit` states what was measured.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from benchmarks.comparison import OURS
from gm_jax import runner
from gm_jax.errors import UserError
from gm_jax.files import read_json, write_text
from tools.results import RECORDS, read

COLUMNS = [
    {"title": "what", "field": "what"},
    {"title": "our side", "field": "our side"},
    {"title": "our side, ms", "number": "ours", "sign": False},
    {"title": "other side", "field": "other side"},
    {"title": "other side, ms", "number": "theirs", "sign": False},
    {"title": "ratio", "number": "ratio", "sign": False, "digits": 2},
    {"title": "target", "field": "target"},
    {"title": "undisturbed rounds", "field": "undisturbed rounds"},
]  # of a table that does not exist yet
STARTS = [
    {"title": "experiment", "field": "what"},
    {"title": "empty cache, s", "number": "cold", "sign": False, "digits": 1},
    {"title": "full cache, s", "number": "warm", "sign": False, "digits": 1},
    {"title": "saved, s", "number": "saved", "sign": False, "digits": 1},
]  # of `benchmarks.first_step`
_GOAL = re.compile(r"at least (?P<value>[0-9.]+)")


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes a published table of speed from a benchmark's JSON file."""

    measured: Positional[Path]
    """The file that the benchmark wrote (`--json`)."""
    table: str
    """Which file of docs/results/, e.g. speed_energy; it is made if there is none."""
    command: str
    """The command that measured."""
    commit: str | None = None
    """The commit that was measured."""
    folder: Path = RECORDS
    """Folder of the records."""


def publish(config: Config) -> str:
    """Replaces the rows that the file has, and returns how many there are.

    Raises:
        UserError: the file is missing, damaged, or not of a benchmark that compares two sides.
    """
    try:
        measured = read_json(config.measured)
        facts = {
            "command": config.command,
            "device": measured["machine"],
            **({"matmul": measured["matmul"]} if "matmul" in measured else {}),
            "versions": measured["versions"],
            "commit": config.commit,
        }
        if "starts" in measured:
            columns, found = STARTS, [_start(each, facts) for each in measured["starts"]]
        else:
            columns, found = COLUMNS, [row for comparison in _comparisons(measured) for row in _rows(comparison, facts)]
            if not found:
                raise ValueError("no comparison")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{config.measured} is not the --json file of a benchmark that compares: {error!r}.") from None
    path = config.folder / f"{config.table}.json"
    table = read(config.table, config.folder) if path.exists() else {"columns": columns, "rows": []}
    has_column = any(column.get("field") == "our side" for column in table["columns"])
    if not has_column and len({row["labels"].get("our side") for row in found}) > 1:
        raise UserError(
            f"{path} has no column for several sides of ours: remove the file, and publish all its rows again."
        )
    rows = {row["id"]: row for row in (*table["rows"], *found)}
    content = {**table, "rows": list(rows.values())}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return f"{path}: {len(found)} rows. Next: python -m tools.results"


def _comparisons(measured: Any) -> Iterator[Mapping[str, Any]]:
    """Yields what `benchmarks.comparison` made, in the order of the file."""
    if isinstance(measured, list):
        for each in measured:
            yield from _comparisons(each)
    elif isinstance(measured, Mapping):
        if {"title", "ratios", "cells"} <= set(measured):
            yield measured
        else:
            for each in measured.values():
                yield from _comparisons(each)


def _rows(comparison: Mapping[str, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each pair of sides that has a ratio."""
    rows = []
    for ratio, cells in zip(comparison["ratios"], comparison["cells"], strict=True):
        if ratio["median"] is None:
            raise UserError(f"{comparison['title']} has no undisturbed round: measure it on an idle machine.")
        goal = _GOAL.match(cells[-2])
        seconds = comparison["seconds"]
        labels = {
            "what": comparison["title"],
            "our side": ratio["under"],
            "other side": ratio["over"],
            "target": goal["value"] if goal else "",
            "undisturbed rounds": f"{ratio['clean']} of {ratio['rounds']}",
        }
        numbers = [
            {"name": "ours", "value": 1e3 * seconds[ratio["under"]], "unit": "ms"},
            {"name": "theirs", "value": 1e3 * seconds[ratio["over"]], "unit": "ms"},
            {"name": "ratio", "value": ratio["median"], "low": ratio["low"], "high": ratio["high"], "unit": "1"},
        ]
        variant = ratio["under"].removeprefix(OURS) if ratio["under"].startswith(OURS) else ""
        words = re.findall("[a-z0-9]+", f"{comparison['title']} {variant} {ratio['over']}".lower())
        rows.append({"id": "-".join(words), "labels": labels, "numbers": numbers, **facts})
    return rows


def _start(measured: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    cold, warm = measured["cold"], measured["warm"]
    seconds = {"cold": cold, "warm": warm, "saved": cold - warm}
    numbers = [{"name": name, "value": value, "unit": "s"} for name, value in seconds.items()]
    return {"id": measured["experiment"], "labels": {"what": measured["experiment"]}, "numbers": numbers, **facts}


if __name__ == "__main__":
    runner.program(Config, publish)
