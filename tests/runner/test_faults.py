"""A run that dies, is stopped or finds damaged checkpoints ends bit for bit as an undisturbed run."""

import logging
import random
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.data import pipeline
from gm_jax.runner import draw, samples, session
from gm_jax.training import parallel

STEPS, EVERY, LOG_EVERY, CALL = 60, 10, 4, 2  # of conftest's tiny run


def same_end(folder, other, state_hash) -> bool:
    return all(
        (folder / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.jsonl", "results.json")
    ) and state_hash(folder) == state_hash(other)


def kills(seed: int) -> list[tuple[str, int]]:
    """Five faults in random order, each at a random step of its own fifth of the run that it can happen at."""
    rng = random.Random(seed)
    every = {"tick": CALL, "log": LOG_EVERY, "validated": EVERY, "saved": EVERY, "half-saved": EVERY}
    order = rng.sample(sorted(every), len(every))
    fifth = STEPS // len(order)
    windows = [range(fifth * index + 1, fifth * (index + 1) + 1) for index in range(len(order))]
    return [
        (what, rng.choice([step for step in window if step % every[what] == 0]))
        for what, window in zip(order, windows, strict=True)
    ]


@pytest.mark.slow
def test_a_run_killed_five_times_ends_as_an_undisturbed_one_bit_for_bit(whole, process, tiny, tmp_path, state_hash):
    folder = tmp_path / "run"
    half_written, before = [], 0
    for what, step in kills(seed=7):
        ended = process("--workdir", folder, *tiny, fault=f"{what}@{step}")
        assert ended.code == -signal.SIGKILL, (what, step, ended)
        resumed = re.search(r"resuming from step (\d+) of 60", ended.out)
        # What was written before the last kill is not lost: at most the interval under way, and the save in flight.
        assert (int(resumed[1]) if resumed else 0) >= before - 2 * EVERY
        left = [path.name for path in (folder / "checkpoints").glob("*.orbax-checkpoint-tmp")]
        assert what != "half-saved" or f"{step}.orbax-checkpoint-tmp" in left
        half_written += left
        before = step
    assert half_written
    ended = process("--workdir", folder, *tiny)
    assert ended.code == 0, ended.err
    assert not list((folder / "checkpoints").glob("*.orbax-checkpoint-tmp"))
    assert same_end(folder, whole, state_hash)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "step"),
    [("term", 14), *(pytest.param(fault, 30, marks=pytest.mark.slow) for fault in ("int", "hup"))],
)
def test_a_stopped_run_saves_exits_with_0_and_resumes_to_the_same_end(
    fault, step, whole, process, command, tiny, tmp_path, state_hash
):
    folder = tmp_path / "run"
    ended = process("--workdir", folder, *tiny, fault=f"{fault}@{step}")
    assert ended.code == 0, ended.err
    assert f"stopped at step {step} and saved" in ended.out
    assert (folder / "checkpoints" / str(step)).is_dir()
    assert not (folder / "results.json").exists()
    ended = command("--workdir", folder, *tiny)
    assert ended.code == 0, ended.err
    assert f"resuming from step {step} of {STEPS}" in ended.out
    assert same_end(folder, whole, state_hash)


def test_a_second_signal_ends_the_run_at_once(process, tiny, tmp_path):
    ended = process("--workdir", tmp_path / "run", *tiny, fault="twice@2")
    assert ended.code == -signal.SIGTERM
    assert "saved" not in ended.out


class Interrupted:
    """Receives a signal where Python discards every exception, so that none that a handler raises could end the run."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", ["eval_batches", "draw_grid", "_draw_progress", "draw_curves"])
def test_a_signal_in_the_final_evaluation_is_not_lost_and_loses_nothing(
    moment, number, finished, command, tiny, whole, monkeypatch, state_hash
):
    owner = {"eval_batches": pipeline, "draw_curves": draw.curves}.get(moment, draw)
    original = getattr(owner, moment)

    def interrupted(*args, **kwargs):
        Interrupted(number)
        return original(*args, **kwargs)

    (finished / "results.json").unlink()
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, interrupted)
        for arguments, code, shown in (
            (tiny, 0, "the training is complete and saved"),
            (["evaluate"], 130, "interrupted"),
        ):
            ended = command(*arguments, "--workdir", finished)
            late = moment == "draw_curves"  # nothing is left to stop
            assert ended.code == (0 if late else code)
            assert (shown in ended.out + ended.err) is not late
            assert signal.getsignal(number) == before
            assert (finished / "results.json").exists() is (moment != "eval_batches")
    assert command("--workdir", finished, *tiny).code == 0
    assert same_end(finished, whole, state_hash)


@pytest.mark.parametrize("num", ["4", "501"])
def test_a_signal_while_samples_are_drawn_ends_the_command(num, finished, command, monkeypatch):
    original = samples.draw_many

    def interrupted(*args, **kwargs):
        Interrupted(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(samples, "draw_many", interrupted)
    ended = command("sample", "--num", num, "--workdir", finished)
    assert (ended.code, ended.err) == (130, "interrupted\n")


def test_a_signal_before_the_first_step_leaves_a_folder_that_protects_nothing(command, tiny, tmp_path, monkeypatch):
    place = session.record_versions
    monkeypatch.setattr(session, "record_versions", lambda *args: (Interrupted(signal.SIGTERM), place(*args)))
    ended = command("--workdir", tmp_path / "run", *tiny)
    assert (ended.code, ended.err) == (0, "")
    assert "stopped at step 0 before anything was saved" in ended.out


def damage(checkpoint, how: str) -> None:
    """Damage the largest file of the state, or the manifest."""
    inside = checkpoint / ("manifest" if how == "manifest" else "state")
    victim = max((path for path in inside.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    if how == "truncate":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0b100
    victim.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "truncate", "manifest"])
def test_a_damaged_latest_checkpoint_is_skipped_with_one_line(how, finished, whole, command, tiny, caplog, state_hash):
    damage(finished / "checkpoints" / str(STEPS), how)
    with caplog.at_level(logging.WARNING, logger="gm_jax"):
        ended = command("--workdir", finished, *tiny)
    assert ended.code == 0, ended.err
    warnings = [record.getMessage() for record in caplog.records if record.name == "gm_jax"]
    assert len(warnings) == 1
    assert re.search(rf"checkpoint {STEPS} .* damaged .*; using checkpoint {STEPS - EVERY} instead", warnings[0])
    assert "\n" not in warnings[0]
    assert f"resuming from step {STEPS - EVERY} of {STEPS}" in ended.out
    assert same_end(finished, whole, state_hash)


def test_if_all_checkpoints_are_damaged_nothing_starts_again(finished, command, tiny, contents):
    for checkpoint in (finished / "checkpoints").iterdir():
        damage(checkpoint, "flip")
    before = contents(finished)
    for arguments in (["--workdir", finished, *tiny], ["evaluate", "--workdir", finished]):
        ended = command(*arguments)
        assert ended.code == 2
        assert "damaged" in ended.err
        assert len(ended.err.splitlines()) <= 3
    after = contents(finished)
    assert {name: after[name] for name in before if name != "versions.json"} == {
        name: text for name, text in before.items() if name != "versions.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("value", "named"), [pytest.param(np.nan, "nan", marks=pytest.mark.slow), (1e30, "inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    value, named, command, tiny, tmp_path, monkeypatch, state_hash
):
    batches = pipeline.train_batches

    def poisoned(split, batch_size, seed, first_step, count, *shard, **settings):
        batch = batches(split, batch_size, seed, first_step, count, *shard, **settings)
        if first_step <= 24 < first_step + count:
            batch["x"][24 - first_step] = value  # the 25th step
        return batch

    folder = tmp_path / "run"
    arguments = ["--workdir", folder, "--data.name", "toy:two_moons", "--decoder", "normal", *tiny]
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_batches", poisoned)
        for _ in range(2):  # the same command again comes to the same end
            ended = command(*arguments)
            assert ended.code == 1
            assert re.search(rf"error: (elbo|nll|loss|kl|grad_norm) became -?{named} at step 25\b", ended.err)
            assert len(ended.err.splitlines()) == 1
            assert state_hash(folder)[1] == 20
    assert command(*arguments).code == 0  # the checkpoint before is good: without the poison the run goes on from it
    assert state_hash(folder)[1] == STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("opt_state", "opt_state"),
        pytest.param("params", "params", marks=pytest.mark.slow),
        pytest.param("ema_params", "validation", marks=pytest.mark.slow),
    ],
)
def test_a_state_that_is_not_finite_is_never_saved(part, named, command, tiny, tmp_path, monkeypatch, state_hash):
    """The metrics of a step precede its update, so that they are finite at the step that spoils the state."""
    folder = tmp_path / "run"

    def spoiled(train):
        def call(state, batches):
            state, metrics = train(state, batches)
            if int(state.step) == 2 * EVERY:
                leaves, structure = jax.tree.flatten(getattr(state, part))
                index = next(i for i, leaf in enumerate(leaves) if leaf.dtype == jnp.float32)
                leaves[index] = leaves[index].at[(0,) * leaves[index].ndim].set(jnp.nan)
                state = state._replace(**{part: jax.tree.unflatten(structure, leaves)})
            return state, metrics

        return call

    with monkeypatch.context() as patch:
        jit = parallel.jit
        patch.setattr(parallel, "jit", lambda: (s := jit())._replace(compile=lambda step: spoiled(s.compile(step))))
        ended = command("--workdir", folder, *tiny)
    assert ended.code == 1
    assert re.fullmatch(
        rf"error: ({named})\S* (log_prob )?became nan at step {2 * EVERY}\. The checkpoints .*\n", ended.err
    )
    assert state_hash(folder)[1] == EVERY
    assert command("--workdir", folder, *tiny).code == 0
    assert state_hash(folder)[1] == STEPS
