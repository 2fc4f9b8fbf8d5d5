"""What every experiment's configuration shares, and how configurations are saved, read and compared.

A configuration is data only: nested frozen dataclasses of numbers, strings and tuples. The text under a field is its
help on the command line. A field marked `Neutral` does not change what a run computes and may differ on resuming; one
marked `Measuring` may differ in a later evaluation; one of type `Count`, `Rate`, ... is held to its range before
anything is loaded or written.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from gm_jax.errors import UserError
from gm_jax.files import write_text

if TYPE_CHECKING:
    import optax

ConfigT = TypeVar("ConfigT")


class Neutral:
    """Marks, in its `Annotated` type, a field that does not change the result of a run."""


class Measuring:
    """Marks, in its `Annotated` type, a field of an experiment's own that changes what is measured, and no parameter.

    The evaluation that training ends with goes by it; the verb `evaluate` takes it as a flag, for another.
    """


class Sampling:
    """Marks, as `Measuring` does, a field that changes how samples are drawn: the verb `sample` takes it too."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """What the values of a field must satisfy; stands in the `Annotated` type of the field."""

    text: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Bound("at least 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Bound("at least 0", lambda n: n >= 0)]
Seed = Annotated[int, Bound("at least 0 and less than 2**32", lambda n: 0 <= n < 2**32)]
Rate = Annotated[float, Bound("more than 0", lambda x: 0.0 < x < math.inf)]
RateOrZero = Annotated[float, Bound("at least 0", lambda x: 0.0 <= x < math.inf)]
Decay = Annotated[float, Bound("at least 0 and less than 1", lambda x: 0.0 <= x < 1.0)]
Widths = Annotated[tuple[Count, ...], Bound("at least one number", lambda widths: len(widths) > 0)]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data."""

    name: str = "digits"
    """digits, binarized_digits, digits4x4, toy:two_moons, toy:eight_gaussians, toy:checkerboard, toy:pinwheel,
    wave:tones, or a TensorFlow Datasets name."""
    dir: Annotated[str | None, Neutral] = None
    """Where TensorFlow Datasets are prepared; by default TFDS_DATA_DIR, or else ~/tensorflow_datasets."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, on what, and what is kept."""

    steps: Count = 2_000
    """Steps of the whole run. Where the learning rate is constant a run can be made longer by more of them."""
    batch_size: Count = 128
    """Examples a step, over all devices."""
    seed: Seed = 0
    """Seed of everything random in training: parameters, order of the data, noise."""
    parallel: Literal["jit", "pmap"] = "jit"
    """jit: one program over all devices, the numbers do not depend on how many. pmap: each device its own noise."""
    steps_per_call: Count = 1
    """Steps in one call of the compiled step; more saves time where a step is small. Lowered to a divisor of the
    other counts of steps where it is none."""
    log_every: Count = 100
    """Steps from one line of metrics.jsonl to the next."""
    checkpoint_every: Count = 500
    """Steps from one validation and checkpoint to the next."""
    keep_checkpoints: Annotated[Count, Neutral] = 2
    """How many of the latest checkpoints are kept; the best on validation is kept besides."""
    patience: CountOrZero = 0
    """Stop early after this many validations without a better one; 0 for never."""
    ema_decay: Decay = 0.0
    """Decay of the average of the parameters that is evaluated and sampled from; 0 for none."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule."""

    learning_rate: Rate = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """constant, or half a cosine down to 0 at the last step; both after the warm-up."""
    warmup_steps: CountOrZero = 0
    """Updates over which the learning rate rises linearly from 0."""
    eps: Rate = 1e-8
    """Added to the root of Adam's second moment. Where it is large against the gradients Adam turns into SGD with
    momentum."""
    weight_decay: RateOrZero = 0.0
    """Decoupled weight decay (AdamW)."""
    clip_norm: Rate | None = None
    """The gradient's global norm is scaled down to this, if larger."""
    accumulate_steps: Count = 1
    """Steps whose mean gradient makes one update."""


def check(config: Any) -> None:
    """Hold every field to its range.

    Raises:
        UserError: naming the first field that is out of it.
    """
    line = next(_out_of_bounds(config), None)
    if line is not None:
        raise UserError(line)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts of JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(config_type: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """The inverse of `to_dict`.

    Raises:
        UserError: a field is missing, unknown or of another type, as when a run was made by another version.
    """
    hints = typing.get_type_hints(config_type)
    known = {field.name for field in dataclasses.fields(config_type)}
    odd = set(values) ^ known or {name for name, value in values.items() if not _fits(hints[name], value)}
    if odd:
        raise UserError(f"the saved configuration is of another version of this experiment: {', '.join(sorted(odd))}")
    return config_type(**{name: _value(hints[name], value) for name, value in values.items()})


class Saved(typing.NamedTuple):
    """What config.json holds: the experiment's module, the configuration's values, the data's Spec as a dict."""

    experiment: str
    config: dict[str, Any]
    data: dict[str, Any]


def save(path: Path, module: str, config: Any, *, data: dict[str, Any]) -> None:
    """Write config.json in one move."""
    write_text(path, json.dumps(Saved(module, to_dict(config), data)._asdict(), indent=1) + "\n")


def load(path: Path) -> Saved:
    """Read config.json.

    Raises:
        UserError: the file is missing or is not what `save` writes.
    """
    try:
        saved = Saved(**json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path.parent} holds no run: there is no {path.name} in it.\nTrain one there first.") from None
    except (ValueError, TypeError):
        saved = None
    if saved is None or tuple(map(type, saved)) != (str, dict, dict):
        raise UserError(f"{path} is not a run's configuration, or is damaged.")
    return saved


def measuring_fields(config_type: type) -> dict[str, Any]:
    """The fields that an evaluation may set anew: name -> type."""
    return _marked(config_type, {Measuring, Sampling})


def sampling_fields(config_type: type) -> dict[str, Any]:
    """Those of them that decide how samples are drawn: name -> type."""
    return _marked(config_type, {Sampling})


def given(args: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values that arguments have for fields, where they have any."""
    values = {name: getattr(args, name) for name in fields}
    return {name: value for name, value in values.items() if value is not None}


def differences(config: Any, saved: Any) -> list[str]:
    """What differs from a saved configuration and changes the result: ["train.batch_size: 64 (saved) != 128", ...]."""
    found, hints = [], typing.get_type_hints(type(config), include_extras=True)
    saved = dict(saved) if isinstance(saved, dict) else {}
    for field in dataclasses.fields(config):
        value, old = getattr(config, field.name), saved.pop(field.name, None)
        if dataclasses.is_dataclass(value):
            found += [f"{field.name}.{line}" for line in differences(value, old)]
        elif Neutral not in typing.get_args(hints[field.name]) and json.loads(json.dumps(value)) != old:
            found.append(f"{field.name}: {old!r} (saved) != {value!r}")
    return found + [f"{name}: {old!r} (saved) is no field of this version" for name, old in saved.items()]


def facts(config: Any) -> dict[str, Any]:
    """Every field that changes the result, under its full name: {"train.batch_size": 128, ...}."""
    found, hints = {}, typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{name}": fact for name, fact in facts(value).items()}
        elif Neutral not in typing.get_args(hints[field.name]):
            found[field.name] = value
    return found


def steps_are_independent_of_their_number(config: Any) -> bool:
    """Whether the first steps of a run are the same however many there are: whether every learning rate is constant."""
    optimizers = [value for value in vars(config).values() if isinstance(value, OptimizerConfig)]
    return bool(optimizers) and all(optimizer.schedule == "constant" for optimizer in optimizers)


def _marked(config_type: type, marks: set[type]) -> dict[str, Any]:
    hints = typing.get_type_hints(config_type, include_extras=True)
    return {name: hint for name, hint in hints.items() if any(mark in typing.get_args(hint) for mark in marks)}


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
    """The bounds in a type hint that a value breaks, each with the part of the value that does."""
    if value is None:
        return
    if typing.get_origin(hint) is Annotated:
        hint, *metadata = typing.get_args(hint)
        yield from ((bound, value) for bound in metadata if isinstance(bound, Bound) and not bound.holds(value))
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        for option in options:
            yield from _broken(option, value)
    elif typing.get_origin(hint) is tuple:
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
    return isinstance(value, (float, int) if hint is float else hint) and not (hint is int and isinstance(value, bool))


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    return tuple(value) if isinstance(value, list) else value


def make_optimizer(
    optimizer: OptimizerConfig, train: TrainConfig, *, every: int = 1, b1: float = 0.9, b2: float = 0.999
) -> "optax.GradientTransformation":
    """The optax transformation that a configuration describes.

    Args:
        optimizer: the configuration.
        train: how many steps there are.
        every: steps for one move of the player.
        b1: decay of Adam's first moment.
        b2: decay of its second moment.
    """
    from gm_jax.training import optimizers

    num_updates = max(1, train.steps // every // optimizer.accumulate_steps)
    if optimizer.schedule == "cosine":
        if optimizer.warmup_steps >= num_updates:
            raise UserError(f"the warm-up takes {optimizer.warmup_steps} of {num_updates} updates: it must leave some.")
        schedule = optimizers.cosine_schedule(
            optimizer.learning_rate, num_steps=num_updates, warmup_steps=optimizer.warmup_steps
        )
    else:
        schedule = optimizers.constant_schedule(optimizer.learning_rate, warmup_steps=optimizer.warmup_steps)
    return optimizers.adam(
        schedule,
        b1=b1,
        b2=b2,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        clip_norm=optimizer.clip_norm,
        accumulate_steps=optimizer.accumulate_steps,
    )
