import dataclasses
import importlib
import json
import sys

import pytest

from benchmarks import command, timing
from gm_jax.errors import UserError

NAMES = ("vae", "autoregressive", "flow", "gan", "diffusion")


@dataclasses.dataclass(frozen=True)
class Args(command.FlaggedArgs):
    """Time nothing."""

    only: tuple[str, ...] = ()
    """What."""


def measure(args):
    return {"found": [args.rounds, *args.only]}


def run(monkeypatch, *flags, against="json"):
    monkeypatch.setattr(sys, "argv", ["it", *flags])
    command.main("benchmarks.it", Args, measure, lambda results: f"found {results['found']}", against=against)


def test_results_are_printed_and_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(timing, "machine", lambda: "a machine")
    monkeypatch.setattr(timing, "in_own_process", lambda fn: {timing.matmul_rate: 123e9}[fn])
    where = tmp_path / "r.json"
    run(monkeypatch, "--rounds=3", "--only", "a", "b", f"--json={where}", "--experiment-flags=-f")
    printed = capsys.readouterr().out
    assert printed.startswith(
        "found [3, 'a', 'b']\n\ngm_jax: with XLA_FLAGS=-f, as in experiments. "
        "Products of float32 matrices here: 123 GFLOP/s. a machine; python 3"
    )
    written = json.loads(where.read_text())
    assert written["matmul"] == 123e9
    assert written["found"] == [3, "a", "b"]
    assert written["args"] == {"rounds": 3, "seconds": 1.0, "only": ["a", "b"], "experiment_flags": "-f"}
    assert written["versions"]["jax"]


def test_a_missing_peer_is_an_error_before_measuring(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, against="no_such_package")
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert "error: no_such_package, the package to compare with, is not installed" in printed.err
    assert printed.out == ""


def test_a_machine_that_cannot_recognise_clean_samples_is_refused(monkeypatch, capsys):
    def refuse():
        raise UserError("there is no /proc/stat")

    monkeypatch.setattr(timing, "check_machine", refuse)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch)
    assert stopped.value.code == 2
    assert "error: there is no /proc/stat" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*(f"{name}_training" for name in NAMES), "sampling"])
def test_every_benchmark_has_the_parts_of_the_command(name):
    module = importlib.import_module(f"benchmarks.{name}")
    args = module.Args()
    assert isinstance(args, command.Args)
    assert module.Args.__doc__
    assert callable(module.measure)
    assert callable(module.report)
