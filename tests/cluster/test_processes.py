"""Two processes on this machine: they compute what one computes, and if one of them ends, the other ends in time.

Sums over four devices have another order between processes than within one, so that runs of two processes and of one
agree to the last digits of a float32. Over two devices there is only one order: they agree bit for bit.
"""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments import vae
from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import saved
from gm_jax.errors import UserError
from gm_jax.runner.run import reopen
from gm_jax.training import metrics, multihost
from gm_jax.training.checkpoint import Checkpointer

REPO = Path(__file__).resolve().parents[2]
PROCESS = Path(__file__).with_name("_process.py")

STEPS, EVERY, CALL = 12, 4, 2
TINY = (
    *("--hidden", "16", "--latent-dim", "2", "--importance-samples", "3", "--validation-samples", "2"),
    *("--train.steps", str(STEPS), "--train.batch-size", "32", "--train.steps-per-call", str(CALL)),
    *("--train.log-every", str(CALL), "--train.checkpoint-every", str(EVERY), "--train.patience", "0"),
    *("--optimizer.schedule", "constant", "--optimizer.warmup-steps", "5"),
)
HEARTBEAT = 10
BOUND = 270  # seconds after which `timeout` ends a process; far more than a busy machine needs


class Ended(NamedTuple):
    """The end of a process."""

    code: int
    out: str
    err: str
    seconds: float


class Started:
    """A process of the run, ended by `timeout` if it hangs."""

    def __init__(self, arguments: list[str], environment: dict[str, str]):
        command = ["timeout", "-k", "5", str(BOUND), sys.executable, str(PROCESS), "train", *arguments]
        self._process = subprocess.Popen(
            command, env=environment, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._start = time.monotonic()

    def wait(self) -> Ended:
        out, err = self._process.communicate(timeout=BOUND + 10)
        return Ended(self._process.returncode, out, err, time.monotonic() - self._start)


@pytest.fixture(scope="module")
def start(compiled_programs) -> Callable[..., list[Started]]:
    """(folder, *arguments, processes, devices of each, faults) -> the started processes."""
    environment = os.environ | {
        "PYTHONPATH": str(REPO),
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def run(folder: Path, *arguments: object, processes: int = 2, devices: int = 2, faults: dict | None = None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = []
        for process in range(processes):
            flags = ["--workdir", folder, *TINY, *arguments]
            if processes > 1:
                flags += ["--cluster.coordinator", f"127.0.0.1:{port}", "--cluster.num-processes", processes]
                flags += ["--cluster.process-id", process]
            settings = {"DEVICES": str(devices), "FAULT": (faults or {}).get(process, "")}
            started.append(Started([str(flag) for flag in flags], environment | settings))
        return started

    return run


@pytest.fixture(scope="module")
def run(start) -> Callable[..., list[Ended]]:
    """The same as `start`, and waits for the ends."""
    return lambda *args, **kwargs: [started.wait() for started in start(*args, **kwargs)]


@pytest.fixture(scope="module")
def complete(run, tmp_path_factory) -> Callable[..., Path]:
    """The folder of a complete run, trained at the first call."""
    folders: dict[tuple, Path] = {}

    def get(parallel: str, processes: int, devices: int) -> Path:
        key = (parallel, processes, devices)
        if key not in folders:
            folder = tmp_path_factory.mktemp("cluster") / "run"
            for ended in run(folder, "--train.parallel", parallel, processes=processes, devices=devices):
                assert ended.code == 0, ended
            folders[key] = folder
        return folders[key]

    return get


def lines(folder: Path) -> list[metrics.Line]:
    return metrics.read(folder / "metrics.jsonl")


def leaves(folder: Path) -> list[np.ndarray]:
    """The leaves of the checkpoint of the last step."""
    opened = reopen(folder)
    with Checkpointer(folder / "checkpoints", read_only=True) as checkpointer:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpointer.restore_step(opened.abstract_state(), STEPS))]


def same_bits(folder: Path, other: Path) -> bool:
    return (
        (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
        and (folder / "results.json").read_bytes() == (other / "results.json").read_bytes()
        and all(a.tobytes() == b.tobytes() for a, b in zip(leaves(folder), leaves(other), strict=True))
    )


def assert_close(folder: Path, other: Path, *, rtol: float) -> None:
    assert [line[:2] for line in lines(folder)] == [line[:2] for line in lines(other)]
    for line, reference in zip(lines(folder), lines(other), strict=True):
        assert line.values.keys() == reference.values.keys()
        for name, value in line.values.items():
            assert value == pytest.approx(reference.values[name], rel=rtol), (line.step, name)


def assert_names_culprit(ended: Ended, pattern: str) -> None:
    """Asserts that a process ended because another one failed: exit code 1, and one line that names the culprit.

    If jax aborts from C++ at the same moment, C++ has printed its stack beside that line.
    """
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(rf"error: {pattern}; start all processes again: they resume from the last checkpoint", line)
    assert ended.code == 1, ended


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_processes_compute_the_same_as_one_with_as_many_devices(parallel, complete):
    two, one = complete(parallel, 2, 2), complete(parallel, 1, 4)
    assert_close(two, one, rtol=1e-6)
    for leaf, reference in zip(leaves(two), leaves(one), strict=True):
        np.testing.assert_allclose(leaf, reference, rtol=1e-4, atol=1e-6)
    if parallel == "jit":
        assert_close(two, complete("jit", 1, 1), rtol=1e-5)
    versions = json.loads((two / "versions.json").read_text())
    assert (len(versions), versions[0]["processes"], len(versions[0]["devices"])) == (1, 2, 4)  # written once
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    for picture in one.glob("*.png"):
        assert (two / picture.name).stat().st_size > 0


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_resuming_is_bit_identical(run, complete, tmp_path):
    folder = tmp_path / "run"
    first, killed = run(folder, "--cluster.heartbeat-timeout", HEARTBEAT, faults={1: f"kill@{2 * EVERY + CALL}"})
    assert killed.code == -signal.SIGKILL or killed.code == 128 + signal.SIGKILL
    assert_names_culprit(
        first, rf"process 1 \(pid \d+ on {socket.gethostname()}\) is dead or stopped: no heartbeat since .* \d+"
    )
    assert first.seconds - killed.seconds < HEARTBEAT + 30
    again = run(folder)
    assert [ended.code for ended in again] == [0, 0], again
    assert re.search(rf"resuming from step ({EVERY}|{2 * EVERY}) of {STEPS}", again[0].out)
    assert "resuming" not in again[1].out
    assert same_bits(folder, complete("jit", 2, 2))


@pytest.mark.slow
def test_sigterm_to_one_stops_all_and_one_process_resumes(run, complete, tmp_path):
    folder, pmap = tmp_path / "run", ("--train.parallel", "pmap")
    both = run(folder, *pmap, devices=1, faults={1: f"term@{CALL}"})
    assert [ended.code for ended in both] == [0, 0], both
    step = int(re.search(r"stopped at step (\d+) and saved", both[0].out)[1])
    assert CALL < step < STEPS
    assert (folder / "checkpoints" / str(step)).is_dir()
    assert "stopped" not in both[1].out
    (alone,) = run(folder, *pmap, processes=1)
    assert alone.code == 0, alone
    assert f"resuming from step {step} of {STEPS}" in alone.out
    assert same_bits(folder, complete("pmap", 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_processes_finish_the_run_of_one_bit_for_bit(parallel, run, complete, tmp_path):
    folder, strategy = tmp_path / "run", ("--train.parallel", parallel)
    (alone,) = run(folder, *strategy, processes=1, faults={0: f"term@{EVERY + CALL}"})
    assert alone.code == 0, alone
    assert "stopped at step" in alone.out
    both = run(folder, *strategy, devices=1)
    assert [ended.code for ended in both] == [0, 0], both
    assert same_bits(folder, complete(parallel, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("heartbeat", "stall"), [(200, 6), (HEARTBEAT, 120)], ids=["stall", "heartbeat"])
def test_a_stopped_process_is_named_after_either_timeout(heartbeat, stall, start, tmp_path):
    folder = tmp_path / "run"
    waits = ("--cluster.heartbeat-timeout", heartbeat, "--cluster.stall-timeout", stall)
    first, stopped = start(folder, *waits, faults={1: f"stop@{EVERY + CALL}"})
    ended = first.wait()
    os.kill(json.loads((folder / "processes" / "1.json").read_text())["pid"], signal.SIGKILL)
    stopped.wait()
    assert_names_culprit(
        ended, rf"process 1 \(pid \d+ on {socket.gethostname()}\) is dead or stopped: no heartbeat since .* \d+"
    )


@pytest.mark.slow
def test_the_death_of_process_0_is_named_by_the_other(run, tmp_path):
    waits = ("--cluster.heartbeat-timeout", HEARTBEAT)
    killed, second = run(tmp_path / "run", *waits, faults={0: f"kill@{EVERY + CALL}"})
    assert second.code == 1, second
    # jax aborts from C++ and prints a page, because process 0 hosts its coordination service; the line is the last.
    line = second.err.splitlines()[-1]
    assert re.match(r"error: process 0 \(pid \d+ on .*\) is dead or stopped: no heartbeat since .*; start all", line)
    assert second.seconds - killed.seconds < HEARTBEAT + 30


@pytest.mark.slow
def test_a_stalled_process_is_named_by_itself_and_the_other(run, tmp_path):
    waits = ("--cluster.heartbeat-timeout", 200, "--cluster.stall-timeout", 6)
    for ended in run(tmp_path / "run", *waits, faults={1: f"sleep@{EVERY + CALL}"}):
        assert_names_culprit(
            ended, r"process 1 \(.*\) is stalled in reading data at step 6, and .* waits for it: \d+ s so far"
        )
        assert ended.code == 1


@pytest.mark.slow
def test_the_others_wait_for_drawing_beyond_the_shutdown_timeout(run, tmp_path):
    folder, drawing = tmp_path / "run", 9
    both = run(folder, "--cluster.shutdown-timeout", drawing // 3, faults={0: f"slow@{drawing}"})
    assert [ended.code for ended in both] == [0, 0], both
    assert (folder / "results.json").exists()
    assert (folder / "samples.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{1: "measure"}, {0: "draw"}])
def test_sigterm_in_the_final_evaluation_ends_both_with_exit_code_0(fault, run, tmp_path):
    folder = tmp_path / "run"
    first, second = run(folder, faults=fault)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert "stopped while evaluating; the training is complete and saved" in first.out
    assert "stopped" not in second.out
    # Numbers are written before pictures are drawn.
    assert (folder / "results.json").exists() == ("draw" in fault.values())
    assert not (folder / "samples.png").exists()
    assert (folder / "checkpoints" / str(STEPS)).is_dir()


@pytest.mark.slow
def test_an_exception_in_one_process_is_reported_by_the_other(run, tmp_path):
    heartbeat = ("--cluster.heartbeat-timeout", HEARTBEAT)
    first, broken = run(tmp_path / "run", *heartbeat, faults={1: f"raise@{EVERY + CALL}"})
    assert broken.code == 1
    assert broken.err.splitlines()[-1] == "ValueError: the data are gone"
    assert_names_culprit(first, r"process 1 \(.*\) ended in reading data at step 6: ValueError: the data are gone")
    assert first.seconds - broken.seconds < HEARTBEAT + 30


@pytest.mark.slow
def test_a_process_with_other_code_is_named_before_anything_is_written(run, start, tmp_path):
    folder = tmp_path / "run"
    for ended in run(folder, faults={1: "code"}):
        assert ended.code == 2
        assert ended.err.startswith("error: process 1 differs from process 0: code jax is 0.0.0, not ")
        assert len(ended.err.splitlines()) == 2
    assert not folder.exists()


def test_orbax_logs_no_page_if_another_process_has_left_a_save():
    def record(*causes: Exception) -> logging.LogRecord:
        error = None
        for cause in causes:
            cause.__cause__, error = error, cause
        exc_info = None if error is None else (type(error), error, None)
        return logging.LogRecord("absl", logging.ERROR, "async_checkpointer.py", 1, "failed", (), exc_info)

    barrier = jax.errors.JaxRuntimeError("INTERNAL: Barrier failed")
    assert not processes.is_news(record(barrier))
    assert not processes.is_news(record(barrier, ValueError("a save has failed")))
    assert processes.is_news(record(OSError("no space left")))
    assert processes.is_news(record())


def test_settings_that_differ_are_named(monkeypatch):
    def everyone(own):
        return [own, own | {"config train.seed": 5}, own | {"data": "1" * 64, "code flax": "0.1"}]

    monkeypatch.setattr(multihost, "all_gather_json", everyone)
    with pytest.raises(multihost.CollectiveUserError) as raised:
        processes.check_same(saved.facts(vae.CONFIG), "experiments.vae", data="0" * 64)
    assert "process 1 differs from process 0: config train.seed is 5, not 0" in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


def test_settings_that_do_not_change_the_result_may_differ_between_processes():
    facts = saved.facts(vae.CONFIG)
    assert facts["train.seed"] == 0
    assert not {"data.dir", "train.keep_checkpoints"} & facts.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_processes": 2}, "--cluster.coordinator is missing"),
        ({"coordinator": "here"}, "HOST:PORT"),
        ({"coordinator": "here:0"}, "HOST:PORT"),
        ({"coordinator": "here:1234"}, "--cluster.num-processes and --cluster.process-id too"),
        ({"coordinator": "here:1234", "num_processes": 2, "process_id": 2}, "give 0 to 1, one to each process"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(UserError, match=message), processes.joined(ClusterConfig(**settings)):
        pass
