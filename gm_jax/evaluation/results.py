"""results.json and the table that a run ends with. A number never stands without its unit, kind and data."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gm_jax.evaluation.likelihood import LikelihoodSummary
from gm_jax.files import write_text
from gm_jax.ops.reductions import nats_to_bits_per_dim

# A record's kind is of log p. The table shows -log p, which a lower bound on log p bounds from above.
SIGN_OF_NLL = {"exact": "=", "lower_bound": "<=", "upper_bound": ">=", "estimate": "~"}
_KIND_OF_NLL = {"exact": "exact", "lower_bound": "upper bound", "upper_bound": "lower bound", "estimate": "estimate"}
_NOTES = {
    "lower_bound": "<=: log p is bounded from below (kind lower_bound in the file), so -log p is bounded from above.",
    "upper_bound": ">=: log p is bounded from above (kind upper_bound in the file): the true -log p is larger.",
}

# What comes out beside the number, in its settings; all other settings are what the number is of.
_OUTCOMES = {"standard_error", "standard_deviation"}


class Record(NamedTuple):
    """One measured number.

    Attributes:
        name: what was measured, e.g. "nll".
        value: the number; None where it is not finite, so that the file stays JSON.
        unit: "nats", "bits/dim", ...
        kind: the statement on log p: "exact", "lower_bound" (-log p is at most this), "upper_bound" (-log p is at
            least this) or "estimate"; "score" for a number about samples.
        data: name of the data set.
        measure: what a probability is a probability of: "binary", "256 levels", "continuous".
        split: "train", "validation" or "test"; "samples" where samples of the model were counted.
        examples: how many were counted.
        settings: what else the number needs to be understood: K, binarisation, checkpoint, ...
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
    """The negative log-likelihood in nats, and in bits per dimension unless it is a density.

    Args:
        name: of the quantity, e.g. "nll".
        summary: mean log p in nats.
        data: name of the data set.
        split: which split was evaluated.
        num_dims: dimensions of an example.
        settings: added to the summary's own.
    """
    settings = {**dict(summary.settings), **settings}
    rows = [("nats", -summary.mean, summary.standard_error)]
    if summary.measure != "continuous":
        bits, error = (nats_to_bits_per_dim(nats, num_dims) for nats in (-summary.mean, summary.standard_error))
        rows.append(("bits/dim", bits, error))
    return [
        Record(
            name=name,
            value=_finite(value),
            unit=unit,
            kind=summary.kind,
            data=data,
            measure=summary.measure,
            split=split,
            examples=summary.num_examples,
            settings={**settings, "standard_error": _finite(error)},
        )
        for unit, value, error in rows
    ]


def write(path: Path, records: Sequence[Record]) -> None:
    """Write results.json: a list of records. Replaces the file in one move."""
    write_text(path, json.dumps([record._asdict() for record in records], indent=1, allow_nan=False) + "\n")


def read(path: Path) -> list[Record]:
    """The records of a results.json; none where there is no file."""
    return [Record(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """`old` with `new` put over it: what was measured again is replaced, and all that differs in anything stays.

    A record is of its name, unit, data, split, examples and settings (K, step, seed, ...), but for standard errors and
    deviations.
    """

    def identity(record: Record) -> str:
        settings = {name: value for name, value in record.settings.items() if name not in _OUTCOMES}
        # As the file would have it, where a tuple is a list.
        parts = (record.name, record.unit, record.data, record.split, record.examples, settings)
        return json.dumps(parts, sort_keys=True)

    replaced = {identity(record) for record in new}
    return [record for record in old if identity(record) not in replaced] + list(new)


def table(records: Sequence[Record]) -> str:
    """The records as an aligned text table of -log p; `kind` is there of what is said of -log p."""
    head = ("quantity", "", "value", "unit", "kind", "data", "measure", "split", "examples", "settings")
    rows = [head] + [
        (
            record.name,
            SIGN_OF_NLL.get(record.kind, "="),
            "not finite" if record.value is None else f"{record.value:.4f}",
            record.unit,
            _KIND_OF_NLL.get(record.kind, record.kind),
            record.data,
            record.measure,
            record.split,
            f"{record.examples:,}",
            " ".join(f"{name}={_short(value)}" for name, value in record.settings.items()),
        )
        for record in records
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [note for kind, note in _NOTES.items() if any(record.kind == kind for record in records)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *notes])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a SHA-256; the file has it whole
        return value[:8]
    return f"{value:.2g}" if isinstance(value, float) else str(value)
