"""A run opens from its folder alone: by Python, and if an older version made it."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import iwae, vae
from gm_jax import runner
from gm_jax.config.saved import updated
from gm_jax.errors import UserError
from gm_jax.recipes import configs

FIRST_FORMAT = Path(__file__).parent / "data" / "legacy_vae"  # made by commit 7629ed0


@pytest.fixture
def legacy_configs(tmp_path) -> Path:
    """A copy of a run of the first format: 20 steps of a tiny VAE."""
    return Path(shutil.copytree(FIRST_FORMAT, tmp_path / "run"))


def test_a_folder_gives_configuration_experiment_data_and_state(whole):
    run = runner.open_run(str(whole))
    assert run.config.hidden == (16,)
    assert (run.spec.name, run.spec.shape) == ("digits", (8, 8, 1))
    assert len(run.splits["train"]["x"]) == 1437
    state, step = run.restore("latest")
    assert (step, int(state.step)) == (60, 60)
    x = run.experiment.model.sample(state.eval_params, state.model_state, jax.random.key(0), 5)
    assert x.shape == (5, 8, 8, 1)


def test_a_folder_opens_without_its_data_and_with_changes_that_only_measure(whole):
    run = runner.open_run(whole, with_data=False, changes={"importance_samples": 7})
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
    assert now["config"] == {**old, "train": {**old["train"], "steps": 30}}
    assert runner.open_run(legacy_configs).config == updated(
        runner.open_run(FIRST_FORMAT).config, {"train": {"steps": 30}}
    )
