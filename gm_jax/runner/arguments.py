"""Checks of what a caller in Python gives to a run: data, examples, and values of fields."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gm_jax.data.sources import Source, Spec, from_arrays
from gm_jax.errors import UserError


def as_source(data: Any, spec: Spec | None = None, *, name: str = "arrays", size: int | None = None) -> Source:
    """Returns data as a source, under the name and the size that a run has saved, if there is one.

    Raises:
        UserError: the arrays are not what `data.arrays` describes.
    """
    if isinstance(data, Source):
        return data
    return from_arrays(data, name, size) if spec is None else from_arrays(data, spec.name, spec.size)


def as_data(spec: Spec, x: Any) -> np.ndarray:
    """Returns x [N, ...] as a model of these data takes it: uint8 levels or float32 points.

    Raises:
        UserError: it has another shape, type or range than the data.
    """
    array = np.asarray(x)
    kind = "float32 points" if spec.levels is None else f"integer levels from 0 to {spec.levels - 1}"
    fits = array.shape[1:] == spec.shape
    if spec.levels is None:
        fits = fits and np.issubdtype(array.dtype, np.number)
    else:
        fits = fits and (array.dtype == bool or np.issubdtype(array.dtype, np.integer))
        fits = fits and (not array.size or 0 <= array.min() <= array.max() < spec.levels)
    if not fits:
        raise UserError(
            f"x is {array.dtype} {list(array.shape)}{_range(array)}: this run takes {kind}, "
            f"[N, {', '.join(map(str, spec.shape))}], as {spec.name} has them."
        )
    return array.astype(np.float32 if spec.levels is None else np.uint8)


def positive(number: int, name: str) -> int:
    """Returns a number that must be at least 1.

    Raises:
        UserError: it is less.
    """
    if number < 1:
        raise UserError(f"{name} must be at least 1, got {number}.")
    return number


def refuse_options_of_sample(changes: Mapping[str, Any]) -> None:
    """Refuses options of `sample` where a likelihood is asked for.

    Raises:
        UserError: a label or a temperature is given.
    """
    for name in sorted({"label", "temperature"} & set(changes)):
        raise UserError(
            f"{name!r} is an option of sample: log_prob computes p(x) without a label, also of a model with labels. "
            "Leave it out."
        )


def check_changes(config: Any, changes: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    """Checks that changes are of allowed fields.

    Args:
        config: the configuration.
        changes: field -> value, or a dict for a section.
        allowed: as `config.saved.marked_fields` returns them.
    Raises:
        UserError: a field is not allowed.
    """
    for name, value in changes.items():
        if name not in allowed:
            can = f"can change {', '.join(allowed)}" if allowed else "has no such options"
            raise UserError(f"{name!r} is not an option of this run, which {can}.")
        if isinstance(value, Mapping):
            check_changes(getattr(config, name), value, allowed[name])


def replaced(own: Any, changes: Mapping[str, Any]) -> Any:
    """Returns a family with other fields.

    Raises:
        UserError: it has no such field.
    """
    try:
        return dataclasses.replace(own, **changes)
    except TypeError:
        raise UserError(f"{type(own).__name__} has no field {', '.join(map(repr, changes))}: leave it out.") from None


def cache_key(changes: Mapping[str, Any]) -> str:
    """Returns a text that is equal for equal changes."""
    return json.dumps(changes, sort_keys=True, default=lambda value: f"{type(value).__name__} {id(value)}")


def _range(array: np.ndarray) -> str:
    if not array.size or not (array.dtype == bool or np.issubdtype(array.dtype, np.number)):
        return ""
    return f" from {array.min()} to {array.max()}"
