"""results.json and the table of results. Every number carries its unit, its kind, its measure and its data."""

import itertools
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gm_jax.evaluation.likelihood import LikelihoodSummary
from gm_jax.files import read_json, write_text
from gm_jax.ops.reductions import nats_to_bits_per_dim

# A record's kind is a statement about log p. Tables show -log p, for which a lower bound becomes an upper bound.
SIGN_OF_NLL = {"exact": "=", "lower_bound": "<=", "upper_bound": ">=", "estimate": "~"}
KIND_OF_NLL = {"exact": "exact", "lower_bound": "upper bound", "upper_bound": "lower bound", "estimate": "estimate"}
_NOTES = {
    "lower_bound": "<=: the true -log p is at most this (kind lower_bound in the file: log p is bounded from below).",
    "upper_bound": ">=: the true -log p is at least this (kind upper_bound in the file: log p is bounded from above).",
}

# Settings that are results themselves, the space, of which a quantity has one, and the rule of the splits, of which a
# data set has one; all others identify the number.
_NOT_IDENTIFYING = {
    "standard_error",
    "standard_deviation",
    "probe_error",
    "space",
    "splits",
    "not_converged",
    "captions",
}
_WIDTH = 100  # columns of a table
_SHORT, _NARROW = 20, 40  # settings that always stand beside a value; columns that are too few for longer ones
_FACTS = ("data", "measure", "split", "examples")  # columns that stand above the table if they are equal in all rows
_FOUND = "log_z"  # begins the names of what was found about log Z, which is a result too


class Record(NamedTuple):
    """One measured number.

    Attributes:
        name: what was measured, e.g. "nll".
        value: the number; None if it is not finite, because JSON has no infinity.
        unit: "nats", "bits/dim", ...
        kind: whether log p is "exact", a "lower_bound" (-log p is at most this), an "upper_bound" (-log p is at least
            this) or an "estimate"; "score" for a number about samples.
        data: name of the data set.
        measure: base measure of the probability: "binary", "256 levels" or "continuous" (a density).
        split: "train", "validation" or "test"; "samples" if samples of the model were counted.
        examples: number of examples counted.
        settings: what else the reader needs to know: K, binarisation, checkpoint, ...
    """

    name: str
    value: float | None
    unit: str
    kind: str
    data: str
    measure: str
    split: str
    examples: int
    settings: dict[str, Any]


def likelihood_records(
    name: str,
    summary: LikelihoodSummary,
    *,
    data: str,
    split: str,
    num_dims: int,
    settings: Mapping[str, Any],
) -> list[Record]:
    """Returns the negative log-likelihood in nats and, unless it is a density, in bits per dimension.

    What probes of a divergence add to its standard error stands in settings["probe_error"], in the record's unit.
    A density depends on the unit of its space, so its records carry it: settings["space"], e.g. "[0,16]^64". If the
    settings state not_converged, log Z is not known from annealed chains, and only an exact log p and an upper bound
    have a value, or a bound that needs no log Z: one of another model, as its settings state with "of".

    Args:
        name: name of the quantity, e.g. "nll".
        summary: mean log p in nats.
        data: name of the data set.
        split: split that was evaluated.
        num_dims: number of dimensions of an example.
        settings: settings to add to those of the summary.
    """
    settings = {**dict(summary.settings), **settings}
    if summary.measure == "continuous":
        settings = {"space": "not stated", **settings}
    is_known = summary.kind in ("exact", "upper_bound") or "of" in settings or not settings.get("not_converged")
    probe_errors = {} if summary.probe_error is None else {"probe_error": summary.probe_error}
    rows = [("nats", -summary.mean, summary.standard_error, probe_errors)]
    if summary.measure != "continuous":
        bits, error = (nats_to_bits_per_dim(nats, num_dims) for nats in (-summary.mean, summary.standard_error))
        in_bits = {name: nats_to_bits_per_dim(nats, num_dims) for name, nats in probe_errors.items()}
        rows.append(("bits/dim", bits, error, in_bits))
    return [
        Record(
            name=name,
            value=finite(value) if is_known else None,
            unit=unit,
            kind=summary.kind,
            data=data,
            measure=summary.measure,
            split=split,
            examples=summary.num_examples,
            settings={
                **settings,
                **{name: finite(of_probes[name]) for name in of_probes},
                "standard_error": finite(error),
            },
        )
        for unit, value, error, of_probes in rows
    ]


def write(path: Path, records: Sequence[Record]) -> None:
    """Writes results.json, a list of records, and replaces the old file atomically."""
    write_text(path, json.dumps([record._asdict() for record in records], indent=1, allow_nan=False) + "\n")


def read(path: Path) -> list[Record]:
    """Reads the records of a results.json; returns none if there is no file.

    Raises:
        ValueError, TypeError: it holds something else.
    """
    records = [Record(**entry) for entry in read_json(path)] if path.exists() else []
    if not all(map(_is_record, records)):
        raise TypeError("a record holds values of other types")
    return records


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Merges two lists: a new record replaces the old record of the same identity, and all other old records stay.

    The identity of a record is its name, unit, data, split, examples and settings (K, step, seed, ...) without
    standard errors, standard deviations, spaces and what was found about log Z.
    """

    def identity(record: Record) -> str:
        settings = {
            name: value
            for name, value in record.settings.items()
            if name not in _NOT_IDENTIFYING and not name.startswith(_FOUND)
        }
        # JSON, so that a tuple equals the list that the file holds.
        parts = (record.name, record.unit, record.data, record.split, record.examples, settings)
        return json.dumps(parts, sort_keys=True)

    replaced = {identity(record) for record in new}
    return [record for record in old if identity(record) not in replaced] + list(new)


def table(records: Sequence[Record]) -> str:
    """Formats the records as an aligned text table of -log p; sign and kind are those of -log p.

    What is equal in all rows stands once above the table; facts and settings are wrapped at 100 columns. The
    standard error over the examples follows a value whose record has one, "21.5700 +- 0.3100".
    """
    above, shared = _shared(records)
    head = ("quantity", "", "value", "unit", "kind", *_FACTS, "settings")
    rows = [head] + [
        (
            record.name,
            SIGN_OF_NLL.get(record.kind, "="),
            _value(record),
            record.unit,
            KIND_OF_NLL.get(record.kind, record.kind),
            *_facts(record).values(),
            " ".join(word for word in _words(record) if word not in shared),
        )
        for record in records
    ]
    kept = [
        column
        for column, name in enumerate(head)
        if name not in above and (not records or any(row[column] for row in rows[1:]))
    ]
    rows = [[row[column] for column in kept] for row in rows]
    lines = list(itertools.chain.from_iterable(_aligned(rows))) if kept else []
    notes = [note for kind, note in _NOTES.items() if any(record.kind == kind for record in records)]
    facts = textwrap.wrap(_sentence(above, shared), _WIDTH, subsequent_indent="  ")
    return "\n".join([*facts, *lines[:1], "-" * max(map(len, lines), default=0), *lines[1:], *notes])


def _facts(record: Record) -> dict[str, str]:
    return {
        "data": record.data,
        "measure": record.measure,
        "split": record.split,
        "examples": f"{record.examples:,}",
    }


def _words(record: Record) -> list[str]:
    """Returns the settings of a record as words, without what its value shows."""
    return [f"{name}={_short(value)}" for name, value in record.settings.items() if name != "standard_error"]


def _shared(records: Sequence[Record]) -> tuple[dict[str, str], list[str]]:
    """Returns the facts and the settings that are equal in all records."""
    if not records:
        return {}, []
    facts = _facts(records[0])
    above = {name: value for name, value in facts.items() if all(_facts(r)[name] == value for r in records)}
    return above, [word for word in _words(records[0]) if all(word in _words(record) for record in records)]


def _sentence(above: Mapping[str, str], shared: Sequence[str]) -> str:
    """Returns what is equal in all rows in one line, such as "test split of digits, 180 examples, binary: step=500"."""
    split = f"{above['split']} split" if above.get("split") in ("train", "validation", "test") else above.get("split")
    place = " of ".join(filter(None, (split, above.get("data"))))
    examples = f"{above['examples']} examples" if "examples" in above else None
    facts = ", ".join(filter(None, (place, examples, above.get("measure"))))
    return ": ".join(filter(None, (facts, " ".join(shared))))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Aligns the columns of rows; yields the lines of each, of which there are several if the last column is long.

    If there is little room beside the other columns, the last one stands below them.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    start = sum(widths[:-1]) + 2 * (len(widths) - 1)
    if is_below := widths[-1] > _SHORT and _WIDTH - start < _NARROW:
        start = 4
    for number, row in enumerate(rows):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
        first, *more = textwrap.wrap(row[-1], max(_SHORT, _WIDTH - start), break_on_hyphens=False) or [""]
        if is_below:
            below = (first, *more) if number and first else ()  # without a heading
            yield [cells.rstrip(), *(" " * start + line for line in below)]
            continue
        yield [f"{cells}  {first}".rstrip() if cells else first, *(" " * start + line for line in more)]


def without_value(record: Record) -> str:
    """Returns what a table shows of a record that has no value."""
    return "not converged" if record.settings.get("not_converged") else "not finite"


def _value(record: Record) -> str:
    if record.value is None:
        return without_value(record)
    error = record.settings.get("standard_error")
    return f"{record.value:.4f} +- {error:.4f}" if isinstance(error, float) else f"{record.value:.4f}"


def _is_record(record: Record) -> bool:
    texts = (record.name, record.unit, record.kind, record.data, record.measure, record.split)
    return (
        all(isinstance(text, str) for text in texts)
        and (record.value is None or type(record.value) in (int, float))
        and type(record.examples) is int
        and isinstance(record.settings, dict)
    )


def finite(value: float) -> float | None:
    """Returns a number as JSON can hold it: None if it is not finite."""
    return value if math.isfinite(value) else None


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a SHA-256; the file holds all digits
        return value[:8]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
