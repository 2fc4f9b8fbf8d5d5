"""Saved configurations of the first format become today's, or are refused with what to do.

data/legacy_configs.json holds the default configuration of every experiment as commit 7629ed0 saved it.
"""

import copy
import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from gm_jax.config import AdamConfig
from gm_jax.config.saved import Saved, from_dict, to_dict, with_added_fields
from gm_jax.errors import UserError
from gm_jax.recipes import configs, legacy_configs
from gm_jax.recipes.run_length import resolved

FIRST = json.loads((Path(__file__).parent / "data" / "legacy_configs.json").read_text())
IMAGES, POINTS = {"shape": [8, 8, 1]}, {"shape": [2]}


def converted(name, data=IMAGES, **changes):
    values = copy.deepcopy(FIRST[name])
    for path, value in changes.items():
        *sections, field = path.split("__")
        section = values
        for part in sections:
            section = section[part]
        section[field] = value
    saved = legacy_configs.converted(Saved(f"experiments.{name}", values, data))
    config_type = configs.RECIPES[saved.recipe]
    return from_dict(config_type, with_added_fields(config_type, saved.config)[0])


@pytest.mark.parametrize("name", sorted(FIRST))
def test_the_defaults_of_an_experiment_become_its_defaults_today(name):
    today = resolved(importlib.import_module(f"experiments.{name}").CONFIG)
    if name == "vae":  # has trained for fewer steps since then
        today = dataclasses.replace(today, train=dataclasses.replace(today.train, steps=20_000))
    assert converted(name) == today


def test_the_sampler_and_the_network_of_a_diffusion_model_become_sections():
    config = converted("ddpm", sampler="ddim", sampling_steps=7, eta=0.5, features=[8], attention=[], dropout=0.2)
    assert config.sampler == configs.SamplerConfig(method="ddim", steps=7, eta=0.5)
    assert config.network == configs.UNetConfig(features=(8,), attention=(), dropout=0.2)
    config = converted("ddpm", POINTS, hidden=16, blocks=3)
    assert config.network == configs.MLPConfig(hidden=16, blocks=3)
    assert converted("ddpm", POINTS).network is None


def test_latent_diffusion_keeps_the_network_that_it_trained():
    config = converted("latent_diffusion", depth=2, hidden=9, features=[4], blocks=7, autoencoder__hidden=[5])
    assert config.network == configs.MLPConfig(hidden=9, blocks=2, dropout=0.1)
    assert config.autoencoder == dataclasses.replace(
        configs.AutoencoderConfig(), hidden=(5,), steps=4_000, optimizer=AdamConfig(warmup_steps=100)
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gan", {"generator__weight_decay": 0.1}, "--generator.weight-decay 0.1, which no longer exists"),
        ("latent_diffusion", {"autoencoder__dtype": "bfloat16"}, "--autoencoder.dtype bfloat16"),
        ("latent_diffusion", {"autoencoder__optimizer__eps": 1e-4}, "--autoencoder.optimizer.eps 0.0001"),
        ("gan", {"generator": None}, "configuration of experiments.gan is damaged"),
    ],
)
def test_a_field_that_no_longer_exists_must_have_had_its_default(name, changes, message):
    with pytest.raises(UserError, match=message):
        converted(name, **changes)


def test_an_experiment_outside_gm_jax_is_refused():
    with pytest.raises(UserError, match=r"mine\.ebm, which is not an experiment of gm_jax"):
        legacy_configs.converted(Saved("mine.ebm", {}, IMAGES))


def test_todays_format_passes_through():
    saved = Saved(configs.VAEConfig.recipe, to_dict(converted("vae")), IMAGES)
    assert legacy_configs.converted(saved) is saved
