"""Output without a reader is discarded, and the program continues."""

import io
import os
import pathlib
import subprocess
import sys

import pytest

from gm_jax.cluster import detached_output

PROGRAM = """
import sys, time
from gm_jax.cluster import detached_output
with detached_output.detached():
    for line in range(100):
        print(line, flush={flush})
        print(line, file=sys.stderr)
        time.sleep(0.002)
open(sys.argv[1], "w").write("whole")
"""


@pytest.mark.parametrize("flush", [True, False])
def test_a_program_continues_if_its_pipes_are_closed(flush, tmp_path):
    command = [sys.executable, "-c", PROGRAM.format(flush=flush), str(tmp_path / "end")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "end").read_text() == "whole"


CLOSED = """
import os, sys
from gm_jax.cluster import detached_output
detached_output.reopen_closed()
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(descriptor, b"%d" % descriptor)
with detached_output.detached():
    print("to nobody")
    print("to nobody", file=sys.stderr, flush=True)
    assert sys.stdin.read() == ""
os.write(1, b"from C++")
os.write(2, b"from C++")
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_continues_if_its_streams_were_closed_when_it_began(closed, tmp_path):
    command = f'exec "$0" -c "$1" "$2" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, CLOSED, tmp_path / "end"], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    # No file gets the descriptor of a standard stream, so nothing else is written to it.
    assert int((tmp_path / "end").read_text()) > 2


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_run_ends_normally_if_its_streams_were_closed(closed, tmp_path, compiled_programs, tiny):
    repo, folder = pathlib.Path(__file__).resolve().parents[2], tmp_path / "run"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled_programs)}
    command = [sys.executable, "-m", "experiments.vae", "--workdir", str(folder), *tiny]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], cwd=repo, env=environment)
    assert done.returncode == 0
    assert (folder / "results.json").exists()
    assert (folder / "checkpoints" / "60").is_dir()


@pytest.mark.slow
def test_a_run_ends_normally_if_its_pipes_are_closed(tmp_path, compiled_programs, tiny):
    repo, folder = pathlib.Path(__file__).resolve().parents[2], tmp_path / "run"
    # The run is short, so the pipes are closed before its first output.
    command = [sys.executable, "-m", "experiments.vae", "--workdir", str(folder), *tiny]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled_programs)}
    process = subprocess.Popen(command, cwd=repo, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=280) == 0
    assert (folder / "results.json").exists()


def test_output_reaches_its_reader(capfd):
    with detached_output.detached():
        print("out")
        print("error", file=sys.stderr)
    assert capfd.readouterr() == ("out\n", "error\n")


def test_the_block_restores_the_streams():
    before = sys.stdout, sys.stderr
    with detached_output.detached():
        assert sys.stdout.encoding == before[0].encoding
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


def test_other_errors_are_raised(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "flush", lambda: os.close(1_000_000))
    with pytest.raises(OSError, match="Bad file descriptor"):
        detached_output.DetachedStream(stream).flush()
