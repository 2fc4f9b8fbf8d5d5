"""`evaluate` and `sample` work from the folder alone, repeat what training reported and change no checkpoint."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import vae
from gm_jax import runner
from gm_jax.data import pipeline, sources
from gm_jax.plotting import images
from gm_jax.runner import draw, measure, sample
from gm_jax.runner.run import abstract_batch, reopen
from gm_jax.types import Likelihood

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another current folder, so that nothing is found by a relative path."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.mark.usefixtures("elsewhere")
def test_evaluate_repeats_numbers_and_pictures_of_training_bit_for_bit(finished, whole, command, contents):
    before = contents(finished)
    for path in (*finished.glob("*.png"), finished / "results.json"):
        path.unlink()
    ended = command("evaluate", "--workdir", finished)
    assert ended.code == 0, ended.err
    assert contents(finished) == before
    assert "nll" in ended.out


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_results_of_several_splits_are_kept(finished, command):
    test = json.loads((finished / "results.json").read_text())
    assert command("evaluate", "--workdir", finished, "--split", "validation").code == 0
    records = json.loads((finished / "results.json").read_text())
    assert records[: len(test)] == test
    assert [record["split"] for record in records[len(test) :]] == ["validation"] * len(test)
    assert {record["examples"] for record in records} == {180}
    assert command("evaluate", "--workdir", finished, "--split", "validation").code == 0
    assert json.loads((finished / "results.json").read_text()) == records


def test_another_seed_gives_other_noise(finished, command):
    values = [record["value"] for record in json.loads((finished / "results.json").read_text())]
    (finished / "results.json").unlink()
    assert command("evaluate", "--workdir", finished, "--seed", "1", "--batch-size", "33").code == 0
    others = [record["value"] for record in json.loads((finished / "results.json").read_text())]
    np.testing.assert_allclose(others, values, rtol=0.01)
    assert min(np.abs(np.subtract(others, values))) > 1e-6 * max(values)


def test_another_number_of_samples_gives_another_bound_next_to_the_first(finished, command, contents):
    before = json.loads((finished / "results.json").read_text())
    checkpoints = contents(finished / "checkpoints")
    assert command("evaluate", "--workdir", finished, "--importance-samples", "40").code == 0
    records = json.loads((finished / "results.json").read_text())
    assert [record["settings"].get("K") for record in records if record["name"] == "nll"] == [3, 3, 40, 40]
    # The ELBO has no K: measured again it is the same number, and replaces the first.
    assert records[:2] == before[:2]
    assert records[4:] == before[2:]
    assert 0.1 < before[0]["value"] - records[2]["value"] < 5.0
    assert contents(finished / "checkpoints") == checkpoints
    assert json.loads((finished / "config.json").read_text())["config"]["importance_samples"] == 3


def test_results_of_the_latest_checkpoint_stand_next_to_those_of_the_best(finished, command):
    records = json.loads((finished / "results.json").read_text())
    for record in records:
        record["settings"]["step"] = 50
    (finished / "results.json").write_text(json.dumps(records))
    assert command("evaluate", "--workdir", finished, "--checkpoint", "latest").code == 0
    both = json.loads((finished / "results.json").read_text())
    assert both[: len(records)] == records
    assert [record["settings"]["step"] for record in both[len(records) :]] == [60] * len(records)


def test_the_average_is_what_is_evaluated(whole):
    run = reopen(whole)
    state, step = run.restore("best")
    reported = json.loads((whole / "results.json").read_text())[0]
    value = measure.measure_run(run, state, step, split="test", seed=0)[0].value
    assert value == reported["value"]
    assert measure.measure_run(run, state._replace(ema_params=None), step, split="test", seed=0)[0].value != value
    assert (
        measure.measure_run(run, state._replace(params=state.ema_params), step, split="test", seed=0)[0].value == value
    )


def test_the_number_is_the_mean_over_every_example_once(whole):
    # Each example's log-probability is known: to skip, double or pad one changes the mean. 180 = 2 x 70 + 40.
    run = reopen(whole)
    state, _ = run.restore("best")
    weights = jnp.arange(1, 65).reshape(8, 8, 1)

    def log_prob(params, model_state, key, x):
        return Likelihood(
            -jnp.sum(x * weights[None], axis=(1, 2, 3)).astype(jnp.float32), kind="exact", measure="binary"
        )

    summary = measure.evaluator(run, log_prob, seed=0, batch_size=70)(state, "test")
    by_hand = -(run.splits["test"]["x"].astype(np.int64) * np.asarray(weights)).sum((1, 2, 3))
    assert (summary.num_examples, summary.kind) == (180, "exact")
    np.testing.assert_allclose(summary.mean, np.mean(by_hand), rtol=1e-12)
    np.testing.assert_allclose(summary.standard_error, np.std(by_hand, ddof=1) / np.sqrt(180), rtol=1e-12)


def test_the_reported_bound_is_the_mean_of_the_bounds_of_single_examples(whole):
    # Every example alone, with the key of its place in the split; the mean is taken here.
    run = reopen(whole)
    state, _ = run.restore("best")
    evaluation = jax.random.fold_in(jax.random.key(0), 0xFFFFFFFE)
    log_prob = run.experiment.model.log_prob

    @jax.jit
    def one(index, x):
        return log_prob(state.eval_params, state.model_state, jax.random.fold_in(evaluation, index), x[None]).log_prob

    examples = run.splits["test"]["x"]
    values = [float(one(np.uint32(index), x)[0]) for index, x in enumerate(examples)]
    reported = json.loads((whole / "results.json").read_text())[0]
    assert (reported["examples"], reported["settings"]["K"]) == (len(values), 3)
    np.testing.assert_allclose(reported["value"], -np.mean(values, dtype=np.float64), rtol=1e-6)
    error = np.std(values, ddof=1, dtype=np.float64) / np.sqrt(len(values))
    np.testing.assert_allclose(reported["settings"]["standard_error"], error, rtol=1e-5)


def test_a_damaged_best_checkpoint_is_skipped_and_kept(finished, command, contents, caplog):
    best = json.loads((finished / "results.json").read_text())[0]["settings"]["step"]
    manifest = finished / "checkpoints" / str(best) / "manifest" / "metadata"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    before = contents(finished / "checkpoints")
    with caplog.at_level(logging.WARNING, logger="gm_jax"):
        assert command("evaluate", "--workdir", finished).code == 0
    assert [record.name for record in caplog.records] == ["gm_jax"]
    assert json.loads((finished / "results.json").read_text())[-1]["settings"]["step"] != best
    assert contents(finished / "checkpoints") == before


@pytest.mark.usefixtures("elsewhere")
def test_sample_draws_the_requested_number_and_the_same_for_a_seed(finished, command, contents, tmp_path):
    before = contents(finished)
    ended = command("sample", "--workdir", finished, "--num", "6", "--seed", "3")
    assert ended.code == 0, ended.err
    assert "6 samples of step" in ended.out
    samples = np.load(finished / "samples-seed3.npy")
    assert (samples.shape, samples.dtype) == ((6, 8, 8, 1), np.uint8)
    assert set(np.unique(samples)) <= {0, 16}
    assert images.read(finished / "samples-seed3.png").std() > 0
    for output, written in (("a/b.png", "a/b"), ("v1.5", "v1.5")):
        same = command("sample", "--workdir", finished, "--num", "6", "--seed", "3", "--output", tmp_path / output)
        assert same.code == 0
        assert (tmp_path / f"{written}.png").exists()
        np.testing.assert_array_equal(np.load(tmp_path / f"{written}.npy"), samples)
    assert command("sample", "--workdir", finished, "--num", "6", "--seed", "4", "--output", tmp_path / "c").code == 0
    assert (np.load(tmp_path / "c.npy") != samples).any()
    after = contents(finished)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"samples-seed3.npy", "samples-seed3.png"}


def test_the_title_of_samples_says_what_was_asked(tmp_path):
    args = sample.SampleArgs(workdir=tmp_path, label=3, temperature=0.5)
    changes = {"guidance": 4.0, "sampler": {"method": "dpmpp", "steps": 15}}
    expected = ["label 3", "temperature 0.5", "guidance 4.0", "sampler method dpmpp steps 15"]
    assert sample.described(args, changes) == expected


@pytest.mark.parametrize(
    ("flags", "changes", "name"),
    [
        ({}, {}, "samples-seed2.png"),
        ({"num": 9}, {}, "samples-seed2.png"),
        ({"label": 0}, {}, "samples-label-0-seed2.png"),
        ({"prompt": "a Red two"}, {"guidance": 4.0}, "samples-prompt-a-red-two-guidance-4.0-seed2.png"),
        ({"image": Path("in/a b.png"), "mask": Path("m.png")}, {}, "samples-image-a-b-mask-m-seed2.png"),
        ({"temperature": 0.5, "checkpoint": "latest"}, {}, "samples-temperature-0.5-checkpoint-latest-seed2.png"),
        ({}, {"sampler": {"method": "dpmpp", "steps": 15}}, "samples-sampler-method-dpmpp-steps-15-seed2.png"),
        ({"prompt": "word " * 99}, {}, "samples-prompt-" + "word-" * 33 + "-seed2.png"),
    ],
)
def test_samples_with_other_flags_have_another_name(tmp_path, flags, changes, name):
    assert sample.default_name(sample.SampleArgs(workdir=tmp_path, seed=2, **flags), changes) == name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--label", "10"), "digits has 10 classes"),
        (("--label", "3"), "no labels"),
        (("--temperature", "0.5"), "leave"),
    ],
)
def test_options_that_a_model_does_not_have_are_refused(finished, command, tmp_path, flags, message):
    ended = command("sample", "--workdir", finished, "--output", tmp_path / "a", *flags)
    assert ended.code == 2
    assert message in ended.err
    assert not list(tmp_path.glob("a*"))


@pytest.mark.slow
def test_a_run_of_two_devices_is_evaluated_by_one(command, tiny, tmp_path, compiled_programs):
    folder = tmp_path / "run"
    assert command("--workdir", folder, *tiny, "--train.parallel", "pmap", "--train.steps", "20").code == 0
    reported = json.loads((folder / "results.json").read_text())
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
    for now, before in zip(json.loads((folder / "results.json").read_text()), reported, strict=True):
        np.testing.assert_allclose(now["value"], before["value"], rtol=1e-5)


def test_an_output_that_cannot_be_written_is_refused(finished, command, tmp_path):
    for output, message in ((tmp_path, "is a folder"), (tmp_path / "x.jpg", f"{tmp_path / 'x.png'}")):
        ended = command("sample", "--workdir", finished, "--output", output)
        assert (ended.code, message in ended.err) == (2, True)


def test_sample_needs_no_data(finished, command, monkeypatch):
    def refuse(name, data_dir=None, size=None):
        raise AssertionError("loaded")

    monkeypatch.setattr(sources, "load", refuse)
    assert command("sample", "--workdir", finished, "--num", "4").code == 0


@pytest.mark.parametrize("name", ["digits", "captions", "toy:two_moons", "wave:tones"])
def test_a_spec_gives_the_shapes_of_a_batch(name):
    source = sources.load(name)
    batch = pipeline.train_batch(source.splits["train"], 5, 0, 0)
    assert abstract_batch(source.spec, 5) == {
        key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in batch.items()
    }


@pytest.mark.slow
def test_data_are_read_from_the_folder_of_the_run_unless_one_is_given(finished, command, monkeypatch, tmp_path):
    asked = []
    load = sources.load
    monkeypatch.setattr(sources, "load", lambda name, data_dir, size: asked.append(data_dir) or load(name, data_dir))
    monkeypatch.setenv("TFDS_DATA_DIR", "/of/another/shell")
    saved = json.loads((finished / "config.json").read_text())
    saved["config"]["data"]["dir"] = "/found/there"
    (finished / "config.json").write_text(json.dumps(saved))
    assert command("evaluate", "--workdir", finished).code == 0
    assert command("evaluate", "--workdir", finished, "--data-dir", tmp_path).code == 0
    assert asked == ["/found/there", str(tmp_path)]


def test_many_samples_are_drawn_in_batches_and_not_all_are_shown(finished, command, tmp_path):
    few = command("sample", "--workdir", finished, "--num", "500", "--output", tmp_path / "few")
    assert "500 samples of step" in few.out
    assert "(the first 400 of them)" in few.out
    many = command("sample", "--workdir", finished, "--num", "1203", "--output", tmp_path / "many")
    assert (few.code, many.code) == (0, 0)
    first, samples = np.load(tmp_path / "few.npy"), np.load(tmp_path / "many.npy")
    assert samples.shape == (1203, 8, 8, 1)
    np.testing.assert_array_equal(samples[:500], first)
    assert (samples[500:1000] != first).any()
    assert (samples[1000:] != samples[:203]).any()
    assert images.read(tmp_path / "many.png").shape == images.read(tmp_path / "few.png").shape


def test_samples_that_do_not_fill_the_picture_are_counted(finished, command, tmp_path):
    ended = command("sample", "--workdir", finished, "--num", "7", "--output", tmp_path / "a")
    assert "7 samples of step" in ended.out
    assert "a.png (the first 6 of them), a.npy" in ended.out
    assert len(np.load(tmp_path / "a.npy")) == 7


@pytest.mark.parametrize("flags", [("--temperature", "nan"), ("--temperature", "inf"), ("--temperature", "1e30")])
def test_a_temperature_that_no_sample_can_have_is_refused(finished, command, flags):
    ended = command("sample", "--workdir", finished, *flags)
    assert (ended.code, "temperature must be" in ended.err) == (2, True)


def test_numbers_are_written_even_if_nothing_can_be_drawn(finished, command, monkeypatch):
    (finished / "results.json").unlink()

    def fail(run, state, *, seed, before):
        raise ValueError("no font")

    monkeypatch.setattr(draw, "draw_pictures", fail)
    with pytest.raises(ValueError, match="no font"):
        runner.main(vae.CONFIG, ["evaluate", "--workdir", str(finished)], module=vae)
    assert json.loads((finished / "results.json").read_text())
