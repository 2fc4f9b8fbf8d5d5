"""`evaluate` and `sample` work from the folder alone, say what training said, and leave the checkpoints as they are."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import vae
from gm_jax.data import sources
from gm_jax.evaluation import likelihood
from gm_jax.runner import evaluate, pictures
from gm_jax.runner.run import reopen, restore

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another current folder, so that nothing is found by a relative path."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.mark.usefixtures("elsewhere")
def test_evaluate_says_bit_for_bit_what_training_said_and_draws_the_same(finished, whole, command, contents):
    before = contents(finished)
    for path in (*finished.glob("*.png"), finished / "results.json"):
        path.unlink()
    ended = command("evaluate", "--workdir", finished)
    assert ended.code == 0, ended.err
    assert contents(finished) == before
    assert "nll" in ended.out


@pytest.mark.usefixtures("elsewhere")
def test_results_of_other_splits_stand_beside_each_other(finished, command):
    test = json.loads((finished / "results.json").read_text())
    assert command("evaluate", "--workdir", finished, "--split", "validation").code == 0
    records = json.loads((finished / "results.json").read_text())
    assert records[: len(test)] == test
    assert [record["split"] for record in records[len(test) :]] == ["validation"] * len(test)
    assert {record["examples"] for record in records} == {180}
    assert command("evaluate", "--workdir", finished, "--split", "validation").code == 0
    assert json.loads((finished / "results.json").read_text()) == records


def test_the_batch_size_matters_only_through_its_noise_and_other_seeds_give_other_numbers(finished, command):
    values = {}
    for name, flags in {"one": [], "odd": ["--batch-size", "33"], "seed": ["--seed", "1"]}.items():
        assert command("evaluate", "--workdir", finished, *flags).code == 0
        records = json.loads((finished / "results.json").read_text())
        assert {record["examples"] for record in records} == {180}
        values[name] = records[0]["value"]
    assert len(set(values.values())) == 3
    np.testing.assert_allclose(list(values.values()), values["one"], rtol=0.01)


def test_the_latest_checkpoint_may_be_asked_for(finished, command):
    assert command("evaluate", "--workdir", finished, "--checkpoint", "latest").code == 0
    assert json.loads((finished / "results.json").read_text())[0]["settings"]["step"] == 60


def test_the_average_is_what_is_evaluated(whole):
    run = reopen("experiments.vae", vae.Config, vae.build, whole)
    state, step = restore(run, "best")
    said = json.loads((whole / "results.json").read_text())[0]
    value = evaluate.measure(run, state, step, split="test", seed=0)[0].value
    assert value == said["value"]
    assert evaluate.measure(run, state._replace(ema_params=None), step, split="test", seed=0)[0].value != value
    assert evaluate.measure(run, state._replace(params=state.ema_params), step, split="test", seed=0)[0].value == value


def test_the_number_is_the_mean_over_every_example_once(whole):
    run = reopen("experiments.vae", vae.Config, vae.build, whole)
    state, _ = restore(run, "best")
    summary = evaluate.evaluator(run, run.experiment.model.log_prob, seed=0, batch_size=100)(state, "test")
    assert isinstance(summary, likelihood.LikelihoodSummary)
    assert summary.num_examples == len(run.source.splits["test"]["x"])
    assert json.loads((whole / "results.json").read_text())[0]["value"] == -summary.mean


def test_a_damaged_best_checkpoint_is_passed_over_and_stays_where_it_is(finished, command, contents, caplog):
    best = json.loads((finished / "results.json").read_text())[0]["settings"]["step"]
    manifest = finished / "checkpoints" / str(best) / "manifest" / "metadata"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    before = contents(finished / "checkpoints")
    with caplog.at_level(logging.WARNING, logger="gm_jax"):
        assert command("evaluate", "--workdir", finished).code == 0
    assert [record.name for record in caplog.records] == ["gm_jax"]
    assert json.loads((finished / "results.json").read_text())[0]["settings"]["step"] != best
    assert contents(finished / "checkpoints") == before


@pytest.mark.usefixtures("elsewhere")
def test_sample_draws_as_many_as_asked_for_and_the_same_for_a_seed(finished, command, contents, tmp_path):
    before = contents(finished)
    ended = command("sample", "--workdir", finished, "--num", "6", "--seed", "3")
    assert ended.code == 0, ended.err
    assert "6 samples of step" in ended.out
    samples = np.load(finished / "samples-seed3.npy")
    assert (samples.shape, samples.dtype) == ((6, 8, 8, 1), np.uint8)
    assert set(np.unique(samples)) <= {0, 16}
    assert pictures.read(finished / "samples-seed3.png").std() > 0
    assert command("sample", "--workdir", finished, "--num", "6", "--seed", "3", "--output", tmp_path / "a/b").code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "b.npy"), samples)
    assert command("sample", "--workdir", finished, "--num", "6", "--seed", "4", "--output", tmp_path / "c").code == 0
    assert (np.load(tmp_path / "c.npy") != samples).any()
    after = contents(finished)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"samples-seed3.npy", "samples-seed3.png"}


@pytest.mark.slow
def test_a_run_of_two_devices_is_evaluated_by_one(command, tiny, tmp_path, compiled_programs):
    folder = tmp_path / "run"
    assert command("--workdir", folder, *tiny, "--train.parallel", "pmap", "--train.steps", "20").code == 0
    said = json.loads((folder / "results.json").read_text())
    environment = os.environ | {"PYTHONPATH": str(REPO), "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.vae", "evaluate", "--workdir", folder],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for now, before in zip(json.loads((folder / "results.json").read_text()), said, strict=True):
        np.testing.assert_allclose(now["value"], before["value"], rtol=1e-5)


def test_other_data_may_be_elsewhere(finished, command, monkeypatch, tmp_path):
    asked = []
    load = sources.load
    monkeypatch.setattr(sources, "load", lambda name, data_dir=None: asked.append(data_dir) or load(name, data_dir))
    assert command("sample", "--workdir", finished, "--data-dir", tmp_path).code == 0
    assert asked == [str(tmp_path)]
