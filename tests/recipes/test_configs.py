"""Every configuration names a recipe that takes it, and the experiments are those configurations and nothing more."""

import importlib
import typing
from pathlib import Path

import pytest

from gm_jax.config import saved
from gm_jax.data.sources import Spec
from gm_jax.recipes import configs
from gm_jax.recipes.experiment import Experiment

REPO = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(path.stem for path in (REPO / "experiments").glob("*.py"))


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
    assert used == set(configs.RECIPES)
