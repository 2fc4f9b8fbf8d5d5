"""A run opens from its folder alone: by Python, and if an older version made it."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import pytest

from experiments import iwae, vae
from gm_jax import runner
from gm_jax.config import Added, OptimizerConfig, Rate
from gm_jax.config.saved import updated
from gm_jax.errors import UserError
from gm_jax.recipes import configs
from gm_jax.runner.folder import changes_of_settings, record_versions
from gm_jax.runner.run import reopen

FIRST_FORMAT = Path(__file__).parent / "data" / "legacy_vae"  # made by commit 7629ed0


@pytest.fixture
def legacy_configs(tmp_path) -> Path:
    """A copy of a run of the first format: 20 steps of a tiny VAE."""
    return Path(shutil.copytree(FIRST_FORMAT, tmp_path / "run"))


def test_a_folder_gives_configuration_experiment_data_and_state(whole):
    run = reopen(str(whole))
    assert run.config.hidden == (16,)
    assert (run.spec.name, run.spec.shape) == ("digits", (8, 8, 1))
    assert len(run.loaded["train"]["x"]) == 1437
    state, step = run.restore("latest")
    assert (step, int(state.step)) == (60, 60)
    x = run.experiment.model.sample(state.eval_params, state.model_state, jax.random.key(0), 5)
    assert x.shape == (5, 8, 8, 1)


def test_a_folder_opens_without_its_data_and_with_changes_that_only_measure(whole):
    run = reopen(whole, with_data=False, changes={"importance_samples": 7})
    assert run.config.importance_samples == 7
    assert run.splits is None
    with pytest.raises(ValueError, match="with_data=True"):
        run.initial_state()


def test_config_json_names_the_recipe(whole):
    assert json.loads((whole / "config.json").read_text())["recipe"] == "gm_jax.recipes.vae:build_vae"


def test_a_recipe_outside_gm_jax_is_imported_only_for_a_given_configuration(finished):
    saved = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps({**saved, "recipe": "os:abort"}))
    with pytest.raises(UserError, match="os:abort, which is not in gm_jax: give its config_type"):
        runner.open_run(finished)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(configs.VAEConfig):
        recipe = "gm_jax.recipes.vae:build_vae"

    with pytest.raises(UserError, match="another experiment: open it with"):
        runner.open_run(finished, config_type=Mine)


def test_a_run_of_the_legacy_configs_is_evaluated_as_it_was(legacy_configs, command):
    before = json.loads((legacy_configs / "results.json").read_text())
    (legacy_configs / "results.json").unlink()
    ended = command("evaluate", "--workdir", legacy_configs)
    assert ended.code == 0, ended.err
    after = json.loads((legacy_configs / "results.json").read_text())
    for now, then in zip(after, before, strict=True):
        assert (now["name"], now["unit"], now["kind"]) == (then["name"], then["unit"], then["kind"])
        np.testing.assert_allclose(now["value"], then["value"], rtol=1e-5)
    assert command("evaluate", "--workdir", legacy_configs, experiment=iwae).code == 2


def test_a_run_of_the_legacy_configs_is_sampled_from(legacy_configs, command):
    assert command("sample", "--workdir", legacy_configs, "--num", 6).code == 0
    assert np.load(legacy_configs / "samples-seed0.npy").shape == (6, 8, 8, 1)


def test_a_run_of_the_legacy_configs_resumes_and_is_saved_in_todays_format(legacy_configs, command):
    old = json.loads((legacy_configs / "config.json").read_text())["config"]
    flags = (
        *("--hidden", "4", "--latent-dim", "2", "--importance-samples", "3", "--validation-samples", "2"),
        *("--train.batch-size", "32", "--train.steps-per-call", "2", "--train.log-every", "10"),
        *("--train.checkpoint-every", "10", "--train.patience", "0", "--train.keep-checkpoints", "1"),
        *("--optimizer.schedule", "constant", "--optimizer.warmup-steps", "5", "--train.steps", "30"),
    )
    ended = command("--workdir", legacy_configs, *flags)
    assert ended.code == 0, ended.err
    assert "resuming from step 20 of 30" in ended.out
    now = json.loads((legacy_configs / "config.json").read_text())
    assert now["recipe"] == vae.CONFIG.recipe
    adam = {"algorithm": "adam", "b1": 0.9, "b2": 0.999, "decay_rate": 1.0, "boundaries": [], "factors": [], "l2": 0.0}
    average = {"ema_halflife": 0.0, "ema_warmup": "ratio"}
    added = {
        "optimizer": adam,
        "data": {"size": None, "flip": False},
        "train": {"steps": 30, "tracker": "tensorboard", **average},
    }
    sections = {name: {**old[name], **fields} for name, fields in added.items()}
    assert now["config"] == {**old, **sections, "conditional": False}
    assert runner.open_run(legacy_configs).config == updated(
        runner.open_run(FIRST_FORMAT).config, {"train": {"steps": 30}}
    )


def edited(folder, change):
    saved = json.loads((folder / "config.json").read_text())
    change(saved["config"])
    (folder / "config.json").write_text(json.dumps(saved))


@pytest.mark.parametrize(
    ("versions", "shown"),
    [
        ([{"git": "0" * 40, "packages": {"gm_jax": "0.1"}}, {"git": "1" * 40, "packages": {"gm_jax": "0.2"}}], None),
        ([{"git": "1" * 40 + "+changes", "packages": {}}], f"commit {'1' * 40} and changes that are not in it."),
        ([{"git": None, "packages": {"gm_jax": "0.2"}}], "gm_jax 0.2."),
        *((damage, "the version that versions.json in the run's folder names.") for damage in ([], {}, [5], "x", [{}])),
    ],
)
def test_fields_of_another_version_are_named_with_the_commit(versions, shown, finished, command, tiny):
    def change(config):
        del config["optimizer"]["eps"]
        config["train"]["rate"] = 3

    edited(finished, change)
    (finished / "versions.json").write_text(json.dumps(versions))
    for arguments in (("evaluate",), ("sample",), tiny):
        ended = command(*arguments, "--workdir", finished)
        assert ended.code == 2
        assert ended.err == (
            "error: the saved configuration is of another version of gm_jax: train.rate is unknown, optimizer.eps is "
            f"missing\nOpen the run with {shown or f'commit {chr(49) * 40} (gm_jax 0.2).'}\n"
        )


def test_a_run_outlives_a_field_that_is_younger(finished, command, tiny, monkeypatch, state_hash, caplog):
    monkeypatch.setitem(OptimizerConfig.__annotations__, "eps", Annotated[Rate, Added(before=1e-8)])
    before = state_hash(finished)
    edited(finished, lambda config: config["optimizer"].pop("eps"))
    assert runner.open_run(finished).config.optimizer.eps == 1e-8
    assert "is older than some settings" not in caplog.text  # the default is what it was
    with monkeypatch.context() as patch:
        patch.setattr(OptimizerConfig.__dataclass_fields__["eps"], "default", 1e-7)
        assert runner.open_run(finished).config.optimizer.eps == 1e-8
        assert "is older than some settings; as then: optimizer.eps: 1e-08" in caplog.text
    refused = command(*tiny, "--optimizer.eps", "1e-7", "--workdir", finished)
    assert "optimizer.eps: 1e-08 (saved) != 1e-07" in refused.err
    assert command(*tiny, "--workdir", finished).code == 0
    assert json.loads((finished / "config.json").read_text())["config"]["optimizer"]["eps"] == 1e-8
    assert state_hash(finished) == before


def test_a_change_of_jax_settings_between_two_starts_is_reported(tmp_path, caplog):
    path = tmp_path / "versions.json"
    for _ in range(2):
        record_versions(path, {})
        assert "at the last start" not in caplog.text
    entries = json.loads(path.read_text())
    assert entries[-1]["jax_settings"]["jax_enable_x64"] is False
    entries[-1]["jax_settings"]["jax_default_prng_impl"] = "rbg"
    path.write_text(json.dumps(entries))
    record_versions(path, {})
    assert "jax_default_prng_impl was 'rbg' at the last start and is 'threefry2x32'" in caplog.text


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("hardware", "cores", 1000),
        ("hardware", "processor", "Z80"),
        ("hardware", "instructions", "0" * 16),
        ("hardware", "device_kind", "NVIDIA H100"),
        ("packages", "jaxlib", "0.0.1"),
    ],
)
def test_a_run_that_goes_on_on_other_hardware_is_told_in_one_line(part, name, value, tmp_path, caplog):
    path = tmp_path / "versions.json"
    record_versions(path, {})
    (entry,) = json.loads(path.read_text())
    now = entry[part][name]
    entry[part][name] = value
    path.write_text(json.dumps([entry]))
    record_versions(path, {})
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"{name} was {value!r} at the last start and is {now!r}: the result can differ"
    )


@pytest.mark.parametrize("before", [5, {}, {"jax_settings": None}, {"jax_settings": {"jax_new": 1}}])
def test_an_entry_without_settings_is_no_change(before):
    now = {"jax_settings": {"jax_enable_x64": False}, "xla_flags": None}
    assert changes_of_settings(before, now) == []


def test_a_run_opens_below_the_home_folder(whole, monkeypatch):
    monkeypatch.setenv("HOME", str(whole.parent))
    assert runner.open_run(f"~/{whole.name}").folder == whole
