"""Runs of flows: what only flows have."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import glow, nice, realnvp, spline_flow
from gm_jax.data import toy
from gm_jax.plotting import images

REPO = pathlib.Path(__file__).resolve().parents[2]
TINY = (
    *("--train.steps", "20", "--train.batch-size", "32", "--train.steps-per-call", "2", "--train.log-every", "4"),
    *("--train.checkpoint-every", "10", "--train.patience", "0"),
    *("--optimizer.schedule", "constant", "--optimizer.warmup-steps", "5"),
)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_actnorms_bit_for_bit(process, tmp_path, state_hash):
    """Actnorms that start again with the current batch would change every parameter."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = ("--scales", "1", "--steps", "2", "--features", "4", *TINY)
    for folder, fault in ((whole, ""), (stopped, "term@14"), (stopped, "")):
        ended = process("--workdir", folder, *arguments, fault=fault, experiment="glow")
        assert ended.code == 0, ended.err
        assert ("stopped at step 14 and saved" in ended.out) == bool(fault)
    assert "resuming from step 14 of 20" in ended.out
    assert state_hash(stopped) == state_hash(whole)
    for name in ("metrics.jsonl", "results.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_the_density_of_points_is_drawn(command, tmp_path):
    folder = tmp_path / "run"
    arguments = ("--data.name", "toy:two_moons", "--hidden", "8", "--blocks", "1", "--bins", "4", *TINY)
    ended = command("--workdir", folder, *arguments, experiment=spline_flow)
    assert ended.code == 0, ended.err
    assert "density.png" in ended.out
    assert images.read(folder / "density.png").std() > 0
    (record,) = json.loads((folder / "results.json").read_text())
    assert (record["name"], record["unit"], record["kind"]) == ("nll", "nats", "exact")


@pytest.mark.slow
def test_a_spline_flow_comes_within_a_twentieth_of_a_nat_of_the_entropy(tmp_path):
    """With the experiment's own command, on the devices of this machine; the checkerboard's edges are the hardest."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    arguments = ("--data.name", "toy:checkerboard", "--workdir", tmp_path / "run")
    command = (sys.executable, "-m", "experiments.spline_flow", *arguments)
    done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (record["kind"], record["split"], record["examples"]) == ("exact", "test", 10_000)
    assert abs(record["value"] - toy.toy_entropy("checkerboard")) < 0.05


@pytest.mark.parametrize(
    ("experiment", "flags", "message"),
    [
        (nice, ("--alpha", "0.5"), "--alpha 0.5 leaves nothing between alpha and 1 - alpha"),
        (glow, ("--data.name", "toy:two_moons"), "toy:two_moons is not made of images"),
        (realnvp, ("--data.name", "toy:two_moons", "--network", "conv"), "toy:two_moons is not made of images"),
    ],
)
def test_contradictions_of_a_flow_are_refused(command, tmp_path, experiment, flags, message):
    ended = command("--workdir", tmp_path / "run", *flags, experiment=experiment)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) <= 3
    assert not (tmp_path / "run").exists()
