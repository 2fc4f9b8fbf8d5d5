"""Every configuration names a recipe that takes it, and the experiments are those configurations and nothing more."""

import dataclasses
import importlib
import json
import typing
from pathlib import Path

import pytest

from gm_jax.config import Added, saved
from gm_jax.data.sources import Spec
from gm_jax.recipes import configs
from gm_jax.recipes.experiment import Experiment

REPO = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(path.stem for path in (REPO / "experiments").glob("[a-z]*.py"))


@pytest.mark.parametrize("recipe", sorted(configs.RECIPES))
def test_a_recipe_is_a_function_of_its_configuration_and_the_data(recipe):
    module, _, name = recipe.partition(":")
    hints = typing.get_type_hints(getattr(importlib.import_module(module), name))
    assert hints == {"config": configs.RECIPES[recipe], "spec": Spec, "return": Experiment}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_docstring_and_a_configuration_within_its_ranges(name):
    experiment = importlib.import_module(f"experiments.{name}")
    saved.check(experiment.CONFIG)
    assert f"python -m experiments.{name}" in experiment.__doc__
    assert configs.RECIPES[experiment.CONFIG.recipe] is type(experiment.CONFIG)


def test_every_recipe_has_an_experiment():
    used = {importlib.import_module(f"experiments.{name}").CONFIG.recipe for name in EXPERIMENTS}
    assert used | {configs.OwnModelConfig.recipe} == set(configs.RECIPES)


def added_fields(config_type, prefix=""):
    """Yields the full name of each field of a configuration, and whether it has the mark `Added`."""
    for name, hint in typing.get_type_hints(config_type, include_extras=True).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        yield prefix + name, any(isinstance(mark, Added) for mark in typing.get_args(hint))
        for section in (hint, *typing.get_args(hint)):
            if isinstance(section, type) and dataclasses.is_dataclass(section):
                union = f"[{section.__name__}]" if section is not hint else ""
                yield from added_fields(section, f"{prefix}{name}{union}.")


@pytest.mark.parametrize("recipe", sorted(configs.RECIPES))
def test_a_saved_run_outlives_new_and_removed_fields(recipe):
    """data/config_fields.json holds the fields that every saved run has: new recipes join, old ones get no more."""
    fields = dict(added_fields(configs.RECIPES[recipe]))
    first = set(json.loads((Path(__file__).parent / "data" / "config_fields.json").read_text())[recipe])
    unmarked = {name for name, is_added in fields.items() if not is_added}
    assert unmarked <= first, "mark a new field: Annotated[TYPE, Added(before=what was computed before)]"
    assert first <= set(fields), "convert a removed field in recipes/legacy_configs.py, then take it out of the file"


def test_the_experiments_list_themselves(capsys):
    importlib.import_module("experiments.__main__").main()
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[2] for line in lines if line.startswith("python -m ")]
    assert listed == [f"experiments.{name}" for name in sorted(EXPERIMENTS)]
    assert all(len(line.split()) > 5 for line in lines[: len(listed)])
