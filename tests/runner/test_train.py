"""What training leaves behind, what it refuses to resume, how a run is extended and when it stops early."""

import json
import logging
import re
import signal
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments import vae
from gm_jax.config.saved import to_dict, updated
from gm_jax.plotting import images
from gm_jax.runner import recorder, resume
from gm_jax.training import metrics
from gm_jax.training.checkpoint import Checkpointer

STEPS, EVERY = 60, 10  # of conftest's tiny run
COMPILED = re.compile(r"Compiling (?:jit\()?(\w+)\)? with")


def events(folder: Path) -> list[Event]:
    """The TensorBoard events: records of length, its checksum, the event, its checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_a_run_leaves_all_its_files(whole):
    assert {path.name for path in whole.iterdir()} == {
        *(
            "config.json",
            "versions.json",
            "metrics.jsonl",
            "results.json",
            "evaluated.json",
            "checkpoints",
            "samples",
            "tensorboard",
        ),
        *("samples.png", "sample_means.png", "reconstructions.png", "interpolations.png", "traversal.png"),
        *("curves.png", "over_time.png", "over_time.gif"),
    }
    (versions,) = json.loads((whole / "versions.json").read_text())
    assert versions["git"] is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", versions["git"])
    assert versions["packages"]["jax"] == jax.__version__
    assert len(versions["devices"]) == 2
    assert re.fullmatch("[0-9a-f]{64}", versions["data"])
    assert sorted(path.name for path in (whole / "samples").iterdir()) == [
        f"step-{step:07d}.png" for step in range(EVERY, STEPS + 1, EVERY)
    ]
    for path in whole.rglob("*.png"):
        assert images.read(path).std() > 0


def test_every_number_carries_what_it_needs_to_be_understood(whole):
    records = json.loads((whole / "results.json").read_text())
    assert {(record["name"], record["unit"]) for record in records} == {
        (name, unit) for name in ("nll", "negative_elbo") for unit in ("nats", "bits/dim")
    }
    for record in records:
        assert record["kind"] == "lower_bound"
        assert (record["data"], record["measure"], record["split"]) == ("digits", "binary", "test")
        assert record["examples"] == 180
        assert record["settings"]["binarization"] == "dynamic"
        assert record["settings"]["standard_error"] > 0
    assert records[0]["settings"]["K"] == 3
    assert 20.0 < records[0]["value"] < 64 * np.log(2.0) + 3


def test_tensorboard_has_the_log_and_the_samples(whole):
    scalars, images = {}, set()
    for event in events(whole / "tensorboard"):
        for value in event.summary.value:
            if value.HasField("image"):
                images.add((event.step, value.tag))
            else:
                scalars[event.step, value.tag] = value.simple_value
    for line in metrics.read(whole / "metrics.jsonl"):
        for name, value in line.values.items():
            assert scalars[line.step, f"{line.split}/{name}"] == np.float32(value)
    assert images == {(step, "samples") for step in range(EVERY, STEPS + 1, EVERY)}
    assert any(tag == "speed/examples_per_second" for _, tag in scalars)


def test_the_log_has_a_line_for_every_interval(whole):
    lines = metrics.read(whole / "metrics.jsonl")
    assert [line.step for line in lines if line.split == "train"] == list(range(4, STEPS + 1, 4))
    assert [line.step for line in lines if line.split == "validation"] == list(range(EVERY, STEPS + 1, EVERY))
    losses = [line.values["loss"] for line in lines if line.split == "train"]
    assert losses[0] > losses[-1]


def test_training_ends_with_a_table_and_the_names_of_the_pictures(finished, command, tiny):
    ended = command("--workdir", finished, *tiny)
    table, _, place = ended.out.rstrip().rpartition("\n\n")
    assert ended.code == 0
    assert "test split of digits, 180 examples, binary: " in table
    assert re.search(r"nll +<= +\d+\.\d{4} \+- \d\.\d{4} +nats +upper bound +K=3", table)
    assert max(map(len, table.splitlines())) <= 100
    others, _, look = place.rpartition("\n")
    others = " ".join(others.split())
    assert others.startswith(f"also in {finished}: samples.png,")
    assert all((finished / name.strip()).exists() for name in others.partition(": ")[2].split(","))
    assert look.startswith(f"look at {finished / 'sample_means.png'}: means of samples")


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_the_step_is_compiled_once(parallel, command, tiny, tmp_path, caplog):
    arguments = ["--workdir", tmp_path / "run", *tiny, "--train.steps", "40", "--train.parallel", parallel]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert command(*arguments).code == 0
    messages = [record.getMessage() for record in caplog.records]
    compiled = [match[1] for message in messages if (match := COMPILED.match(message))]
    batches = {"jit": "uint8[2,32,8,8,1]", "pmap": "uint8[2,2,16,8,8,1]"}[parallel]
    assert sum(bool(COMPILED.match(message)) and batches in message for message in messages) == 1
    # The validation's, the samples' over time and, at the end, of the two log-probabilities: one of each.
    assert compiled.count("eval_step") == 3
    assert compiled.count("sample") <= 2


CHANGES = [
    ("--train.batch-size", "64", "train.batch_size: 32 (saved) != 64"),
    ("--train.seed", "1", "train.seed: 0 (saved) != 1"),
    ("--train.steps-per-call", "1", "train.steps_per_call: 2 (saved) != 1"),
    ("--train.log-every", "2", "train.log_every: 4 (saved) != 2"),
    ("--train.checkpoint-every", "20", "train.checkpoint_every: 10 (saved) != 20"),
    ("--train.ema-decay", "0", "train.ema_decay: 0.999 (saved) != 0.0"),
    ("--train.parallel", "pmap", "train.parallel: 'jit' (saved) != 'pmap'"),
    ("--train.steps", "50", "train.steps: 60 (saved) != 50"),
    ("--train.steps", "64", "multiples of train.checkpoint_every"),
    ("--optimizer.learning-rate", "0.1", "optimizer.learning_rate: 0.001 (saved) != 0.1"),
    ("--hidden", "8", "hidden: [16] (saved) != (8,)"),
    ("--beta", "2", "beta: 1.0 (saved) != 2.0"),
]


@pytest.mark.parametrize(("flag", "value", "shown"), CHANGES)
def test_a_changed_configuration_is_refused_with_the_difference(flag, value, shown, whole, command, tiny, contents):
    before = contents(whole)
    ended = command("--workdir", whole, *tiny, flag, value)
    assert ended.code == 2
    assert shown in ended.err
    assert len(ended.err.splitlines()) <= 3
    assert contents(whole) == before


def test_neutral_fields_may_differ_and_are_saved(finished, whole, command, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command("--workdir", finished, *tiny, "--train.keep-checkpoints", "5", "--data.dir", "here")
    assert ended.code == 0, ended.err
    saved = json.loads((finished / "config.json").read_text())["config"]
    assert saved["train"]["keep_checkpoints"] == 5
    assert saved["data"]["dir"] == str(tmp_path / "here")
    assert (finished / "results.json").read_bytes() == (whole / "results.json").read_bytes()


@pytest.mark.slow
def test_an_extended_run_ends_as_a_long_run(finished, command, tiny, tmp_path, state_hash):
    longer = [*tiny, "--train.steps", "80"]
    before = json.loads((finished / "results.json").read_text())
    ended = command("--workdir", finished, *longer)
    assert ended.code == 0, ended.err
    assert f"resuming from step {STEPS} of 80" in ended.out
    assert json.loads((finished / "config.json").read_text())["config"]["train"]["steps"] == 80
    assert command("--workdir", tmp_path / "other", *longer).code == 0
    assert (finished / "metrics.jsonl").read_bytes() == (tmp_path / "other" / "metrics.jsonl").read_bytes()
    configs = [json.loads((path / "config.json").read_text()) for path in (finished, tmp_path / "other")]
    assert configs[0].pop("identity") != configs[1].pop("identity")
    assert configs[0] == configs[1]
    results, expected = (json.loads((path / "results.json").read_text()) for path in (finished, tmp_path / "other"))
    assert results == before + expected  # what was measured of the shorter run stays
    assert state_hash(finished) == state_hash(tmp_path / "other")


def test_more_steps_are_refused_if_the_first_steps_would_differ():
    def saved(**changes):
        return to_dict(with_steps(changes.pop("steps", 60), **changes))

    def with_steps(steps, schedule="constant", beta=1.0):
        train = {"steps": steps, "checkpoint_every": 10, "steps_per_call": 8}
        return updated(vae.CONFIG, {"beta": beta, "optimizer": {"schedule": schedule}, "train": train})

    assert resume.is_extension(with_steps(80), saved())
    assert not resume.is_extension(with_steps(60), saved())
    assert not resume.is_extension(with_steps(40), saved())
    assert not resume.is_extension(with_steps(80, schedule="cosine"), saved(schedule="cosine"))
    assert not resume.is_extension(with_steps(80, beta=2.0), saved())
    # In calls of 5 steps, not of 10; and a validation at step 65 that the longer run would not make.
    assert not resume.is_extension(with_steps(80), saved(steps=65))
    assert not resume.is_extension(with_steps(85), saved())
    assert not resume.is_extension(with_steps(80), {**saved(), "train": {"steps": "60"}})
    assert not resume.is_extension(with_steps(80), {**saved(), "train": None})


def test_other_data_of_the_same_name_are_refused(finished, command, tiny):
    saved = json.loads((finished / "config.json").read_text())
    saved["data"]["fingerprint"] = "0" * 64
    (finished / "config.json").write_text(json.dumps(saved))
    for arguments in (["evaluate"], [*tiny]):
        ended = command(*arguments, "--workdir", finished)
        assert ended.code == 2
        assert "other data of the name digits" in ended.err


def test_a_configuration_without_a_spec_of_the_data_is_damaged(finished, command, tiny):
    saved = json.loads((finished / "config.json").read_text())
    for data in ({}, {**saved["data"], "shape": 8}, {**saved["data"], "more": 1}):
        (finished / "config.json").write_text(json.dumps({**saved, "data": data}))
        for arguments in (["evaluate"], ["sample"], [*tiny]):
            ended = command(*arguments, "--workdir", finished)
            assert (ended.code, "does not describe the run's data" in ended.err) == (2, True)


def test_the_folder_of_the_data_is_saved_with_the_run(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert command("--workdir", tmp_path / "run", *tiny, "--train.steps", "2").code == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["config"]["data"]["dir"] == str(tmp_path / "tfds")


@pytest.mark.slow
def test_steps_per_call_that_do_not_divide_are_lowered_and_reported(command, tiny, tmp_path):
    ended = command("--workdir", tmp_path / "run", *tiny, "--train.steps", "6", "--train.steps-per-call", "4")
    assert ended.code == 0
    assert "--train.steps-per-call is lowered from 4 to 2" in ended.out


def stop_at(step: int, monkeypatch) -> None:
    tick = recorder.RunRecorder.tick

    def tick_and_stop(self, at):
        tick(self, at)
        if at == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(recorder.RunRecorder, "tick", tick_and_stop)


@pytest.mark.slow
def test_a_run_that_stops_early_keeps_its_best_checkpoint(command, tiny, tmp_path, monkeypatch, state_hash):
    # The learning rate is so high that validation soon gets worse.
    impatient = [*tiny, "--train.patience", "2", "--train.steps", "400", "--optimizer.learning-rate", "0.1"]
    folders = [tmp_path / "whole", tmp_path / "stopped"]
    with monkeypatch.context() as patch:
        stop_at(34, patch)
        ended = command("--workdir", folders[1], *impatient)
        assert (ended.code, "stopped at step 34" in ended.out) == (0, True)
    for folder in folders:
        ended = command("--workdir", folder, *impatient)
        assert ended.code == 0
        assert re.search(
            r"^stopped early at step \d+: .* in 2 checkpoints \(--train.patience\)$", ended.out, re.MULTILINE
        )
    assert state_hash(folders[0]) == state_hash(folders[1])
    for name in ("metrics.jsonl", "results.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()

    lines = metrics.read(folders[0] / "metrics.jsonl")
    values = {line.step: line.values["log_prob"] for line in lines if line.split == "validation"}
    best, last = max(values, key=values.get), max(values)
    assert last == best + 2 * EVERY < 400
    assert json.loads((folders[0] / "results.json").read_text())[0]["settings"]["step"] == best
    with Checkpointer(folders[0] / "checkpoints", read_only=True) as checkpointer:
        assert checkpointer.best_step() == best

    before = state_hash(folders[0])
    assert command("--workdir", folders[0], *impatient).code == 0  # it stays stopped
    assert state_hash(folders[0]) == before


@pytest.mark.slow
def test_without_an_average_the_parameters_are_evaluated(command, tiny, tmp_path):
    ended = command("--workdir", tmp_path / "run", *tiny, "--train.ema-decay", "0", "--train.steps", "20")
    assert ended.code == 0, ended.err
    manifest = (tmp_path / "run" / "checkpoints" / "20" / "manifest" / "metadata").read_text()
    assert ".params" in manifest
    assert ".ema_params" not in manifest


@pytest.mark.slow
def test_points_are_trained_on_and_drawn_as_a_scatter(command, tiny, tmp_path):
    folder = tmp_path / "run"
    arguments = ["--data.name", "toy:two_moons", "--decoder", "normal", *tiny, "--train.steps", "20"]
    ended = command("--workdir", folder, *arguments)
    assert ended.code == 0, ended.err
    shown = ("samples", "sample_means", "curves", "over_time")
    assert {path.name for path in folder.glob("*.png")} == {f"{name}.png" for name in shown}
    assert images.read(folder / "samples.png").std() > 0
    records = json.loads((folder / "results.json").read_text())
    assert {(record["unit"], record["measure"]) for record in records} == {("nats", "continuous")}


def test_a_run_killed_while_writing_its_first_file_starts_again(command, tiny, tmp_path):
    (tmp_path / ".config.json.0123456789abcdef.tmp").write_text("{")
    ended = command("--workdir", tmp_path, *tiny, "--train.steps", "2")
    assert ended.code == 0, ended.err
    assert not list(tmp_path.glob(".*"))
