"""A run of two players: its bandwidth and its mode counts are reported, and it resumes after kills."""

import json
import re
import signal

import numpy as np
import pytest

from experiments import improved_gan
from gm_jax import runner
from gm_jax.runner.run import reopen
from gm_jax.training.checkpoint import Checkpointer

FLAGS = (
    *("--data.name", "toy:eight_gaussians", "--hidden", "8", "--centres", "40", "--train.batch-size", "16"),
    *("--generator.schedule", "constant", "--discriminator.schedule", "constant"),
    *("--train.checkpoint-every", "10", "--train.log-every", "5", "--train.steps-per-call", "5"),
)


def command(*argv):
    runner.main(improved_gan.CONFIG, [str(word) for word in argv], module=improved_gan)


@pytest.mark.slow
def test_an_extended_gan_run_keeps_its_numbers_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command(*FLAGS, "--train.steps", 20, "--workdir", whole)
    for steps in (10, 20):  # with the historical means and the reference batch
        command(*FLAGS, "--train.steps", steps, "--workdir", parts)
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for name in ("samples.png", "over_time.png"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()

    records = {record["name"]: record for record in json.loads((whole / "results.json").read_text())}
    assert set(records) == {"nll", "modes_covered", "share_at_modes", "share_of_rarest", "share_within_std"}
    nll, modes = records["nll"], records["modes_covered"]
    assert (nll["kind"], nll["measure"], nll["split"], nll["unit"]) == ("estimate", "continuous", "test", "nats")
    assert (nll["settings"]["centres"], nll["settings"]["space"]) == (40, "R^2")
    assert 0.01 < nll["settings"]["bandwidth"] < 10.0
    assert (modes["split"], modes["examples"], modes["unit"]) == ("samples", 10_000, "of 8")
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    counted = [line for line in lines if line["split"] == "samples"]
    assert [line["step"] for line in counted] == [10, 20]
    # The reported count of the checkpoint is the count that was logged at its step.
    logged = {line["step"]: line for line in counted}[modes["settings"]["step"]]
    np.testing.assert_allclose(modes["value"], logged["modes_covered"])

    # Another number of centres is another estimate, with a bandwidth of its own.
    command("evaluate", "--workdir", whole, "--centres", 400)
    again = [record for record in json.loads((whole / "results.json").read_text()) if record["name"] == "nll"]
    assert [record["settings"]["centres"] for record in again] == [40, 400]


@pytest.mark.slow
def test_a_killed_gan_run_resumes_with_its_means_and_reference_batch(process, tmp_path, state_hash):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = (*FLAGS, "--train.steps", "30", "--feature-matching")
    assert process(*flags, "--workdir", whole, experiment="improved_gan").code == 0
    ended = process(*flags, "--workdir", killed, experiment="improved_gan", fault="tick@25")
    assert ended.code == -signal.SIGKILL, ended.err
    ended = process(*flags, "--workdir", killed, experiment="improved_gan")
    # The save at 20 may have been in flight; the one at 10 was whole before that began.
    assert re.search(r"resuming from step [12]0 of 30", ended.out), ended.err
    assert state_hash(killed) == state_hash(whole)
    for name in ("metrics.jsonl", "results.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    # Both are in the states that are compared: each player's mean of 30 parameters, and the latents of `init`.
    run = reopen(killed)
    with Checkpointer(killed / "checkpoints", read_only=True) as checkpointer:
        model_state = checkpointer.restore_step(run.abstract_state(), 30).state.model_state
    assert [int(past["count"]) for past in model_state["history"].values()] == [30, 30]
    assert np.std(model_state["generator"]["reference_batch"]["x"]) > 0.5
