"""Writes the tables of measured numbers into README.md and docs/, from the records in docs/results/.

    python -m tools.results             # rewrites what lies between the markers of each page
    python -m tools.results --check     # changes nothing; exit code 2 if a page and its records differ

A page asks for a table with a pair of markers, `<!-- results:vae -->` and `<!-- /results -->`. The records are the only
home of the numbers: `python -m tools.publish` adds one from a run.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gm_jax import runner
from gm_jax.errors import UserError
from gm_jax.files import read_json, write_text

REPO = Path(__file__).resolve().parents[1]
RECORDS = REPO / "docs" / "results"

_SIGNS = {"exact": "=", "lower_bound": "<=", "upper_bound": ">=", "estimate": "~"}
_MARKED = re.compile(r"(<!-- results:(?P<table>[a-z_]+) -->).*?(<!-- /results -->)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes the tables of README.md and docs/ from the records in docs/results/."""

    check: bool = False
    """Only report pages that differ from their records."""


def update(config: Config) -> str:
    """Rewrites the pages, or checks them; returns what was done.

    Raises:
        UserError: with `check`, pages differ from their records.
    """
    changed = {path: text for path, text in rendered_pages() if text != path.read_text(encoding="utf-8")}
    names = ", ".join(path.relative_to(REPO).as_posix() for path in changed)
    if config.check and changed:
        raise UserError(f"{names} differ from the records in docs/results/: run `python -m tools.results`.")
    for path, text in changed.items():
        write_text(path, text)
    return f"rewrote {names}" if changed else "all pages are up to date"


def rendered_pages() -> Iterator[tuple[Path, str]]:
    """Yields each page of README.md and docs/ with its tables as the records have them."""
    for path in (REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        yield path, _MARKED.sub(lambda found: f"{found[1]}\n\n{markdown(read(found['table']))}\n\n{found[3]}", text)


def read(table: str, folder: Path = RECORDS) -> dict[str, Any]:
    """Returns a file of records: the columns of its table, and its rows.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = folder / f"{table}.json"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
        raise UserError(f"there is no table {table!r} in {folder}: there are {known}.")
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from the repository.") from None


def markdown(table: Mapping[str, Any]) -> str:
    """Returns a table of records as Markdown, and their commands; a column in which no row has anything is left out."""
    shown_columns = [column for column in table["columns"] if column.get("field") != "command"]
    columns = [(column["title"], [cell(row, column) for row in table["rows"]]) for column in shown_columns]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [list(cells) for cells in zip(*(cells for _, cells in columns), strict=True)]
    rows = [f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines]
    return "\n".join([*rows, *(_commands(table["rows"]) if shown_columns != table["columns"] else [])])


def _commands(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a list of commands that unfolds, because commands are wider than a column."""
    made_by: dict[str, list[str]] = {}
    for row in rows:
        if row["command"]:
            made_by.setdefault(row["command"], []).append(f"{row['model']}, {row['data']}")
    lines = [f"- {'; '.join(names)}: `{command}`" for command, names in made_by.items()]
    return ["", "<details markdown><summary>Commands</summary>", "", *lines, "", "</details>"]


def cell(row: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    """Returns what a row shows in a column: a measured number, or a field of the record."""
    if "number" in column:
        return "; ".join(shown(number, column) for number in row["numbers"] if _wanted(number, column))
    field = column["field"]
    if field == "time":
        return _time(row["minutes"])
    if field == "busy":
        return {True: "yes", False: "no", None: ""}[row["busy"]]
    if field == "published":
        return _published(row["published"])
    if field == "measure" and "measure" not in row.get("labels", {}):
        return next((_measure(number) for number in row["numbers"] if number.get("measure")), "")
    text = row[field] if field in row else row.get("labels", {})[field]
    return re.sub(r"\{(.+?)\}", lambda found: _referenced(found[1]), text)


def shown(number: Mapping[str, Any], column: Mapping[str, Any], unit: str = "") -> str:
    """Returns a number with its sign, range or error, its unit, and the settings that the column names."""
    deviation = number.get("standard_deviation")
    error = number.get("standard_error") if deviation is None else deviation
    digits = number.get("digits", column.get("digits"))
    if digits is not None and error and round(error, digits) == 0.0:
        digits = -math.floor(math.log10(error))  # an error that is not zero must not be shown as zero
    text = _digits(number["value"], digits)
    if column.get("sign", True) and number.get("kind") in _SIGNS:
        text = f"{_SIGNS[number['kind']]} {text}"
    if "low" in number:
        text += f" ({_digits(number['low'], digits)} to {_digits(number['high'], digits)})"
    if error is not None:
        text += f" ± {_digits(error, digits)}"
    known = number.get("settings", {})
    text += f" {unit}" if unit else ""
    return text + "".join(f", {name} = {known[name]:,}" for name in column.get("settings", ()) if name in known)


def _wanted(number: Mapping[str, Any], column: Mapping[str, Any]) -> bool:
    units = column.get("unit", number["unit"]), number["unit"]
    where = column.get("where", {}).items()
    return number["name"] == column["number"] and units[0] == units[1] and where <= number.get("settings", {}).items()


def _digits(value: float, digits: int | None) -> str:
    """Returns a number with `digits` decimals; by default with three significant digits, but no more than it has."""
    if isinstance(value, int):
        return f"{value:,}"
    if digits is None:
        significant = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        decimals = repr(value).partition(".")[2]
        digits = significant if "e" in decimals else min(significant, len(decimals))
    return f"{value:,.{digits}f}"


def _time(minutes: float | list[float] | None) -> str:
    if minutes is None:
        return ""
    if isinstance(minutes, list):
        return f"{minutes[0]:g} to {minutes[1]:g} min"
    return (
        f"{minutes:.2g} min"
        if 1 <= minutes < 10
        else f"{minutes:.0f} min"
        if minutes >= 10
        else f"{60 * minutes:.0f} s"
    )


def _published(published: Mapping[str, Any] | None) -> str:
    if published is None:
        return ""
    about = "; ".join(published[name] for name in ("note", "source") if published[name])
    return f"{published['value']:g}" + (f" ({about})" if about else "")


def _measure(number: Mapping[str, Any]) -> str:
    space = number["settings"].get("space")
    return f"density on {space}" if space else number["measure"]


def _referenced(reference: str) -> str:
    """Returns the number that "table/id:name:unit" names, with its sign and its unit."""
    place, name, unit = reference.split(":")
    table, _, identity = place.partition("/")
    content = read(table)
    (row,) = (row for row in content["rows"] if row["id"] == identity)
    column = next(
        column for column in content["columns"] if column.get("number") == name and column.get("unit", unit) == unit
    )
    (number,) = (number for number in row["numbers"] if _wanted(number, column))
    return shown(number, column, unit if unit == number["unit"] else "")


if __name__ == "__main__":
    runner.program(Config, update)
