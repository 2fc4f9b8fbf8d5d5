"""Runs of models with Markov chains: mistakes are refused at the start, and kills leave the chains alone."""

import re
import signal

import pytest

from experiments import ebm, rbm
from tests.runner.test_cli import assert_mistake

TINY = ("--train.steps", "2", "--train.batch-size", "8", "--train.steps-per-call", "1", "--train.log-every", "1")
TINY_RBM = (*TINY, "--hidden", "4", "--chains", "8", "--sampling-sweeps", "2", "--raise-temperatures", "0")
MISTAKES = [
    (rbm, ["--data.name", "toy:pinwheel"], "toy:pinwheel"),
    (rbm, ["--binarization", "static"], "static is for binary data"),
    (rbm, ["--temperatures", "1"], "--temperatures 1 is too few for annealed importance sampling: use at least 2"),
    (rbm, ["--validation-temperatures", "1"], "--validation-temperatures 1 is too few"),
    (rbm, ["--raise-temperatures", "1"], "--raise-temperatures 1 is too few for a path"),
    (rbm, ["--runs", "1"], "--runs 1 is too few"),
    (rbm, ["--chains", "0"], "chains must be at least 1, got 0"),
    (rbm, ["--sweeps", "0"], "sweeps must be at least 1, got 0"),
    (rbm, ["--chains", "7", "--train.parallel", "pmap"], "has 7 rows, of which a step refreshes 7 on 2 devices"),
    (ebm, ["--chains.persistent", "4"], "--chains.persistent 4 is not a multiple of --train.batch-size 8: use 8, or 0"),
    (ebm, ["--chains.persistent", "20"], "--chains.persistent 20 is not a multiple of --train.batch-size 8: use 16"),
    (ebm, ["--temperatures", "1"], "--temperatures 1 is too few for annealed importance sampling: use at least 2"),
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


def test_a_label_is_refused_by_a_model_without(command, tmp_path):
    folder = tmp_path / "run"
    assert command(*TINY_RBM, "--workdir", folder, experiment=rbm).code == 0
    assert_mistake(command("sample", "--label", "3", "--workdir", folder, experiment=rbm), "label")


EVERY = 4  # steps from one checkpoint to the next
KILLED = (
    *("--data.name", "toy:pinwheel", "--hidden", "8", "--train.steps", "44", "--train.batch-size", "20"),
    *("--train.steps-per-call", "1", "--train.log-every", "2", "--train.checkpoint-every", str(EVERY)),
    *("--chains.persistent", "60", "--chains.steps", "3", "--chains.sampling-steps", "3"),
)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_chains_killed_ten_times_end_as_those_of_an_undisturbed_run(process, tmp_path, state_hash):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    for step in range(3, 43, EVERY):  # in each interval between two checkpoints
        ended = process("--workdir", folder, *KILLED, fault=f"tick@{step}", experiment="ebm")
        assert ended.code == -signal.SIGKILL, (step, ended)
        resumed = re.search(r"resuming from step (\d+) of 44", ended.out)
        # What was written before the last kill is not lost: at most the interval under way, and the save in flight.
        assert (int(resumed[1]) if resumed else 0) >= step - 4 - 2 * EVERY
    for target in (folder, whole):
        ended = process("--workdir", target, *KILLED, experiment="ebm")
        assert ended.code == 0, ended.err
    # The hash is that of every leaf of the checkpoint: parameters, chains, their count and the optimiser.
    assert state_hash(folder) == state_hash(whole)
    assert (folder / "results.json").read_bytes() == (whole / "results.json").read_bytes()
