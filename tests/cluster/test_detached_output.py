"""What is printed after its reader has gone goes nowhere, and nobody minds."""

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
with detached_output.lasting():
    for line in range(100):
        print(line, flush={flush})
        print(line, file=sys.stderr)
        time.sleep(0.002)
open(sys.argv[1], "w").write("whole")
"""


@pytest.mark.parametrize("flush", [True, False])
def test_a_program_goes_on_when_its_pipes_are_closed(flush, tmp_path):
    command = [sys.executable, "-c", PROGRAM.format(flush=flush), str(tmp_path / "end")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "end").read_text() == "whole"


@pytest.mark.slow
def test_a_run_goes_on_to_its_end_when_its_pipes_are_closed(tmp_path, compiled_programs, tiny):
    repo, folder = pathlib.Path(__file__).resolve().parents[2], tmp_path / "run"
    # Steps are few: the pipes are closed before the first of them, whose line of validation is the first to be printed.
    command = [sys.executable, "-m", "experiments.vae", "--workdir", str(folder), *tiny]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled_programs)}
    process = subprocess.Popen(command, cwd=repo, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=280) == 0
    assert (folder / "results.json").exists()


def test_what_has_a_reader_reaches_it(capfd):
    with detached_output.lasting():
        print("out")
        print("error", file=sys.stderr)
    assert capfd.readouterr() == ("out\n", "error\n")


def test_the_streams_are_as_before_after_the_block():
    before = sys.stdout, sys.stderr
    with detached_output.lasting():
        assert sys.stdout.encoding == before[0].encoding
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


def test_other_failures_are_raised(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "flush", lambda: os.close(1_000_000))
    with pytest.raises(OSError, match="Bad file descriptor"):
        detached_output.Lasting(stream).flush()
