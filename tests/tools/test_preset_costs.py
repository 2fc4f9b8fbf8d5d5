"""`tools.preset_costs`: the rows of plans that end, and of plans that do not."""

import importlib
import json
import subprocess
from pathlib import Path

import pytest

from gm_jax import runner
from gm_jax.recipes import presets
from gm_jax.runner import cli
from tools import preset_costs, results

PLAN = {
    "batch_size": 128,
    "memory": {"total": 1.5e9},
    "seconds": {"step": 0.01},
    "bound": "memory",
    "examples_per_second": 12_800.0,
    "share_of_peak": 0.4567,
    "cycles": 1.5e7,
    "conditionals": 0,
    "inner_loops": [],
    "fits": True,
}


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_the_command_of_a_preset_is_one_that_its_experiment_takes(name):
    preset = presets.PRESETS[name]
    words = preset_costs.command_of(preset, "v5e:2x4").split()
    module = importlib.import_module(words[2])
    verb, args = cli.parse(module.CONFIG, words[3:], module=module)
    assert verb == "plan"
    assert args.plan.topology == ("v5e:2x4",)
    # As many examples as the preset has, or up to seven more.
    assert 0 <= 8 * args.plan.batch_per_chip - preset.config.train.batch_size < 8


def run(monkeypatch, tmp_path, capsys, plan, *, code=0):
    def ended(words, timeout, **_):
        if plan is None:
            raise subprocess.TimeoutExpired(words, timeout)
        Path(words[words.index("--json") + 1]).write_text(json.dumps({"plans": [plan]}), encoding="utf-8")
        return subprocess.CompletedProcess(words, code, "", "error: no compiler")

    monkeypatch.setattr(preset_costs.subprocess, "run", ended)
    argv = ["--only", "ddpm/cifar10", "--folder", str(tmp_path), "--limit", "300"]
    runner.program(preset_costs.Config, preset_costs.record, argv)
    assert "1 plans" in capsys.readouterr().out
    return results.read("preset_plans", tmp_path)


def labels_of(table):
    return next(row["labels"] for row in table["rows"] if row["id"] == "ddpm/cifar10")


def test_a_plan_becomes_a_row_and_other_rows_stay(monkeypatch, tmp_path, capsys):
    other = {"id": "glow/cifar10", "labels": dict.fromkeys(preset_costs._FIELDS, "x"), "command": "c", "numbers": []}
    (tmp_path / "preset_plans.json").write_text(json.dumps({"columns": [], "rows": [other]}), encoding="utf-8")
    table = run(monkeypatch, tmp_path, capsys, PLAN)
    assert [row["id"] for row in table["rows"]] == list(presets.PRESETS)
    lines = results.markdown(table).splitlines()
    # 800,000 steps of 10 ms.
    assert "| `ddpm/cifar10` | 128 | 1.5 GB | 10 ms, memory | 12,800 | 45.7% | 2.2, 800,000 | 15 M |" in lines
    assert sum(line.startswith("| x | x |") for line in lines) == 1
    assert sum("not planned yet" in line for line in lines) == len(presets.PRESETS) - 2


def test_loops_of_unknown_length_make_bounds_of_costs(monkeypatch, tmp_path, capsys):
    found = labels_of(run(monkeypatch, tmp_path, capsys, {**PLAN, "inner_loops": [7, None]}))
    assert found["step at least, bound by"] == "10 ms, memory"
    assert found["images/s, at most"] == "12,800"
    assert found["share of peak, at most"] == "unknown"
    assert found["hours at least, steps"] == "2.2, 800,000"
    assert found["cycles, estimated"] == "at least 15 M"


def test_a_step_of_players_that_take_turns_is_bounded_by_its_larger_branches(monkeypatch, tmp_path, capsys):
    found = labels_of(run(monkeypatch, tmp_path, capsys, {**PLAN, "conditionals": 1}))
    assert found["step at least, bound by"] == "10 ms, memory, larger branches"


@pytest.mark.parametrize(
    ("plan", "code", "why"),
    [
        (None, 0, "did not compile in 5 minutes"),
        ({**PLAN, "fits": False}, 0, "does not fit a chip's memory"),
        (PLAN, 2, "error: no compiler"),
    ],
)
def test_a_plan_that_does_not_end_says_why(monkeypatch, tmp_path, capsys, plan, code, why):
    found = labels_of(run(monkeypatch, tmp_path, capsys, plan, code=code))
    assert found["step at least, bound by"] == why
    assert found["images/s, at most"] == ""
