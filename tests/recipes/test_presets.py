"""Presets: each is a configuration of its experiment, of the size that it states, and refuses data of another shape."""

import functools
import importlib
from typing import Any

import jax
import pytest

from gm_jax import recipes
from gm_jax.config import saved
from gm_jax.config.saved import updated
from gm_jax.data import known_sets
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.recipes import configs, presets
from gm_jax.runner import cli
from gm_jax.runner.run import Run, abstract_batch
from gm_jax.training import model_state

NAMES = sorted(presets.PRESETS)


def spec_of(preset):
    known = known_sets.KNOWN_SETS.get(preset.config.data.name)
    if known is not None and known.levels is None:
        return Spec(preset.config.data.name, preset.shape, None, known.num_classes, "")
    return Spec(preset.config.data.name, preset.shape, 2 if "binarized" in preset.config.data.name else 256, 10, "")


@functools.cache
def built(name):
    preset = presets.PRESETS[name]
    experiment = recipes.build(preset.config, spec_of(preset))
    batch = abstract_batch(spec_of(preset), 4)
    return experiment, batch, jax.eval_shape(experiment.model.init, jax.random.key(0), batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_as_many_as_the_preset_states(name):
    _, _, (params, _) = built(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == presets.PRESETS[name].parameters


def test_the_parameters_of_the_two_stages_of_ldm_8():
    """Both are those of the source without biases of the keys, which the softmax cancels."""
    _, _, (params, _) = built("latent_diffusion/ldm_8")
    networks = {**params["vae"], "diffusion": params["diffusion"]}
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(each)) for name, each in networks.items()}
    # Encoder and decoder with their 1 x 1 convolutions, and the attention of 512 channels of each.
    assert sizes["encoder"] == 34_163_592 + 72 - 512
    assert sizes["decoder"] == 49_490_179 + 20 - 512
    # 21 attentions: 5 of 192 channels, 10 of 384 and 6 of 768.
    assert sizes["diffusion"] == 294_966_916 - (5 * 192 + 10 * 384 + 6 * 768)


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_take_the_data(name):
    experiment, batch, (params, state) = built(name)
    seen = jax.eval_shape(
        functools.partial(model_state.local_view, sync=experiment.model.sync, batch_size=4, axis_name=None), state
    )
    for objective in experiment.model.objectives:
        loss, _ = jax.eval_shape(objective.loss, params, seen, jax.random.key(0), batch)
        assert loss.shape == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_configuration_of_its_experiment_within_its_ranges(name):
    preset, (experiment, short) = presets.PRESETS[name], name.split("/")
    module = importlib.import_module(f"experiments.{experiment}")
    saved.check(preset.config)
    assert type(preset.config) is type(module.CONFIG)
    assert presets.get(short, experiment) is preset is presets.get(name)
    assert configs.RECIPES[preset.config.recipe] is type(preset.config)
    config = saved.from_dict(type(preset.config), saved.to_dict(preset.config))
    assert config == preset.config
    verb, args = cli.parse(module.CONFIG, ["--preset", short], module=module)
    assert (verb, args.config) == ("train", preset.config)
    assert args.workdir.name == f"{experiment}-{preset.config.data.name.replace('/', '-')}"


def test_the_moments_of_the_papers_schedules():
    config: Any = presets.get("iwae/mnist").config
    rates = config.optimizer
    # yburda/iwae, experiments.py: round(10 ** (1 - (i - 1) / 7), 1) * 1e-4 for 3 ** (i - 1) epochs of 2,500 updates.
    written = [1e-4 * round(10.0 ** (1 - (i - 1) / 7), 1) for i in range(1, 9)]
    assert [rates.learning_rate * factor for factor in (1.0, *rates.factors)] == pytest.approx(written, rel=1e-12)
    ends = [2_500 * sum(3**j for j in range(i)) for i in range(1, 9)]
    assert [*rates.boundaries, config.train.steps] == ends


def test_flags_change_a_preset_and_the_results_say_so():
    module = importlib.import_module("experiments.ddpm")
    for argv in (
        ["--preset", "cifar10", "plan", "--train.batch-size", "64"],
        ["plan", "--preset=cifar10", "--train.batch-size", "64"],
    ):
        verb, args = cli.parse(module.CONFIG, [*argv, "--topology", "v5e:2x4"], module=module)
        assert (verb, args.config.network.groups, args.config.train.batch_size) == ("plan", 32, 64)
        assert presets.facts(args.config) == {
            "preset": "ddpm/cifar10",
            "published": "FID 3.17 (train split, EMA); at most 3.75 bits/dim",
            "departures": "train.batch_size=64",
        }
    preset = presets.get("ddpm/mnist")
    assert presets.facts(preset.config) == {"preset": "ddpm/mnist", "departures": "none"}
    # Where the run is kept, and on how many devices, changes nothing.
    assert presets.facts(updated(preset.config, {"data": {"dir": "/data"}}))["departures"] == "none"
    assert presets.facts(module.CONFIG) == {}


def test_a_preset_refuses_data_of_another_shape_in_one_message():
    config = presets.get("ddpm/cifar10").config
    with pytest.raises(UserError) as refused:
        recipes.build(config, Spec("mnist", (28, 28, 1), 256, 10, ""))
    assert str(refused.value) == (
        "the preset ddpm/cifar10 is for examples of 32 x 32 x 3, and those of mnist are 28 x 28 x 1: choose another "
        "--data.name or leave out --preset."
    )
    with pytest.raises(UserError, match=r"resize the images by --data\.size 32, or leave out"):
        recipes.build(config, Spec("folder:birds", (64, 64, 3), 256, None, ""))


@pytest.mark.parametrize(
    ("experiment", "argv", "message"),
    [
        ("ddpm", ["--preset", "cifa"], "there is no preset 'cifa': did you mean 'cifar10'"),
        ("ddpm", ["plan", "--preset", "mnst"], "did you mean 'mnist'"),
        ("ddpm", ["--preset"], "there is no preset ''"),
        ("vae", ["--preset", "mnist"], "vae has no presets; these have: "),
    ],
)
def test_an_unknown_preset_names_the_nearest(experiment, argv, message):
    module = importlib.import_module(f"experiments.{experiment}")
    with pytest.raises(UserError, match=message):
        cli.parse(module.CONFIG, argv, module=module)


def test_every_result_of_a_run_carries_its_preset():
    spec = Spec("mnist", (28, 28, 1), 256, 10, "", cut="validation: last 1/6 of train")
    config = updated(presets.get("iwae/mnist").config, {"num_samples": 5, "train": {"steps": 100}})
    nothing: Any = None
    run = Run(config, spec, None, nothing, nothing, nothing)
    assert run.facts == {
        "splits": "validation: last 1/6 of train",
        "preset": "iwae/mnist",
        "published": "84.78 nats (bound of 5,000 samples, dynamic binarisation)",
        "departures": "train.steps=100, num_samples=5",
    }
