"""A tool that is asked to stop passes the request on, waits for its command and ends with one line."""

import os
import signal
import sys
import threading

import pytest

from gm_jax import signals
from tools import children

SAVES = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


def begin(tmp_path, code=SAVES):
    with (tmp_path / "out").open("wb") as out:
        return children.start([sys.executable, "-c", code, str(tmp_path / "saved")], stdout=out)


def test_a_command_is_waited_for_and_its_code_returned(tmp_path):
    assert children.wait(begin(tmp_path, "raise SystemExit(3)")) == 3
    sleeping = begin(tmp_path, "import time; time.sleep(60)")
    assert children.wait(sleeping, timeout=0.0) is None
    sleeping.kill()
    assert children.wait(sleeping) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_reaches_the_command_which_saves(number, tmp_path):
    process = begin(tmp_path)
    assert os.getpgid(process.pid) == process.pid  # Ctrl-C in a terminal reaches the tool alone
    while not (tmp_path / "out").read_bytes():
        children.wait(process, timeout=0.05)
    with signals.deferred():
        threading.Timer(0.2, signal.raise_signal, [number]).start()
        with pytest.raises(KeyboardInterrupt):
            children.wait(process)
    assert process.poll() == 0
    assert (tmp_path / "saved").read_text() == "saved"


def test_a_command_that_does_not_leave_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "_PATIENCE", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = begin(tmp_path, code)
    while not (tmp_path / "out").read_bytes():
        children.wait(process, timeout=0.05)
    children.stop(process)
    assert process.returncode == -signal.SIGKILL


def test_a_command_obeys_signals_that_the_tool_ignores_and_the_limit_on_files(tmp_path):
    code = """
import pathlib, signal, sys
assert all(signal.getsignal(n) != signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
pathlib.Path(sys.argv[1]).write_bytes(b"0" * 2000)
"""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGHUP, signal.SIGINT)]
    try:
        with (tmp_path / "out").open("wb") as out:
            command = [sys.executable, "-c", code, str(tmp_path / "saved")]
            codes = [children.wait(children.start(command, stdout=out, stderr=out, largest=n)) for n in (None, 1000)]
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert codes == [0, 1]
    assert "File too large" in (tmp_path / "out").read_text()
