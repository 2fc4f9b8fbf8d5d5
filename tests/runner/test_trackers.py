"""Weights & Biases and MLflow, by modules with the part of their interface that is used; TensorBoard by its files."""

import importlib.machinery
import logging
import sys
import types

import numpy as np
import pytest

from gm_jax.runner import trackers
from gm_jax.runner.run import reopen
from tests.run_fixtures import TINY


class FakeWandB(types.ModuleType):
    """What wandb.init, Run.log, Run.define_metric, Run.finish, Image and Settings do."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished, self.fails = [], [], 0, None

    def init(self, **settings):
        if self.fails:
            raise RuntimeError(self.fails)
        self.started.append(settings)
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        if self.fails:
            raise OSError(self.fails)
        self.logged.append(values)

    def finish(self):
        self.finished += 1

    def Image(self, image):
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        return ("image", image.shape)

    def Settings(self, *, console):
        return {"console": console}


class FakeMLflow(types.ModuleType):
    """What MlflowClient does with one experiment."""

    def __init__(self):
        super().__init__("mlflow")
        self.experiments, self.runs, self.metrics, self.images, self.params, self.status = {}, {}, [], [], {}, {}

    def MlflowClient(self):
        return self

    def get_experiment_by_name(self, name):
        number = self.experiments.get(name)
        return None if number is None else types.SimpleNamespace(experiment_id=number)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def search_runs(self, experiments, text):
        assert set(experiments) <= set(self.experiments.values())
        found = [run for run, tags in self.runs.items() if text == f"tags.`gm_jax.run` = '{tags['gm_jax.run']}'"]
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id=run)) for run in found]

    def create_run(self, experiment, run_name, tags):
        self.runs[run_name] = tags
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_name))

    def log_param(self, run, name, value):
        self.params[run, name] = value

    def log_metric(self, run, name, value, step):
        self.metrics.append((run, name, value, step))

    def log_image(self, run, image, key, step):
        self.images.append((run, image.shape, key, step))

    def set_terminated(self, run, status="FINISHED"):
        self.status[run] = status


@pytest.fixture
def fake(monkeypatch):
    """(module) -> the module, as if it was installed and imported."""

    def install(module):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return install


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line_before_anything_is_written(name, command, tmp_path, monkeypatch):
    find = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda other: None if other == name else find(other))
    ended = command(*TINY, "--workdir", tmp_path / "run", "--train.tracker", name)
    assert ended.code == 2
    wanted = f"error: --train.tracker {name} needs the package {name}: pip install {name}, or leave the flag out.\n"
    assert ended.err == wanted
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_tracked_by_weights_and_biases_and_goes_on_there_when_it_resumes(finished, command, tiny, fake):
    wandb = fake(FakeWandB())
    constant = ["--train.steps", "80"]
    ended = command(*tiny, *constant, "--workdir", finished, "--train.tracker", "wandb")
    assert ended.code == 0, ended.err
    (started,) = wandb.started
    identity = reopen(finished, with_data=False).identity
    assert (started["id"], started["resume"], started["dir"]) == (identity, "allow", str(finished))
    assert started["project"] == "gm_jax"
    assert started["config"]["train.steps"] == 80
    assert "train.tracker" not in started["config"]
    losses = {entry["step"]: entry["train/loss"] for entry in wandb.logged if "train/loss" in entry}
    assert list(losses) == [64, 68, 72, 76, 80]
    assert all(np.isfinite(value) for value in losses.values())
    assert [entry["step"] for entry in wandb.logged if "samples" in entry] == [70, 80]
    assert [entry["step"] for entry in wandb.logged if "validation/log_prob" in entry] == [70, 80]
    assert wandb.finished == 1


@pytest.mark.slow
def test_a_run_is_tracked_by_mlflow_and_found_again_by_its_tag(finished, command, tiny, fake):
    mlflow = fake(FakeMLflow())
    for steps in ("70", "80"):
        ended = command(*tiny, "--train.steps", steps, "--workdir", finished, "--train.tracker", "mlflow")
        assert ended.code == 0, ended.err
    assert list(mlflow.experiments) == ["gm_jax"]
    ((run, tags),) = mlflow.runs.items()
    assert tags == {"gm_jax.run": reopen(finished, with_data=False).identity}
    assert mlflow.params[run, "train.batch_size"] == 32
    assert [step for _, name, _, step in mlflow.metrics if name == "train/loss"] == [64, 68, 72, 76, 80]
    assert [step for _, _, key, step in mlflow.images if key == "samples"] == [70, 80]
    assert mlflow.status == {run: "FINISHED"}


def test_a_tracker_that_cannot_start_is_one_line(finished, command, tiny, fake):
    wandb = fake(FakeWandB())
    wandb.fails = "api_key not configured (no-tty)\nmore"
    ended = command(*tiny, "--train.steps", "70", "--workdir", finished, "--train.tracker", "wandb")
    assert ended.code == 2
    assert ended.err.startswith(
        "error: wandb cannot start (api_key not configured (no-tty)): repair it or set WANDB_MODE=offline, or leave"
    )


def test_records_that_are_lost_cost_one_warning(fake, finished, caplog):
    wandb = fake(FakeWandB())
    tracker = trackers.WandB(reopen(finished, with_data=False))
    wandb.fails = "the network is gone"
    with caplog.at_level(logging.WARNING, "gm_jax"):
        for step in range(3):
            tracker.add_scalar("train/loss", 1.0, step)
        tracker.add_image("samples", np.zeros((2, 2, 3), np.uint8), 3)
    assert [record.message for record in caplog.records] == ["some records of WandB are lost: the network is gone"]
    wandb.fails = None
    tracker.add_scalar("train/loss", 1.0, 4)
    tracker.close()
    assert (wandb.logged, wandb.finished) == ([{"train/loss": 1.0, "step": 4}], 1)


@pytest.mark.slow
def test_no_tracker_leaves_the_metrics_alone(tiny, command, tmp_path):
    ended = command(*tiny, "--train.steps", "10", "--workdir", tmp_path / "run", "--train.tracker", "none")
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    assert not (tmp_path / "run" / "tensorboard").exists()
