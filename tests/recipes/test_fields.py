"""Each field of a configuration changes what its recipe builds."""

import dataclasses
import functools
import importlib
import types
import typing

import flax.linen as nn
import jax
import numpy as np
import pytest

from gm_jax import recipes
from gm_jax.config import saved
from gm_jax.errors import UserError
from tests.recipes.test_choices import CAPTIONS, CHOICES, DIGITS, POINTS
from tests.recipes.test_configs import EXPERIMENTS

SPECS = {"digits": DIGITS, "captions": CAPTIONS}
RATES = (
    {"optimizer": {"schedule": "exponential", "decay_rate": 0.9}},
    {"optimizer": {"schedule": "steps", "boundaries": (200, 300), "factors": (0.5, 0.1)}},
)
# More settings, for fields that have no effect with the settings of the experiments and of `test_choices`.
MORE = (
    *((name, {"decoder": "normal"}, DIGITS) for name in ("vae", "iwae")),
    *((name, {"output": "bernoulli"}, DIGITS) for name in ("pixelcnn_pp", "wavenet")),
    ("vq_vae", {"decoder": "bernoulli"}, DIGITS),
    ("spline_flow", {}, DIGITS),
    *((name, {"network": "resnet"}, DIGITS) for name in ("gan", "wgan_gp")),
    ("jem", {"network": "conv"}, DIGITS),
    ("ddpm_conditional", {"learned_variance": True, "sampler": {"method": "ddim"}}, DIGITS),
    ("latent_diffusion", {"beta_min": None, "sampler": {"method": "ddim"}}, DIGITS),
    ("text_to_image", {"beta_min": None, "sampler": {"method": "ancestral"}}, CAPTIONS),
)
# A preset's name stands in the results alone; the techniques of improved_gan have no place in a residual network.
WORDS, REFUSED = {"preset"}, {"improved_gan": {("discriminator_features",)}}


def written(thing, seen):
    """Returns all that an object holds, and what its functions hold in closures, as nested tuples."""
    if thing is None or isinstance(thing, (int, float, str, type, np.dtype)):
        return repr(thing)
    if isinstance(thing, (np.ndarray, jax.Array)):
        return str(thing.dtype), thing.shape, np.asarray(thing).tobytes()
    if id(thing) in seen:
        return "again", seen[id(thing)][0]
    seen[id(thing)] = len(seen), thing  # kept alive, so that nothing else gets its id
    parts = functools.partial(inside, seen=seen)
    if isinstance(thing, functools.partial):
        return "partial", *parts((thing.func, thing.args, thing.keywords))
    if isinstance(thing, types.MethodType):
        return "method", thing.__name__, *parts((thing.__self__,))
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if cell != types.CellType()]  # an empty one
        return (
            "function",
            thing.__code__,
            *parts((thing.__defaults__, thing.__kwdefaults__, *cells)),
        )
    if isinstance(thing, dict):
        return "dict", *map(repr, thing), *parts(thing.values())
    if isinstance(thing, (list, tuple)):
        return type(thing).__name__, *parts(thing)
    if dataclasses.is_dataclass(thing):
        left_out = ("parent", "name") if isinstance(thing, nn.Module) else ()
        names = [field.name for field in dataclasses.fields(thing) if field.name not in left_out]
        return type(thing).__qualname__, *names, *parts(getattr(thing, name) for name in names)
    return type(thing).__qualname__, *parts((getattr(thing, "__wrapped__", None),))


def inside(things, *, seen):
    return tuple(written(thing, seen) for thing in things)


def others(value, hint):
    """Yields other values of a field, some of which its range may refuse."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Annotated:
        yield from others(value, inner[0])
    elif kind is typing.Literal:
        yield from (one for one in inner if one != value)
    elif kind in (typing.Union, types.UnionType):
        for one in inner:
            yield from others(value, one)
    elif kind is tuple:
        yield from ((*value[:-1], 2 * value[-1]), (*value, value[-1]), value[:-1]) if value else ((0,), (8,), (8, 8))
    elif hint is type(None):
        yield from () if value is None else (None,)
    elif hint is bool:
        yield not value
    elif hint is int:
        number = value if isinstance(value, int) else 2
        yield from (number + 1, 2 * number, number // 2, number - 1)
    elif hint is float:
        number = value if isinstance(value, float) else 0.5
        yield from (0.5 * number, 0.9 * number + 0.05, number + 1.0)
    elif hint is str:
        yield "a red two"
    elif dataclasses.is_dataclass(hint) and not isinstance(value, hint):
        (first, *_), hints = dataclasses.fields(hint), typing.get_type_hints(hint, include_extras=True)
        section = hint()
        for one in others(getattr(section, first.name), hints[first.name]):
            yield dataclasses.replace(section, **{first.name: one})


def fields(config, *above):
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, *above, field.name)
        else:
            yield (*above, field.name), value, hints[field.name]


def changed(config, path, value):
    changes = functools.reduce(lambda inner, name: {name: inner}, reversed(path), value)
    config = saved.updated(config, changes)
    saved.check(config)
    return config


def built(config, spec):
    """Returns all that is built, without the settings that results print: a number there does not show that it acts."""
    return written(recipes.build(config, spec)._replace(settings={}), {})


def is_seen(config, spec, whole, path, value, hint):
    """Returns whether some other value of a field builds something else."""
    for other in others(value, hint):
        try:
            if built(changed(config, path, other), spec) != whole:
                return True
        except UserError:
            continue
    return False


def bases(name):
    """Returns the configurations and data from which the fields of an experiment are changed."""
    config = importlib.import_module(f"experiments.{name}").CONFIG
    spec = SPECS.get(config.data.name, POINTS)
    rates = RATES if hasattr(getattr(config, "optimizer", None), "decay_rate") else ()
    chosen = [(choices, data) for experiment, choices, data in (*CHOICES, *MORE) if experiment == name]
    return [(saved.updated(config, choices), data) for choices, data in [*((c, spec) for c in ({}, *rates)), *chosen]]


NAMES = {}
for _name in EXPERIMENTS:
    NAMES.setdefault(importlib.import_module(f"experiments.{_name}").CONFIG.recipe, []).append(_name)


@pytest.mark.parametrize("recipe", NAMES)
def test_every_field_reaches_what_is_built(recipe):
    known, seen = set(), set()
    for name in NAMES[recipe]:
        for config, spec in bases(name):
            whole = built(config, spec)
            assert whole == built(config, spec)
            leaves = [leaf for leaf in fields(config) if leaf[0][0] not in ("data", "train", *WORDS)]
            known |= {path for path, *_ in leaves}
            seen |= {path for path, *rest in leaves if path not in seen and is_seen(config, spec, whole, path, *rest)}
        seen |= REFUSED.get(name, set())
    assert not known - seen, sorted(map(".".join, known - seen))
