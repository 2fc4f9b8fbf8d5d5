"""Runs of models with Markov chains: mistakes are refused, divergence stops a run, and kills leave the chains alone."""

import re

import pytest

from experiments import ebm, rbm
from gm_jax.runner.recorder import RunRecorder
from tests.runner.test_cli import assert_mistake

TINY = ("--train.steps", "2", "--train.batch-size", "8", "--train.steps-per-call", "1", "--train.log-every", "1")
TINY_RBM = (
    *(*TINY, "--hidden", "4", "--chains", "8", "--sampling-sweeps", "2", "--raise-temperatures", "0"),
    *("--temperatures", "4", "--runs", "4"),
)
MISTAKES = [
    (rbm, ["--data.name", "toy:pinwheel"], "toy:pinwheel"),
    (rbm, ["--data.name", "wave:tones"], "not made of pixels, so that its 64 levels are not probabilities"),
    (rbm, ["--binarization", "static"], "static is for binary data"),
    (rbm, ["--temperatures", "0"], "--temperatures must be at least 2, got 0."),
    (rbm, ["--temperatures", "1"], "--temperatures must be at least 2, got 1."),
    (rbm, ["--validation-temperatures", "0"], "--validation-temperatures must be at least 2, got 0."),
    (rbm, ["--raise-temperatures", "1"], "--raise-temperatures must be 0, or at least 2, got 1."),
    (rbm, ["--runs", "1"], "--runs must be at least 2, got 1."),
    (rbm, ["--chains", "0"], "chains must be at least 1, got 0"),
    (rbm, ["--sweeps", "0"], "sweeps must be at least 1, got 0"),
    (rbm, ["--chains", "7", "--train.parallel", "pmap"], "has 7 rows, of which a step refreshes 7 on 2 devices"),
    (ebm, ["--chains.persistent", "4"], "--chains.persistent 4 is not a multiple of --train.batch-size 8: use 8, or 0"),
    (ebm, ["--chains.persistent", "20"], "--chains.persistent 20 is not a multiple of --train.batch-size 8: use 16"),
    (ebm, ["--temperatures", "0"], "--temperatures must be at least 2, got 0."),
    (ebm, ["--runs", "1"], "--runs must be at least 2, got 1."),
    (ebm, ["--chains.step-size", "0"], "step-size must be more than 0, got 0"),
    (ebm, ["--chains.steps", "0"], "steps must be at least 1, got 0"),
    (ebm, ["--chains.restart", "1.5"], "restart must"),
    (ebm, ["--leapfrog-step", "0"], "leapfrog-step must be more than 0, got 0"),
]


@pytest.mark.parametrize(
    ("experiment", "arguments", "message"), MISTAKES, ids=[" ".join(arguments) for _, arguments, _ in MISTAKES]
)
def test_a_mistake_is_a_short_error_and_writes_nothing(experiment, arguments, message, command, tmp_path):
    own = (*TINY, "--chains.persistent", "16") if experiment is ebm else TINY_RBM
    ended = command(*own, "--workdir", tmp_path / "run", *arguments, experiment=experiment)
    assert_mistake(ended, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_label_is_refused_by_a_model_without(command, tmp_path):
    folder = tmp_path / "run"
    assert command(*TINY_RBM, "--workdir", folder, experiment=rbm).code == 0
    assert_mistake(command("sample", "--label", "3", "--workdir", folder, experiment=rbm), "label")


DIVERGING = {
    # Langevin steps longer than 4 s^2 throw the chains further out at each step.
    "ebm": (
        ebm,
        *("--data.name", "toy:pinwheel", "--hidden", "4", "--base-std", "1", "--chains.step-size", "4.5"),
        *("--chains.steps", "3", "--chains.persistent", "8", "--chains.sampling-steps", "3"),
    ),
    "rbm": (rbm, *TINY_RBM, "--optimizer.learning-rate", "1e5", "--optimizer.schedule", "constant"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DIVERGING)
def test_chains_that_diverge_stop_the_run_and_the_last_good_checkpoint_stays(name, command, tmp_path):
    experiment, *arguments = DIVERGING[name]
    last = ("--train.steps", "200", "--train.checkpoint-every", "1")
    ended = command(*TINY, *arguments, *last, "--workdir", tmp_path / "run", experiment=experiment)
    assert ended.code == 1
    kept = r"The checkpoints before it are kept in \S+: train in another --workdir with a smaller learning rate"
    found = re.search(rf"energy_gap became nan at step (\d+)\. {kept}", ended.err)
    assert found, ended.err
    step = int(found[1])
    assert 1 < step < 200
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept[-1] == step - 1
    # It opens, and draws.
    ended = command("sample", "--workdir", tmp_path / "run", "--checkpoint", "latest", experiment=experiment)
    assert ended.code == 0, ended.err


EVERY, LAST = 3, 33  # steps from one checkpoint to the next, and of the run
KILLED = (
    *("--train.steps", str(LAST), "--train.batch-size", "20", "--train.steps-per-call", "1"),
    *("--train.log-every", "2", "--train.checkpoint-every", str(EVERY)),
    *("--chains.persistent", "60", "--chains.steps", "2", "--chains.sampling-steps", "2"),
    *("--data.name", "toy:pinwheel", "--hidden", "8"),
)


class Killed(BaseException):
    """Ends a run between two steps; no handler of the package knows it."""


@pytest.mark.slow
def test_chains_killed_ten_times_end_as_those_of_an_undisturbed_run(command, tmp_path, state_hash, monkeypatch):
    # `tools.reliability` kills processes; tests/models/test_chains.py has the other families.
    folder, whole = tmp_path / "run", tmp_path / "whole"
    tick = RunRecorder.tick
    monkeypatch.setattr(RunRecorder, "draw_samples", lambda *args: None)  # a third of a short run
    for kill in range(2, LAST - 1, EVERY):  # in each interval between two checkpoints

        def killing(self, at, last=kill):
            tick(self, at)
            if at == last:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(RunRecorder, "tick", killing)
            with pytest.raises(Killed):
                command("--workdir", folder, *KILLED, experiment=ebm)
    for target in (folder, whole):
        ended = command("--workdir", target, *KILLED, experiment=ebm)
        assert ended.code == 0, ended.err
        assert (f"resuming from step {kill - kill % EVERY} of {LAST}" in ended.out) is (target == folder)
    # The hash is that of every leaf of the checkpoint: parameters, chains, their count and the optimiser.
    assert state_hash(folder) == state_hash(whole)
    assert (folder / "results.json").read_bytes() == (whole / "results.json").read_bytes()
