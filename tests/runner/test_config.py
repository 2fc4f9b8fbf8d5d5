"""Configurations: held to their ranges, saved and read back as they were, compared where it matters."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments import beta_vae, iwae, vae
from gm_jax.errors import UserError
from gm_jax.runner import config as config_lib
from gm_jax.runner.config import Count, DataConfig, Neutral, OptimizerConfig, Rate, TrainConfig, Widths

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


def with_train(config, **changes):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def with_optimizer(config, **changes):
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **changes))


@pytest.mark.parametrize("config_type", [vae.Config, beta_vae.Config, iwae.Config, Config])
def test_the_defaults_are_within_their_ranges_and_survive_the_file(config_type, tmp_path):
    config = config_type()
    config_lib.check(config)
    path = tmp_path / "config.json"
    config_lib.save(path, "experiments.some", config, data={"name": "digits"})
    saved = config_lib.load(path)
    assert (saved.experiment, saved.data) == ("experiments.some", {"name": "digits"})
    assert config_lib.from_dict(config_type, saved.config) == config
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
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(config, message):
    with pytest.raises(UserError, match=message):
        config_lib.check(config)


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        ({"hidden": "ab"}, "hidden"),
        ({"hidden": [1.5]}, "hidden"),
        ({"kind": "c"}, "kind"),
        ({"name": 3}, "name"),
        ({"shift": None}, "shift"),
        ({"train": 5}, "train"),
        ({"new": 5}, "new"),
    ],
)
def test_a_saved_configuration_of_another_version_is_refused_by_field(change, odd):
    values = config_lib.to_dict(Config()) | change
    with pytest.raises(UserError, match=f"another version of this experiment: {odd}$"):
        config_lib.from_dict(Config, values)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "5", '"text"', "\xff", '{"experiment": "e"}'),
        '{"experiment": 1, "config": {}, "data": {}}',
        '{"experiment": "e", "config": {}, "data": ""}',
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json is not a run's configuration, or is damaged"):
        config_lib.load(tmp_path / "config.json")


def test_a_difference_is_shown_with_both_values_and_neutral_fields_do_not_matter():
    saved = config_lib.to_dict(Config())
    neutral = with_train(Config(where="/there", data=DataConfig(dir="/elsewhere")), keep_checkpoints=9)
    assert config_lib.differences(neutral, saved) == []
    changed = with_train(Config(hidden=(4,), rate=1.0), batch_size=64)
    assert config_lib.differences(changed, saved) == [
        "train.batch_size: 128 (saved) != 64",
        "hidden: [8, 8] (saved) != (4,)",
        "rate: None (saved) != 1.0",
    ]


def test_fields_that_are_gone_or_new_are_differences():
    saved = config_lib.to_dict(Config())
    saved["old"] = 1
    del saved["train"]["seed"]
    assert config_lib.differences(Config(), saved) == [
        "train.seed: None (saved) != 0",
        "old: 1 (saved) is no field of this version",
    ]
    assert config_lib.differences(Config(), {**config_lib.to_dict(Config()), "optimizer": 3})


@dataclasses.dataclass(frozen=True)
class Measured(Config):
    samples: Annotated[Count, config_lib.Measuring] = 5
    sampler: Annotated[str, config_lib.Sampling] = "ancestral"


def test_a_field_that_measures_is_known_with_its_range_and_is_part_of_the_run():
    assert config_lib.measuring_fields(Config) == {}
    fields = config_lib.measuring_fields(Measured)
    assert fields == {
        "samples": Annotated[Count, config_lib.Measuring],
        "sampler": Annotated[str, config_lib.Sampling],
    }
    assert list(config_lib.sampling_fields(Measured)) == ["sampler"]
    assert config_lib.given(SimpleNamespace(samples=None, sampler="ddim", seed=3), fields) == {"sampler": "ddim"}
    with pytest.raises(UserError, match="samples must be at least 1, got 0"):
        config_lib.check(Measured(samples=0))
    assert config_lib.differences(Measured(samples=6), config_lib.to_dict(Measured())) == ["samples: 5 (saved) != 6"]


@dataclasses.dataclass(frozen=True)
class TwoPlayers:
    generator: OptimizerConfig = CONSTANT
    discriminator: OptimizerConfig = CONSTANT


def test_steps_depend_on_their_number_where_any_schedule_does():
    assert config_lib.steps_are_independent_of_their_number(Config())
    assert not config_lib.steps_are_independent_of_their_number(Config(optimizer=COSINE))
    assert config_lib.steps_are_independent_of_their_number(TwoPlayers())
    assert not config_lib.steps_are_independent_of_their_number(TwoPlayers(discriminator=COSINE))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_optimizer_follows_its_configuration(schedule):
    optimizer = config_lib.make_optimizer(
        OptimizerConfig(learning_rate=0.1, schedule=schedule, accumulate_steps=2), TrainConfig(steps=8)
    )
    params, state, path = jnp.zeros(()), None, []
    state = optimizer.init(params)
    for _ in range(8):
        update, state = optimizer.update(jnp.ones(()), state, params)
        path.append(-float(update))
    # Adam's update of a constant gradient is the learning rate itself; every other step waits.
    rates = [0.1] * 4 if schedule == "constant" else [0.05 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    np.testing.assert_allclose(path, [rate for pair in zip([0.0] * 4, rates, strict=True) for rate in pair], rtol=1e-4)


def test_a_warm_up_that_leaves_nothing_is_an_error():
    with pytest.raises(UserError, match="warm-up takes 4 of 4 updates"):
        config_lib.make_optimizer(
            OptimizerConfig(schedule="cosine", warmup_steps=4, accumulate_steps=2), TrainConfig(steps=8)
        )


def test_a_count_is_an_annotated_int_that_the_command_line_can_read():
    assert tyro.cli(Config, args=["--hidden", "1", "2", "--rate", "0.5", "--train.steps", "7"]).hidden == (1, 2)
    assert Count.__metadata__[0].text == "at least 1"
