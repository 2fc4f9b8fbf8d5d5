"""The record of a run, metrics.jsonl: written line by line, read back, averaged over the steps of a call.

It has one JSON object per line, {"step": ..., "split": ..., name: value, ...}. It holds no times, only what
follows from the configuration, so that a run that was stopped and resumed ends with the same bytes as one that was not.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError
from gm_jax.files import appending, naming, opened, parse_json, write_text

# 1 at a step of the player's stage, else 0; then its other metrics are 0 and are not averaged.
TAKES_PART = "takes_part"

_LONGEST = 2**20  # bytes of a line


class NonFiniteError(Exception):
    """A loss, a gradient norm, another metric or a part of the state became infinite or not a number."""

    def __init__(self, step: int, name: str, value: float):
        super().__init__(f"{name} became {value} at step {step}")
        self.step, self.name, self.value = step, name, value


class Line(NamedTuple):
    """One line of metrics.jsonl."""

    step: int
    split: str
    values: dict[str, float]


class MetricsLog:
    """The metrics.jsonl of one run, opened to resume after `step`; it drops later lines and a torn last one."""

    def __init__(self, path: Path, *, step: int = 0):
        self._path = path
        self.lines: list[Line] = [line for line in read(path) if line.step <= step]
        write_text(path, "".join(_encode(line) for line in self.lines))
        self._file = appending(path)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> Line:
        """Appends a line and flushes it, so that a checkpoint saved afterwards never outruns the log.

        Raises:
            ValueError: a value is not finite, which JSON cannot hold, or a metric is called "step" or "split".
            OSError: the file cannot be written.
        """
        if values.keys() & {"step", "split"}:
            raise ValueError(f'a metric cannot be named "step" or "split": got {sorted(values)}')
        line = Line(step, split, {name: float(value) for name, value in values.items()})
        with naming(self._path):
            self._file.write(_encode(line))
            self._file.flush()
        self.lines.append(line)
        return line

    def sync(self) -> None:
        """Waits until all lines are on the disk, so that a power cut cannot take lines from before a checkpoint.

        A file that was removed in the meantime is written again.

        Raises:
            OSError: the disk failed.
        """
        if not self._path.exists():
            self.close()
            write_text(self._path, "".join(_encode(line) for line in self.lines))
            self._file = appending(self._path)
        with naming(self._path):
            os.fsync(self._file.fileno())

    def column(self, split: str, name: str) -> list[tuple[int, float]]:
        """Returns [(step, value), ...] of one metric, oldest first."""
        return [(line.step, line.values[name]) for line in self.lines if line.split == split and name in line.values]

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # what could not be written was reported by `write`
            self._file.close()


def read(path: Path) -> list[Line]:
    """Reads the lines of a metrics.jsonl up to the first incomplete one; none if the file does not exist.

    Raises:
        OSError: it may not be read.
        UserError: it is not a file.
    """
    lines: list[Line] = []
    if not path.exists():
        return lines
    try:
        with opened(path) as file:
            while (line := _decode(file.readline(_LONGEST))) is not None:
                lines.append(line)
    except ValueError:
        raise UserError(f"{path} is not a file: move it away and repeat the command.") from None
    return lines


def _decode(text: bytes) -> Line | None:
    """Returns a line, or None if it is incomplete or is not one that `MetricsLog` writes."""
    if not text.endswith(b"\n"):
        return None
    try:
        values = parse_json(text)
    except ValueError:  # not JSON, or not even text
        return None
    if not isinstance(values, dict):
        return None
    step, split = values.pop("step", None), values.pop("split", None)
    numbers = all(type(value) in (int, float) for value in values.values())
    return Line(step, split, values) if type(step) is int and isinstance(split, str) and numbers else None


def curves(lines: Iterable[Line]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Groups lines by split and metric: split -> metric -> [(step, value), ...], oldest first."""
    grouped: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in lines:
        for name, value in line.values.items():
            grouped.setdefault(line.split, {}).setdefault(name, []).append((line.step, value))
    return grouped


def mean_over_steps(metrics: Mapping[str, np.ndarray], last_step: int) -> dict[str, float]:
    """Averages each metric over the steps of one call, in float64.

    Args:
        metrics: name -> [S] values of the S steps that end with `last_step`.
        last_step: number of the last step, counted from 1.

    Returns:
        name -> the mean. A player with a stage has means over the steps of its stage, and no names if there are none.

    Raises:
        NonFiniteError: some value is infinite or not a number; the first step and its first metric are named.
    """
    columns = {name: np.asarray(values, np.float64) for name, values in metrics.items()}
    broken = [
        (int(np.argmin(np.isfinite(column))), name) for name, column in columns.items() if not np.isfinite(column).all()
    ]
    if broken:
        index, name = min(broken, key=lambda found: found[0])
        column = columns[name]
        raise NonFiniteError(last_step - len(column) + index + 1, name, float(column[index]))
    stages = [name for name in columns if name == TAKES_PART or name.endswith(f"/{TAKES_PART}")]
    steps = {name.removesuffix(TAKES_PART): columns.pop(name).sum() for name in stages}
    means = {}
    for name, column in columns.items():
        count = next((taken for player, taken in steps.items() if name.startswith(player)), len(column))
        if count:
            means[name] = float(np.sum(column) / count)
    return means


def _encode(line: Line) -> str:
    return json.dumps({"step": line.step, "split": line.split, **line.values}, allow_nan=False) + "\n"
