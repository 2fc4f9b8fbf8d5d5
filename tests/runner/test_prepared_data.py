"""Runs on prepared sets: they keep their version, labels are checked where they are used, folders are spelled out."""

import json

import numpy as np
import pytest

from experiments import ddpm_conditional, fvsbn, pixelcnn
from tests.data.tfds_examples import examples, prepare

SMALL = (
    *("--train.batch-size", "8", "--train.steps", "4", "--train.checkpoint-every", "2"),
    *("--train.steps-per-call", "2", "--train.log-every", "2"),
)
BRIEF = (*SMALL, "--optimizer.warmup-steps", "0", "--optimizer.schedule", "constant")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(data_dir, version="1.0.0", seed=0, labels=(0, 1, 2)):
    images, _ = examples(320, seed=seed, values=[0, 255], shape=(4, 4, 1))
    several = np.resize(labels, len(images))
    return prepare(
        data_dir, {"train": (images, several), "test": (images[:6], several[:6])}, name="vers", version=version
    )


@pytest.mark.slow
def test_a_run_keeps_its_version_of_the_data(command, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    put(data, "1.9.0")
    arguments = ("--data.name", "vers", "--data.dir", data, "--workdir", run, *BRIEF)
    assert command(*arguments, experiment=fvsbn).code == 0
    assert json.loads((run / "config.json").read_text())["data"]["version"] == "1.9.0"
    put(data, "1.10.0", seed=5)
    assert command("evaluate", "--workdir", run, experiment=fvsbn).code == 0
    assert command(*arguments, "--train.steps", "6", experiment=fvsbn).code == 0
    assert json.loads((run / "config.json").read_text())["data"]["version"] == "1.9.0"

    # A run of before versions were kept.
    saved = json.loads((run / "config.json").read_text())
    del saved["data"]["version"]
    (run / "config.json").write_text(json.dumps(saved))
    assert command("evaluate", "--workdir", run, experiment=fvsbn).code == 0
    assert command(*arguments, "--train.steps", "8", experiment=fvsbn).code == 0

    other = ("--data.name", "vers", "--data.dir", data, "--workdir", tmp_path / "new", *BRIEF)
    assert command(*other, experiment=fvsbn).code == 0
    assert json.loads((tmp_path / "new" / "config.json").read_text())["data"]["version"] == "1.10.0"


@pytest.mark.parametrize(
    ("experiment", "flags"), [(ddpm_conditional, ()), (pixelcnn, ("--conditional",)), (fvsbn, ("--conditional",))]
)
def test_wrong_labels_are_refused_by_families_that_use_them(experiment, flags, command, tmp_path):
    put(tmp_path / "data", labels=(0, 1, 2, 7))
    where = ("--data.name", "vers", "--data.dir", tmp_path / "data", "--workdir", tmp_path / "run")
    ended = command(*where, *BRIEF, *flags, experiment=experiment)
    assert ended.code == 2
    assert "'vers' has the label 7 in its train split, and 3 classes" in ended.err
    assert len(ended.err.splitlines()) <= 3
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_wrong_labels_do_not_matter_to_others(command, tmp_path):
    put(tmp_path / "data", labels=(0, -1, 10**9))
    where = ("--data.name", "vers", "--data.dir", tmp_path / "data", "--workdir", tmp_path / "run")
    assert command(*where, *BRIEF, experiment=fvsbn).code == 0


@pytest.mark.parametrize("folder", ["gs://bucket/tfds", "~nobody-of-this-name/tfds"])
def test_a_folder_of_another_machine_or_user_is_refused(folder, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command("--data.name", "mnist", "--data.dir", folder, "--workdir", "run", experiment=fvsbn)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert f"error: {folder} is not" in ended.err or f"for {folder}" in ended.err
    # The variable must not keep others from data that need no folder.
    monkeypatch.setenv("TFDS_DATA_DIR", folder)
    assert command("--workdir", "run", *BRIEF, experiment=fvsbn).code == 0
