"""tools/tpu_pod.sh on a slice whose two workers are folders here, with a gcloud that runs commands locally."""

import os
import pathlib
import signal
import subprocess
import time
from typing import NamedTuple

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "tools" / "tpu_pod.sh"

# gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker=WHICH --command WHAT
GCLOUD = """#!/bin/sh
case "$*" in "compute tpus tpu-vm ssh pod --zone here --worker="*) ;; *) exit 3 ;; esac
which=${8#--worker=} code=0
[ "$which" != all ] || which='0 1'
for worker in $which; do TMPDIR="$SLICE/$worker" sh -c "${10}" || code=$?; done
exit $code
"""

# Replaces the Python of the workers: prints its arguments, and runs until SIGTERM or for so many ticks.
PYTHON = """#!/bin/sh
trap 'echo saved; exit 0' TERM
for argument in "$@"; do echo "<$argument>"; done
for tick in $(seq "$TICKS"); do sleep 0.1; done
exit 7
"""


class Slice(NamedTuple):
    """Two workers.

    Attributes:
        root: the folder that holds their folders, 0 and 1.
        environment: environment variables with which the script finds them.
    """

    root: pathlib.Path
    environment: dict[str, str]

    def start(self, *arguments: str, ticks: int = 600) -> subprocess.Popen:
        """Starts the script."""
        environment = self.environment | {"TICKS": str(ticks)}
        return subprocess.Popen(
            [SCRIPT, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, ticks: int = 600) -> subprocess.CompletedProcess:
        """Runs the script to its end."""
        process = self.start(*arguments, ticks=ticks)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def file(self, worker: int, name: str) -> pathlib.Path:
        """Returns the path of a file that a worker keeps about its run."""
        return self.root / str(worker) / f"gm_jax.{os.getuid()}" / name


@pytest.fixture
def workers(tmp_path):
    """The slice; runs that are still active are killed after the test."""
    for path, text in {"bin/gcloud": GCLOUD, "clone/.venv/bin/python": PYTHON}.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    for worker in "01":
        (tmp_path / worker).mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    slice_ = Slice(tmp_path, os.environ | {"PATH": path, "SLICE": str(tmp_path), "GM_JAX": str(tmp_path / "clone")})
    yield slice_
    for worker in (0, 1):
        if slice_.file(worker, "pid").exists() and not slice_.file(worker, "code").exists():
            os.kill(int(slice_.file(worker, "pid").read_text()), signal.SIGKILL)


def until(condition):
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_all_workers_get_the_command_and_worker_0_is_watched(workers):
    flags = ("--workdir", "/mnt/a b/it's", "--hidden", "", "$(touch no)")
    ended = workers.run("start", "pod", "here", "vae", *flags, ticks=5)
    expected = ["-m", "experiments.vae", "train", "--cluster.coordinator", "auto", *flags]
    assert ended.stdout.splitlines() == [f"<{argument}>" for argument in expected], ended
    assert ended.returncode == 7
    until(workers.file(1, "code").exists)
    assert workers.file(1, "log").read_text() == ended.stdout


@pytest.mark.slow
def test_a_run_outlives_its_start_command_and_stops_on_request(workers):
    watching = workers.start("start", "pod", "here", "vae")
    assert watching.stdout.readline() == "<-m>\n"
    # In a session of its own, so that no hang-up reaches it.
    assert os.getsid(int(workers.file(0, "pid").read_text())) != os.getsid(watching.pid)
    watching.kill()
    watching.stdout.close()
    watching.stderr.close()
    watching.wait()
    again = workers.run("start", "pod", "here", "vae")
    assert again.returncode == 1
    assert again.stderr.count("a run is active here; stop it first") == 2
    stopped = workers.run("stop", "pod", "here")
    assert stopped.returncode == 0, stopped
    for worker in ("0", "1"):
        watched = workers.run("watch", "pod", "here", worker)
        assert watched.returncode == 0
        assert watched.stdout.splitlines()[-1] == "saved"
    assert "no run is active here" in workers.run("stop", "pod", "here").stderr


@pytest.mark.parametrize("arguments", [(), ("start", "pod", "here"), ("begin", "pod", "here", "vae")])
def test_wrong_arguments_print_the_usage(arguments, workers):
    ended = workers.run(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("tools/tpu_pod.sh") == 3


def test_watching_a_run_that_was_not_started_is_an_error(workers):
    ended = workers.run("watch", "pod", "here")
    assert ended.returncode == 1
    assert "no run was started here" in ended.stderr
