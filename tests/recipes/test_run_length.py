"""Defaults that depend on the length of a run leave usual runs as they were, and let short ones train."""

import importlib
import pathlib

import pytest

import experiments
from gm_jax import recipes
from gm_jax.config import AdamConfig, OptimizerConfig
from gm_jax.config.saved import updated
from gm_jax.data.sources import Spec
from gm_jax.recipes.configs import SpatialAutoencoderConfig
from gm_jax.recipes.run_length import resolved, warmup_steps

DIGITS = Spec("digits", (8, 8, 1), 17, 10, "")
CAPTIONS = Spec("captions", (32, 32, 3), 256, None, "", tokens=12, vocabulary=35)
EXPERIMENTS = sorted(path.stem for path in pathlib.Path(experiments.__path__[0]).glob("[a-z]*.py"))


def config_of(name, **train):
    return updated(importlib.import_module(f"experiments.{name}").CONFIG, {"train": train})


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("steps", [5, 50, 100, 101])
def test_a_run_of_a_few_steps_is_built_without_further_flags(name, steps):
    config = config_of(name, steps=steps)
    recipes.build(config, CAPTIONS if config.data.name == "captions" else DIGITS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_of_usual_length_warms_up_as_it_always_did(name):
    config = resolved(config_of(name))
    assert resolved(config) == config
    if isinstance(getattr(config, "optimizer", None), OptimizerConfig):
        assert config.optimizer.warmup_steps == 100
    if name == "latent_diffusion":
        assert (config.autoencoder.steps, config.autoencoder.optimizer.warmup_steps) == (4_000, 100)


@pytest.mark.parametrize(
    ("name", "steps", "first"),
    [
        ("latent_diffusion", 12_000, 4_000),
        ("latent_diffusion", 3_000, 1_000),
        ("latent_diffusion", 4_001, 1_333),
        ("latent_diffusion", 50_000, 4_000),
        ("text_to_image", 28_000, 12_000),
        ("text_to_image", 12_001, 5_143),
        ("vq_vae", 2, 1),
    ],
)
def test_a_longer_run_never_has_a_shorter_second_stage(name, steps, first):
    config = resolved(config_of(name, steps=steps))
    assert config.autoencoder.steps == first
    longer = resolved(config_of(name, steps=steps + 1))
    assert steps - first <= steps + 1 - longer.autoencoder.steps


@pytest.mark.parametrize(
    ("optimizer", "num_updates", "expected"),
    [
        (OptimizerConfig(schedule="cosine", warmup_steps=None), 101, 100),
        (OptimizerConfig(schedule="cosine", warmup_steps=None), 200, 100),
        (OptimizerConfig(schedule="cosine", warmup_steps=None), 100, 10),
        (OptimizerConfig(schedule="cosine", warmup_steps=None), 9, 0),
        (OptimizerConfig(schedule="constant", warmup_steps=None), 9, 100),  # it may be resumed with more steps
        (OptimizerConfig(schedule="cosine"), 50, 0),
        (AdamConfig(warmup_steps=7), 50, 7),
        (AdamConfig(warmup_steps=None), 50, 5),
    ],
)
def test_a_default_warm_up_leaves_most_of_a_cosine(optimizer, num_updates, expected):
    assert warmup_steps(optimizer, num_updates=num_updates) == expected


def test_the_first_stage_of_each_kind_of_autoencoder_has_its_own_share():
    config = updated(config_of("latent_diffusion", steps=70_000), {"autoencoder": SpatialAutoencoderConfig()})
    assert resolved(config).autoencoder.steps == 12_000
    assert resolved(config).autoencoder.optimizer.warmup_steps == 100
    short = updated(config, {"train": {"steps": 700}})
    assert resolved(short).autoencoder.steps == 300


def test_accumulation_counts_updates_and_not_steps():
    config = updated(config_of("vae", steps=400), {"optimizer": {"accumulate_steps": 8}})
    assert resolved(config).optimizer.warmup_steps == 5


def test_the_first_stage_is_a_third_of_a_short_run():
    short = resolved(config_of("latent_diffusion", steps=300))
    assert short.autoencoder.steps == 100
    assert short.autoencoder.optimizer.warmup_steps == 10
    assert short.optimizer.warmup_steps == 100  # 200 updates, as the 200 steps of other experiments
    given = updated(config_of("latent_diffusion", steps=300), {"autoencoder": {"steps": 20}})
    assert resolved(given).autoencoder.steps == 20


def test_a_configuration_without_these_sections_stays_the_same():
    config = config_of("gan")
    assert resolved(config) == config
