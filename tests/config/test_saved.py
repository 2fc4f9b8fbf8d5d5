"""Configurations: checked against their ranges, saved and read back unchanged, compared in what matters."""

import dataclasses
import functools
import importlib
import json
import pathlib
import re
import typing
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
import tyro

from experiments import beta_vae, ddpm, vae
from gm_jax.config import (
    Added,
    Count,
    DataConfig,
    Measuring,
    Neutral,
    OptimizerConfig,
    Rate,
    Sampling,
    TrainConfig,
    Widths,
)
from gm_jax.config import saved as config_lib
from gm_jax.errors import UserError
from gm_jax.recipes import configs

DATA, TRAIN, CONSTANT, COSINE = DataConfig(), TrainConfig(), OptimizerConfig(), OptimizerConfig(schedule="cosine")


@dataclasses.dataclass(frozen=True)
class Config:
    data: DataConfig = DATA
    train: TrainConfig = TRAIN
    optimizer: OptimizerConfig = CONSTANT
    hidden: Widths = (8, 8)
    rate: Rate | None = None
    kind: Literal["a", "b"] | None = None
    name: str | None = None
    shift: float = -1.0
    where: Annotated[str | None, Neutral] = None


UNET = dataclasses.replace(ddpm.CONFIG, network=configs.UNetConfig(features=(8,)))
MLP = dataclasses.replace(ddpm.CONFIG, network=configs.MLPConfig(hidden=3))


def with_train(config, **changes):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def with_optimizer(config, **changes):
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **changes))


@pytest.mark.parametrize("config", [vae.CONFIG, beta_vae.CONFIG, ddpm.CONFIG, UNET, MLP, Config()])
def test_a_configuration_is_within_its_ranges_and_survives_the_file(config, tmp_path):
    config_lib.check(config)
    path = tmp_path / "config.json"
    config_lib.save(path, "some.recipe:build", config, data={"name": "digits"})
    saved = config_lib.load(path)
    assert (saved.recipe, saved.data) == ("some.recipe:build", {"name": "digits"})
    assert config_lib.from_dict(type(config), saved.config) == config
    assert config_lib.differences(config, saved.config) == []
    assert [child.name for child in tmp_path.iterdir()] == ["config.json"]


def test_every_kind_of_field_survives_the_file(tmp_path):
    config = Config(hidden=(3,), rate=0.5, kind="b", name="x", shift=2)
    config = with_optimizer(config, clip_norm=1.0)
    read = config_lib.from_dict(Config, json.loads(json.dumps(config_lib.to_dict(config))))
    assert read == config
    assert isinstance(read.hidden, tuple)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_train(Config(), steps=0), "train.steps must be at least 1, got 0"),
        (with_train(Config(), batch_size=-1), "train.batch_size must be at least 1, got -1"),
        (with_train(Config(), patience=-1), "train.patience must be at least 0, got -1"),
        (with_train(Config(), seed=-1), r"train.seed must be at least 0 and less than 2\*\*32, got -1"),
        (with_train(Config(), seed=2**32), r"train.seed must be .* less than 2\*\*32"),
        (with_train(Config(), ema_decay=1.0), "train.ema_decay must be at least 0 and less than 1, got 1.0"),
        (with_train(Config(), keep_checkpoints=0), "train.keep_checkpoints must be at least 1"),
        (with_optimizer(Config(), learning_rate=0.0), "optimizer.learning_rate must be more than 0, got 0.0"),
        (with_optimizer(Config(), learning_rate=float("nan")), "optimizer.learning_rate must be more than 0, got nan"),
        (with_optimizer(Config(), clip_norm=-1.0), "optimizer.clip_norm must be more than 0"),
        (with_optimizer(Config(), accumulate_steps=0), "optimizer.accumulate_steps must be at least 1"),
        (with_optimizer(Config(), weight_decay=-0.1), "optimizer.weight_decay must be at least 0"),
        (Config(hidden=()), r"hidden must be at least one number, got \(\)"),
        (Config(hidden=(8, 0)), "hidden must be at least 1, got 0"),
        (Config(rate=-2.0), "rate must be more than 0, got -2.0"),
        (Config(rate=float("inf")), "rate must be finite, got inf"),
        (Config(shift=float("nan")), "shift must be finite, got nan"),
        (Config(shift=float("-inf")), "shift must be finite, got -inf"),
        (with_optimizer(Config(), weight_decay=float("inf")), "optimizer.weight_decay must be finite, got inf"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(config, message):
    with pytest.raises(UserError, match=message):
        config_lib.check(config)


def float_fields(config, prefix=()):
    """Yields the path of every field that can hold a float, also in sections."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from float_fields(value, (*prefix, field.name))
        elif float in (hints[field.name], *typing.get_args(hints[field.name])):
            yield (*prefix, field.name)


def changed(config, path, value):
    """Returns a configuration with another value of a field; of a tuple, with that value alone in it."""
    if isinstance(functools.reduce(getattr, path, config), tuple):
        value = (value,)
    for name in reversed(path):
        value = {name: value}
    return config_lib.updated(config, value)


EXPERIMENTS = sorted(path.stem for path in pathlib.Path(vae.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_float_of_any_experiment_can_be_infinite_or_nan(name, value):
    config = importlib.import_module(f"experiments.{name}").CONFIG
    if name.startswith("ddpm"):
        config = dataclasses.replace(config, network=configs.UNetConfig())
    paths = list(float_fields(config))
    assert len(paths) >= 2
    for path in paths:
        with pytest.raises(UserError, match=rf"{re.escape('.'.join(path))} must be .*, got {value}"):
            config_lib.check(changed(config, path, float(value)))


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ddpm", ("network", "dropout")),
        ("ddpm_conditional", ("network", "dropout")),
        ("ddpm_conditional", ("drop_label",)),
        ("latent_diffusion", ("network", "dropout")),
        ("improved_gan", ("label_smoothing",)),
        ("gan", ("generator", "b1")),
    ],
)
def test_a_share_of_one_or_more_is_refused(name, path, rate):
    config = importlib.import_module(f"experiments.{name}").CONFIG
    for network in (configs.UNetConfig(), configs.MLPConfig()):
        if name.startswith("ddpm"):
            config = dataclasses.replace(config, network=network)
        with pytest.raises(UserError, match=f"{path[-1]} must be at least 0 and less than 1, got {rate}"):
            config_lib.check(changed(config, path, rate))


@pytest.mark.parametrize(
    ("autoencoder", "network"),
    [
        (configs.AutoencoderConfig(), configs.MLPConfig(hidden=8)),
        (configs.SpatialAutoencoderConfig(channels=3), configs.UNetConfig(features=(8,))),
        (configs.SpatialAutoencoderConfig(), configs.DiTConfig(layers=2)),
    ],
)
def test_the_kinds_of_both_stages_survive_the_file_and_younger_fields(autoencoder, network):
    own = importlib.import_module("experiments.latent_diffusion").CONFIG
    config = dataclasses.replace(own, autoencoder=autoencoder, network=network)
    values = config_lib.to_dict(config)
    assert config_lib.from_dict(type(config), values) == config
    # As a run saved it that has neither presets, nor the last beta, nor blocks that are computed again.
    for name in ("preset", "beta_max"):
        del values[name]
    values["autoencoder"].pop("remat", None)
    completed, lines = config_lib.with_added_fields(type(config), values)
    assert config_lib.from_dict(type(config), completed) == config
    assert lines == []


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        ({"hidden": "ab"}, 'hidden cannot be "ab"'),
        ({"hidden": [1.5]}, "hidden cannot be [1.5]"),
        ({"kind": "c"}, 'kind cannot be "c"'),
        ({"name": 3}, "name cannot be 3"),
        ({"shift": None}, "shift cannot be null"),
        ({"train": 5}, "train cannot be 5"),
        ({"new": 5}, "new is unknown"),
        ({"optimizer": {"eps": 1e-8}}, "optimizer.algorithm is missing, optimizer.learning_rate is missing"),
        (
            {"data": {"name": "digits", "dir": None, "size": None, "flip": False, "old": 1}, "new": 5},
            "data.old is unknown, new is unknown",
        ),
    ],
)
def test_a_saved_configuration_of_another_version_is_refused_by_full_names(change, odd):
    values = config_lib.to_dict(Config()) | change
    with pytest.raises(UserError, match=re.escape(f"another version of gm_jax: {odd}")):
        config_lib.from_dict(Config, values)
    with pytest.raises(UserError, match=r"\nOpen the run with commit abc\.$"):
        config_lib.from_dict(Config, values, made_by="commit abc")


@dataclasses.dataclass(frozen=True)
class YoungSection:
    rate: Rate = 0.1
    young: Annotated[Widths | None, Added(before=(3, 4))] = None


@dataclasses.dataclass(frozen=True)
class Young(Config):
    section: Annotated[YoungSection | None, Neutral] = YoungSection()
    youngest: Annotated[bool, Added(before=False)] = True
    same: Annotated[int | None, Added(before=None)] = None


def test_a_run_without_a_younger_field_gets_what_was_computed_before_it():
    values = config_lib.to_dict(Young())
    del values["youngest"], values["section"]["young"], values["same"]
    completed, lines = config_lib.with_added_fields(Young, values)
    assert config_lib.from_dict(Young, completed) == Young(section=YoungSection(young=(3, 4)), youngest=False)
    assert lines == ["section.young: (3, 4)", "youngest: False"]  # today's default of the third is as before
    assert "youngest" not in values
    assert "young" not in values["section"]
    assert config_lib.with_added_fields(Young, {"rate": {}, "section": 5})[0]["rate"] == {}
    for saved in (Young(), Young(section=None)):
        assert config_lib.with_added_fields(Young, config_lib.to_dict(saved)) == (config_lib.to_dict(saved), [])


def test_an_older_field_is_not_guessed():
    values = config_lib.to_dict(Young())
    del values["section"]["rate"]
    with pytest.raises(UserError, match=r"section\.rate is missing"):
        config_lib.from_dict(Young, config_lib.with_added_fields(Young, values)[0])


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "5", '"text"', "\xff", '{"recipe": "e"}', '{"experiment": "e"}'),
        '{"experiment": 1, "config": {}, "data": {}}',
        '{"experiment": "e", "config": {}, "data": ""}',
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json is damaged or is not a run's configuration"):
        config_lib.load(tmp_path / "config.json")


def test_a_difference_shows_both_values_and_skips_neutral_fields():
    saved = config_lib.to_dict(Config())
    neutral = with_train(Config(where="/there", data=DataConfig(dir="/elsewhere")), keep_checkpoints=9)
    assert config_lib.differences(neutral, saved) == []
    changed = with_train(Config(hidden=(4,), rate=1.0), batch_size=64)
    assert config_lib.differences(changed, saved) == [
        "train.batch_size: 128 (saved) != 64",
        "hidden: [8, 8] (saved) != (4,)",
        "rate: None (saved) != 1.0",
    ]


def test_removed_and_new_fields_are_differences():
    saved = config_lib.to_dict(Config())
    saved["old"] = 1
    del saved["train"]["seed"]
    assert config_lib.differences(Config(), saved) == [
        "train.seed: missing (saved) != 0",
        "old: 1 (saved) does not exist in this version",
    ]
    assert config_lib.differences(Config(), {**config_lib.to_dict(Config()), "optimizer": 3})


@dataclasses.dataclass(frozen=True)
class Measured(Config):
    samples: Annotated[Count, Measuring] = 5
    sampler: Annotated[str, Sampling] = "ancestral"


def test_a_measuring_field_has_its_range_and_is_part_of_the_run():
    assert config_lib.measuring_fields(Config) == {}
    fields = config_lib.measuring_fields(Measured)
    assert fields == {
        "samples": Annotated[Count, Measuring],
        "sampler": Annotated[str, Sampling],
    }
    assert list(config_lib.sampling_fields(Measured)) == ["sampler"]
    assert config_lib.given(SimpleNamespace(samples=None, sampler="ddim", seed=3), fields) == {"sampler": "ddim"}
    with pytest.raises(UserError, match="samples must be at least 1, got 0"):
        config_lib.check(Measured(samples=0))
    assert config_lib.differences(Measured(samples=6), config_lib.to_dict(Measured())) == ["samples: 5 (saved) != 6"]


def test_a_section_is_read_back_as_the_kind_that_was_saved():
    for config in (UNET, MLP):
        read = config_lib.from_dict(type(config), config_lib.to_dict(config))
        assert type(read.network) is type(config.network)
    assert config_lib.differences(MLP, config_lib.to_dict(ddpm.CONFIG)) == [
        "network.hidden: missing (saved) != 3",
        "network.blocks: missing (saved) != 1",
        "network.dropout: missing (saved) != 0.0",
        "network.dtype: missing (saved) != 'float32'",
    ]


def test_fields_of_a_section_are_marked_given_and_updated_within_it():
    fields = config_lib.sampling_fields(type(ddpm.CONFIG))
    assert list(fields) == ["sampler"]
    assert list(fields["sampler"]) == ["method", "steps", "variance", "eta"]
    args = SimpleNamespace(sampler=SimpleNamespace(method=None, steps=5, variance=None, eta=None))
    changes = config_lib.given(args, fields)
    assert changes == {"sampler": {"steps": 5}}
    updated = config_lib.updated(ddpm.CONFIG, changes)
    assert updated == dataclasses.replace(ddpm.CONFIG, sampler=configs.SamplerConfig(steps=5))
    with pytest.raises(UserError, match="SamplerConfig has no field 'step': use one of method, steps"):
        config_lib.updated(ddpm.CONFIG, {"sampler": {"step": 5}})


@dataclasses.dataclass(frozen=True)
class TwoPlayers:
    generator: OptimizerConfig = CONSTANT
    discriminator: OptimizerConfig = CONSTANT


def test_the_first_steps_depend_on_their_number_if_any_schedule_does():
    assert config_lib.first_steps_do_not_depend_on_their_number(Config())
    assert not config_lib.first_steps_do_not_depend_on_their_number(Config(optimizer=COSINE))
    for schedule, free in {"linear": False, "exponential": True, "steps": True}.items():
        config = Config(optimizer=OptimizerConfig(schedule=schedule))
        assert config_lib.first_steps_do_not_depend_on_their_number(config) == free
    assert config_lib.first_steps_do_not_depend_on_their_number(TwoPlayers())
    assert not config_lib.first_steps_do_not_depend_on_their_number(TwoPlayers(discriminator=COSINE))


def test_a_count_is_an_annotated_int_that_the_command_line_can_read():
    assert tyro.cli(Config, args=["--hidden", "1", "2", "--rate", "0.5", "--train.steps", "7"]).hidden == (1, 2)
    assert Count.__metadata__[0].text == "at least 1"
