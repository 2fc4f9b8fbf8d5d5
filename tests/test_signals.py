"""A signal is a request that no callback can swallow, and the second one ends the process."""

import contextlib
import gc
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from gm_jax import signals

REPO = pathlib.Path(__file__).resolve().parents[1]
ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_a_request_and_raises_nothing(number, hangups_count):
    before = {other: signal.getsignal(other) for other in ALL}
    with signals.deferred():
        signals.check()
        assert not signals.requested()
        signal.raise_signal(number)
        assert signals.requested()
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        # The next one is not caught, so it would end the process; a terminal may hang up more than once.
        ending = [signal.getsignal(other) is signal.SIG_DFL for other in ALL]
        assert ending == ([False] * 3 if number == signal.SIGHUP else [True, True, False])
    assert not signals.requested()
    signals.check()
    assert {other: signal.getsignal(other) for other in ALL} == before


class Interrupted:
    """Receives a signal while it is deleted, where Python discards every exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_while_an_object_is_deleted_is_not_lost():
    with signals.deferred():
        Interrupted()
        assert signals.requested()


def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost():
    def callback(phase, info):
        if phase == "start" and not signals.requested():
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(callback)
    try:
        with signals.deferred():
            gc.collect()
            assert signals.requested()
    finally:
        gc.callbacks.remove(callback)


def test_inside_another_block_nothing_changes(hangups_count):
    with signals.deferred():
        signal.raise_signal(signal.SIGHUP)
        with signals.deferred():
            assert signals.requested()
        assert signals.requested()


def test_handlers_are_restored_after_an_error():
    def mine(number, frame):
        raise AssertionError("not called")

    original = signal.signal(signal.SIGTERM, mine)
    try:
        with contextlib.suppress(RuntimeError), signals.deferred():
            assert signal.getsignal(signal.SIGTERM) is not mine
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, original)


def test_a_program_that_was_started_to_outlive_its_terminal_ignores_a_hangup():
    original = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.deferred():
            signal.raise_signal(signal.SIGHUP)
            assert not signals.requested()
    finally:
        signal.signal(signal.SIGHUP, original)


def test_in_another_thread_nothing_changes():
    before, during = signal.getsignal(signal.SIGINT), []

    def work():
        with signals.deferred():
            during.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


WAITING = """
import time
from gm_jax import signals
with signals.deferred():
    print("ready", flush=True)
    while not signals.requested():
        time.sleep(0.01)
    print("requested", flush=True)
    time.sleep(120)
"""


def test_a_second_signal_ends_the_process():
    pairs = [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)]
    children = [
        subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True, cwd=REPO) for _ in pairs
    ]
    try:
        for child, (first, second) in zip(children, pairs, strict=True):
            assert child.stdout.readline() == "ready\n"
            child.send_signal(first)
            assert child.stdout.readline() == "requested\n"
            assert child.poll() is None
            child.send_signal(second)
            assert child.wait(timeout=30) == -second
    finally:
        for child in children:
            child.kill()
            child.stdout.close()
