"""The benchmark of accelerators: its judgement of numbers, its flags and its programs, on a CPU."""

import json
import shlex
import time

import jax
import numpy as np
import pytest

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import families, golden, pack, resume, speed, trainings, workers
from gm_jax.data import sources
from tools import results

GOLDEN = {
    "loss/vae": np.float32(2.0),
    "grads/vae/a": np.array([3.0, 4.0]),
    "grads/vae/b": np.array([1e-6, 0.0]),
    "log_prob": np.array([-1.0, -2.0]),
    "samples": np.array([[0, 1], [2, 3]], np.uint8),
}


def test_the_stored_values_are_of_every_family_and_fit_it():
    with np.load(golden.FILE) as stored:
        assert {name.split("|")[0] for name in stored.files} == set(families.FAMILIES)
    assert golden.FILE.stat().st_size < 1e6
    for name in families.FAMILIES:
        # This builds the family, and holds the model state to its shapes.
        values, model_state = golden.read(golden.FILE, name)
        assert all(np.isfinite(array).all() for array in jax.tree.leaves((values, model_state)))
        grads = {path: array for path, array in values.items() if path.startswith("grads/")}
        zero = [path for path, array in grads.items() if not np.any(array)]
        # The discriminator's last bias cancels in Wasserstein's loss.
        assert zero == (["grads/discriminator/Dense_1/bias"] if name == "wgan-gp" else []), name


@pytest.mark.parametrize("name", ["rbm"])
def test_a_family_agrees_with_its_stored_values(name):
    rows = golden.check(name)
    assert [row["mode"] for row in rows] == ["float32", "default"]
    assert [row["failures"] for row in rows] == [[], []]
    assert set(rows[0]["errors"]) == {"loss", "grads", "log_prob", "samples"}


def test_errors_are_relative_to_an_array_or_to_the_largest():
    assert set(golden.errors(GOLDEN, GOLDEN).values()) == {0.0}
    changed = {**GOLDEN, "loss/vae": np.float32(2.2), "grads/vae/a": np.array([3.0, 4.5])}
    assert golden.errors(changed, GOLDEN) == pytest.approx(
        {"loss": 0.1, "grads": 0.1, "log_prob": 0.0, "samples": 0.0}, rel=1e-5
    )
    # A gradient of 1e-6 is measured by a thousandth of the largest, 5.
    small = {**GOLDEN, "grads/vae/b": np.array([0.0, 0.0])}
    assert golden.errors(small, GOLDEN)["grads"] == pytest.approx(1e-6 / 5e-3)
    flipped = {**GOLDEN, "samples": np.array([[0, 1], [2, 4]], np.uint8)}
    assert golden.errors(flipped, GOLDEN)["samples"] == 0.25
    lost = {**GOLDEN, "log_prob": np.array([np.nan, -2.0])}
    assert golden.errors(lost, GOLDEN)["log_prob"] == float("inf")


@pytest.mark.parametrize(
    ("found", "mode", "kinds"),
    [
        ({"loss": 9e-6, "samples": 9e-4}, "float32", []),
        ({"loss": 2e-5, "grads": 3e-4, "samples": 2e-3}, "float32", ["loss", "grads", "samples"]),
        ({"loss": 2e-5, "samples": 1.0}, "default", []),
        ({"loss": 0.02}, "default", ["loss"]),
        ({"log_prob": float("inf")}, "bfloat16", ["log_prob"]),
    ],
)
def test_each_mode_has_its_tolerances(found, mode, kinds):
    assert [text.split()[0] for text in golden.failures(found, mode)] == kinds


def test_other_arrays_than_stored_are_refused():
    with pytest.raises(ValueError, match="other arrays"):
        golden.errors({**GOLDEN, "grads/vae/c": np.zeros(2)}, GOLDEN)


def test_parameters_are_the_same_everywhere_and_none_is_zero():
    family = families.FAMILIES["vae"]
    shapes = {"a": jax.ShapeDtypeStruct((3, 2), np.float32), "b": jax.ShapeDtypeStruct((2,), np.float32)}
    params = families.random_params(family, shapes)
    np.testing.assert_allclose(params["b"], [-0.111308, -0.015662], atol=1e-6)
    assert all(np.all(leaf != 0.0) for leaf in jax.tree.leaves(params))


def test_the_speed_table_derives_rates_shares_and_ratios():
    rows = {
        name: {"group": speed.CASES[name].group, "facts": {}, "samples": samples}
        for name, samples in {
            "product of matrices, f32: gm_jax": [0.004, 0.002, 0.003],
            "MADE 784-500, B100: gm_jax": [0.001, 0.002],
            "MADE 784-500, B100: PyTorch eager": [0.00075],
            "64 samples of the gated PixelCNN: PyTorch, 16 of 784 positions": [0.1],
        }.items()
    }
    speed._derive(rows, tiny=False)
    peak, ours, theirs, loop = rows.values()
    assert peak["tflops"] == pytest.approx(2 * 8192**3 / 0.003 / 1e12)
    assert ours["ms"] == pytest.approx(0.15)  # ten steps in a call
    assert ours["examples_per_second"] == pytest.approx(1_000 / 0.0015)
    assert ours["tflops"] == pytest.approx(speed.MADE * 1_000 / 0.0015 / 1e12)
    assert ours["share_of_peak"] == pytest.approx(ours["tflops"] / peak["tflops"])
    assert ours["spread"] == pytest.approx(2.0)
    assert theirs["times_slower_than_ours"] == pytest.approx(0.75 / 0.15)
    assert loop["ms"] == pytest.approx(100 * 784 / 16)
    table = speed.table(rows)
    assert "| MADE 784-500, B100: gm_jax" in table
    assert "| 5.00 " in table


def test_every_case_of_ours_makes_its_model(monkeypatch):
    """Each function of `ours` runs up to the point at which it would train or sample."""
    from benchmarks.accelerator import ours

    made = []
    monkeypatch.setattr(ours, "train", lambda training, strategy="jit": made.append(training.model))
    monkeypatch.setattr(ours, "_sampling", lambda sample, params, model_state, count: made.append(sample))
    calls = {(case.make.args[1], case.make.args[2], str(case.make.args[3])): case for case in speed.CASES.values()}
    cases = [case for case in calls.values() if case.make.args[0] == speed.OURS and case.make.args[1] != "matmul"]
    cases = [case for case in cases if case.make.args[1] not in ("ddim", "cached")]  # these need parameters
    for case in cases:
        case.make(True)
    assert len(made) == len(cases) > 0
    assert ours.ddpm_model("bfloat16", tiny=True).model.sample is not None


def test_cases_without_their_packages_are_left_out(monkeypatch):
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    assert speed.available()
    assert all("gm_jax" in name for name in speed.available())
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None if name == "diffusers" else name)
    assert any("PyTorch" in name for name in speed.available())
    assert not any("diffusers" in name for name in speed.available())


def test_tuning_is_dumped_once_and_loaded_by_the_others(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--own")
    flags = {
        (setting, first): resume.environment(setting, tmp_path / "t", first=first)["XLA_FLAGS"].split()
        for setting in resume.SETTINGS
        for first in (True, False)
    }
    defaults, excluded, kept = resume.SETTINGS
    assert flags[defaults, True] == flags[defaults, False] == ["--own"]
    assert flags[excluded, True] == flags[excluded, False] == ["--own", resume.EXCLUDE]
    assert flags[kept, True] == ["--own", resume.EXCLUDE, f"{resume.DUMP}{tmp_path / 't'}"]
    assert flags[kept, False] == ["--own", resume.EXCLUDE, f"{resume.LOAD}{tmp_path / 't'}"]
    assert resume.environment(defaults, tmp_path, first=True)["JAX_ENABLE_COMPILATION_CACHE"] == "false"


def test_a_box_of_time_holds_the_steps_of_the_measured_rate():
    training = trainings.TRAININGS["pixelcnn"]
    speeds = {training.case: {"examples_per_second": 128 * 100 / 0.85}}
    assert trainings.steps_in(training, 145.0, speeds=speeds, share=1.0) == 10_000
    assert trainings.steps_in(training, 145.0, speeds=speeds, share=0.5) == 5_000
    assert trainings.steps_in(training, 145.0, speeds={}, share=1.0) == 11_000
    assert trainings.steps_in(training, 10.0, speeds=speeds, share=1.0) == trainings.VALIDATIONS
    assert trainings.steps_in(training, 45.5, speeds=speeds, share=1.0) == 50
    assert trainings.steps_in(trainings.TRAININGS["tiny"], 1e4, speeds=speeds, share=1.0) == 20


@pytest.mark.parametrize("name", trainings.TRAININGS)
def test_the_command_of_a_training_is_one_that_its_experiment_takes(name, tmp_path):
    import importlib

    from gm_jax.runner import cli

    words = trainings.command(name, 2_000, data=tmp_path, runs=tmp_path)
    module = importlib.import_module(words[2])
    verb, args = cli.parse(module.CONFIG, words[3:], module=module)
    assert verb == "train"
    assert (args.config.train.steps, args.config.train.checkpoint_every) == (2_000, 200)
    evaluate = shlex.split(f"evaluate --workdir {tmp_path} {trainings.TRAININGS[name].evaluate}")
    assert cli.parse(module.CONFIG, evaluate, module=module)[0] == "evaluate"


def test_packed_data_are_the_data(tmp_path):
    file = pack.pack("digits4x4", tmp_path, None)
    packed, own = sources.load(f"npz:{file}"), sources.load("digits4x4")
    assert (packed.spec.levels, packed.spec.num_classes, packed.spec.cut) == (2, 10, None)
    for split, examples in own.splits.items():
        for name, array in examples.items():
            np.testing.assert_array_equal(packed.splits[split][name], array)


@pytest.mark.slow
def test_commands_run_side_by_side_until_the_deadline():
    python = [accelerator.sys.executable, "-c"]
    commands = {
        "good": [*python, "print('hello')"],
        "bad": [*python, "raise SystemExit(3)"],
        "slow": [*python, "import time; time.sleep(600)"],
    }
    found = workers.run_all(commands, parallel=3, deadline=time.monotonic() + 5.0)
    results = {name: (text.strip(), status) for name, text, status in found}
    assert results == {"good": ("hello", 0), "bad": ("", 3), "slow": ("", -1)}


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_tiny_run_does_every_part_and_writes_it(tmp_path, capsys, monkeypatch):
    # Two virtual devices of a CPU deadlock if many calls with a collective are in flight, as they are in a timing.
    monkeypatch.setenv("XLA_FLAGS", "")
    flags = ["--tiny", "--budget", "6000", "--ready", "2000", "--parallel", "2", "--seconds", "0.2"]
    status = accelerator.main([*flags, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert status == 0
    results = json.loads((tmp_path / "all.json").read_text())
    assert {row["family"] for row in results["correctness"]} == {"vae", "rbm"}
    assert not any(row["failures"] for row in results["correctness"])
    (resumed,) = results["resume"]
    assert (resumed["half_same"], resumed["whole_same"]) == (True, True)
    assert all(len(row["samples"]) == 2 for row in results["speed"].values())
    (training,) = results["train"]
    assert training["results"][0]["name"] == "nll"
    assert printed.rstrip().splitlines()[-1].startswith("| MADE 784-500, B100: gm_jax, pmap")
    assert (tmp_path / "report.md").read_text().rstrip() in printed


def test_what_was_measured_becomes_records(tmp_path):
    from benchmarks.accelerator import publish

    case = {"facts": {"peak_gb": 1.23456}, "ms": 0.123456, "examples_per_second": 123456.7, "share_of_peak": 0.5}
    found = {
        "facts": {"devices": ["cpu"], "versions": {"jax": "1"}, "card": "a card, 1 GiB"},
        "speed": {
            "MADE 784-500, B100: gm_jax": {**case, "spread": 1.0},
            "MADE 784-500, B100: late": {"facts": {"failed": "not ready"}, "samples": []},
        },
        "correctness": [
            {"family": "vae", "mode": "float32", "errors": {"loss": 3e-7, "samples": 0.0}, "failures": []},
            {
                "family": "rbm",
                "mode": "float32",
                "errors": {"loss": 0.5},
                "failures": ["loss 5e-1 > 1e-5"],
                "failures_against_cpu": [],
            },
        ],
        "resume": [
            {"model": "vae", "setting": "defaults", "half_same": True, "whole_same": False, "first_seconds": 2.5}
        ],
        "train": [
            {
                "training": "pixelcnn",
                "steps": 200,
                "seconds": 9.7,
                "results": [
                    {"name": "nll", "value": 81.5, "unit": "nats", "kind": "exact", "data": "npz:/a/digits.npz"},
                ],
            }
        ],
    }
    (tmp_path / "all.json").write_text(json.dumps(found))
    (tmp_path / "training_pixelcnn_metrics.jsonl").write_text('{"step": 100}\n{"step": 180}\n')
    written = publish.publish([tmp_path], commit="0123abc", records=tmp_path)
    assert written == [f"accelerator_{part}" for part in ("speed", "correctness", "resume", "trainings")]
    tables = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in written}
    shown = {name: results.markdown(table).splitlines()[2:] for name, table in tables.items()}
    assert shown["accelerator_speed"] == ["| MADE 784-500, B100 | gm_jax | 0.123 | 123,500 | 50.0 | 1.24 | 1.00 |"]
    assert shown["accelerator_correctness"] == [
        "| vae | float32 | 3e-07 | 0e+00 | agrees |",
        "| rbm | float32 | 5e-01 | | agrees with the CPU of the same machine |",
    ]
    assert shown["accelerator_resume"] == ["| vae | defaults | same bits | other bits |"]
    assert shown["accelerator_trainings"] == ["| pixelcnn | digits | nll, nats | = 81.50 | 180 of 200 | 10 |"]
    assert tables["accelerator_speed"]["rows"][0]["device"] == "a card, 1 GiB"
    assert {row["commit"] for table in tables.values() for row in table["rows"]} == {"0123abc"}


def test_families_that_the_budget_did_not_reach_are_counted_apart_from_those_that_failed():
    row = {"mode": "float32", "errors": {}}
    late = [accelerator.NOT_DONE, accelerator.NOT_BEGUN]
    failures = {"vae": [], "nade": ["loss 1.0e+00 > 1e-05"], "made": late[0], "glow": late[1]}
    rows = [{"family": name, "failures": failed, **row} for name, failed in failures.items()]
    facts = {"devices": ["cpu"], "machine": "two cores", "versions": {}}
    assert "2 checks; failed: nade. Families not done in time: 2." in accelerator.report(facts, {"correctness": rows})
    assert "1 checks; failed: none." in accelerator.report(facts, {"correctness": rows[:1]})
    assert "not done" not in accelerator.report(facts, {"correctness": rows[:2]})
