"""Checks of a configuration, config.json, and the comparison of a configuration with a saved one."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from gm_jax.config.fields import FINITE, Added, Bound, Measuring, Neutral, Sampling
from gm_jax.config.sections import WITHOUT_END, AdamConfig, OptimizerConfig, SGDConfig
from gm_jax.errors import UserError
from gm_jax.files import read_json, write_text

ConfigT = TypeVar("ConfigT")


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


def check(config: Any) -> None:
    """Checks every field against its range.

    Raises:
        UserError: a field is out of its range; the message names the first such field.
    """
    line = next(_out_of_bounds(config), None)
    if line is not None:
        raise UserError(line)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested dicts of JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(config_type: type[ConfigT], values: Mapping[str, Any], *, made_by: str = "") -> ConfigT:
    """Returns the configuration of which `to_dict` made `values`.

    Args:
        config_type: its type.
        values: what was saved, after `with_added_fields`.
        made_by: the version that saved it, for the message.

    Raises:
        UserError: a field is missing, unknown or of another type, as in a run of another version.
    """
    odd = list(_odd_fields(config_type, values))
    if odd:
        version = made_by or "the version that versions.json in the run's folder names"
        raise UserError(
            f"the saved configuration is of another version of gm_jax: {', '.join(odd)}\nOpen the run with {version}."
        )
    hints = typing.get_type_hints(config_type)
    return config_type(**{name: _value(hints[name], value) for name, value in values.items()})


def with_added_fields(config_type: type, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Completes a saved configuration with the fields that are younger than it, which have the mark `Added`.

    Args:
        config_type: today's type.
        values: what was saved.

    Returns:
        The values, and the added fields whose default is another value today, as lines such as "optimizer.eps: 1e-08".
    """
    completed, lines = dict(values), []
    defaults = {field.name: field.default for field in dataclasses.fields(config_type)}
    for name, hint in typing.get_type_hints(config_type, include_extras=True).items():
        if name in values:
            section = _section(hint, values[name])
            if section is not None:
                completed[name], inner = with_added_fields(section, values[name])
                lines += [f"{name}.{line}" for line in inner]
            continue
        for mark in typing.get_args(hint):
            if isinstance(mark, Added):
                completed[name] = json.loads(json.dumps(mark.before))
                if mark.before != defaults.get(name, mark):
                    lines.append(f"{name}: {mark.before!r}")
    return completed, lines


class Saved(typing.NamedTuple):
    """The content of config.json.

    Attributes:
        recipe: "module:function" that rebuilds the experiment; the experiment's module, in runs of the first format.
        config: the configuration, as `to_dict` makes it.
        data: the Spec of the data, as a dict.
        command: the module of the command that made the run, e.g. "experiments.vae"; empty if it is not known.
        identity: random digits that were drawn when the run was made, and that its checkpoints carry; empty for a run
            of an earlier version, whose checkpoints carry none.
    """

    recipe: str
    config: dict[str, Any]
    data: dict[str, Any]
    command: str = ""
    identity: str = ""

    @property
    def opener(self) -> str:
        """How to open the run: the command that made it, or else the name of the recipe."""
        return f"python -m {self.command}" if self.command else f"the command of {self.recipe}"


def save(
    path: Path, recipe: str, config: Any, *, data: Mapping[str, Any], command: str = "", identity: str = ""
) -> None:
    """Writes config.json in one move."""
    content = Saved(recipe, to_dict(config), dict(data), command, identity)
    write_text(path, json.dumps(content._asdict(), indent=1) + "\n")


def load(path: Path) -> Saved:
    """Reads config.json.

    Raises:
        UserError: the file is missing or is not what `save` writes.
    """
    try:
        values = read_json(path)
        if "experiment" in values:  # the first format
            values["recipe"] = values["command"] = values.pop("experiment")
        saved = Saved(**values)
    except (FileNotFoundError, NotADirectoryError):
        why = f"it has no {path.name}" if path.parent.exists() else "it does not exist"
        raise UserError(f"{path.parent} holds no run: {why}.\nTrain a run there first.") from None
    except (ValueError, TypeError, AttributeError):
        saved = None
    if saved is None or tuple(map(type, saved)) != (str, dict, dict, str, str):
        raise UserError(f"{path} is damaged or is not a run's configuration.\nChoose the folder of a run.")
    return saved


def marked_fields(config_type: type, *marks: type) -> dict[str, Any]:
    """Returns the fields with one of `marks`: name -> type, or a dict of them for a section that has some."""
    found = {}
    for name, hint in typing.get_type_hints(config_type, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            section = marked_fields(typing.cast(type, hint), *marks)
            found |= {name: section} if section else {}
        elif any(mark in typing.get_args(hint) for mark in marks):
            found[name] = hint
    return found


def measuring_fields(config_type: type) -> dict[str, Any]:
    """Returns the fields that an evaluation may change, as `marked_fields` does."""
    return marked_fields(config_type, Measuring, Sampling)


def sampling_fields(config_type: type) -> dict[str, Any]:
    """Returns the fields that decide how samples are drawn, as `marked_fields` does."""
    return marked_fields(config_type, Sampling)


def given(args: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of `fields` in `args` that are not None, nested as `fields` is."""
    values = {}
    for name, hint in fields.items():
        value = getattr(args, name)
        if isinstance(hint, Mapping):
            section = given(value, hint)
            values |= {name: section} if section else {}
        elif value is not None:
            values[name] = value
    return values


def updated(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Returns a configuration with some of its fields changed; a dict changes fields of a section.

    Raises:
        UserError: there is no such field.
    """
    for name, value in changes.items():
        if not hasattr(config, name):
            raise UserError(f"{type(config).__name__} has no field {name!r}: use one of {', '.join(vars(config))}.")
        if isinstance(value, Mapping):
            value = updated(getattr(config, name), value)
        config = dataclasses.replace(typing.cast(Any, config), **{name: value})
    return config


def differences(config: Any, saved: Any) -> list[str]:
    """Lists what differs from a saved configuration and changes the result.

    Returns:
        Lines such as "train.batch_size: 64 (saved) != 128".
    """
    found, hints = [], typing.get_type_hints(type(config), include_extras=True)
    saved = dict(saved) if isinstance(saved, dict) else {}
    for field in dataclasses.fields(config):
        value, old = getattr(config, field.name), saved.pop(field.name, _MISSING)
        if dataclasses.is_dataclass(value):
            found += [f"{field.name}.{line}" for line in differences(value, old)]
        elif Neutral not in typing.get_args(hints[field.name]) and json.loads(json.dumps(value)) != old:
            found.append(f"{field.name}: {old!r} (saved) != {value!r}")
    return found + [f"{name}: {old!r} (saved) does not exist in this version" for name, old in saved.items()]


def facts(config: Any) -> dict[str, Any]:
    """Returns every field that changes the result, under its full name: {"train.batch_size": 128, ...}."""
    found, hints = {}, typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{name}": fact for name, fact in facts(value).items()}
        elif Neutral not in typing.get_args(hints[field.name]):
            found[field.name] = value
    return found


def first_steps_do_not_depend_on_their_number(config: Any) -> bool:
    """Whether a longer run has the same first steps: whether no learning rate depends on the last one."""
    optimizers = [
        value for value in vars(config).values() if isinstance(value, (OptimizerConfig, AdamConfig, SGDConfig))
    ]
    return bool(optimizers) and all(optimizer.schedule in WITHOUT_END for optimizer in optimizers)


def _out_of_bounds(config: Any) -> Iterator[str]:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from (f"{field.name}.{line}" for line in _out_of_bounds(value))
        else:
            for bound, part in _broken(hints[field.name], value):
                yield f"{field.name} must be {bound.text}, got {part!r}."


def _broken(hint: Any, value: Any) -> Iterator[tuple[Bound, Any]]:
    """Yields the bounds in a type hint that a value breaks, each with the part of the value that breaks it."""
    if value is None:
        return
    if typing.get_origin(hint) is Annotated:
        hint, *metadata = typing.get_args(hint)
        yield from ((bound, value) for bound in metadata if isinstance(bound, Bound) and not bound.holds(value))
    options = typing.get_args(hint)
    if hint is float and isinstance(value, float) and not FINITE.holds(value):
        yield FINITE, value
    elif typing.get_origin(hint) in (types.UnionType, typing.Union):
        for option in options:
            yield from _broken(option, value)
    elif typing.get_origin(hint) is tuple and isinstance(value, tuple):
        for part in value:
            yield from _broken(options[0], part)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a JSON value can be one of this type."""
    options = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_fits(option, value) for option in options)
    if typing.get_origin(hint) is Literal:
        return value in options
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(options[0], part) for part in value)
    if hint in (int, float):
        return isinstance(value, (float, int) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _odd_fields(config_type: type, values: Mapping[str, Any]) -> Iterator[str]:
    """Yields the full name of each field that is missing, unknown or of another type, and which of these it is."""
    hints = typing.get_type_hints(config_type)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, config_type))]
    for name in names:
        if name not in values:
            yield f"{name} is missing"
        elif (section := _section(hints[name], values[name])) is not None:
            yield from (f"{name}.{line}" for line in _odd_fields(section, values[name]))
        elif not _fits(hints[name], values[name]):
            yield f"{name} cannot be {json.dumps(values[name])[:40]}"
    yield from (f"{name} is unknown" for name in values if name not in names)


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    section = _section(hint, value)
    return value if section is None else from_dict(section, value)


def _section(hint: Any, value: Any) -> type | None:
    """Returns which section a JSON object is: of a union, the one with the fewest fields that only one of both has.

    A field with the mark `Added` may be younger than the object: that it lacks it says nothing.
    """
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    options = (hint, *typing.get_args(hint))
    sections = [typing.cast(type, option) for option in options if dataclasses.is_dataclass(option)]
    if not isinstance(value, dict) or not sections:
        return None

    def mismatches(section: type) -> int:
        hints = {name: typing.get_args(hint) for name, hint in _field_hints(section).items()}
        missing = [name for name, marks in hints.items() if not any(isinstance(mark, Added) for mark in marks)]
        return len(set(value) - set(hints)) + len(set(missing) - set(value))

    return min(sections, key=mismatches)


def _field_hints(section: type) -> dict[str, Any]:
    hints = typing.get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(typing.cast(Any, section))}
