"""Requests to stop: a signal sets a flag, and a command stops where it looks at the flag.

    with deferred():             # SIGTERM, SIGHUP and Ctrl-C now set the flag
        while not requested():   # training saves, and leaves
            ...
        for batch in batches:    # all that has nothing to save
            check()              # raises KeyboardInterrupt

No handler raises, because Python discards an exception that arises in a callback of the garbage collector (jax has one)
or in `__del__`, and the signal would be lost. Hence the flag alone ends a command, and compiled code is left first.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGINT)

_received: list[int] = []
_deferring = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Turns signals into a request to stop, for the length of a block. Blocks may be nested: the outermost counts.

    After a first SIGTERM or Ctrl-C the second ends the process at once. SIGHUP, by which a closed terminal or a lost
    ssh session announces itself, often more than once, never ends it; a program under nohup does not receive it.
    Outside the main thread, where Python handles no signals, nothing changes.
    """
    global _deferring
    if _deferring or threading.current_thread() is not threading.main_thread():
        yield
        return
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = _ENDING if ignores_hangup else (*_ENDING, signal.SIGHUP)
    _received.clear()
    previous = {number: signal.signal(number, _receive) for number in numbers}
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        for number, handler in previous.items():
            signal.signal(number, handler)
        _received.clear()


def requested() -> bool:
    """Returns whether a signal has asked this process to stop."""
    return bool(_received)


def check() -> None:
    """Looks at the flag.

    Raises:
        KeyboardInterrupt: a signal has asked this process to stop.
    """
    if _received:
        raise KeyboardInterrupt


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number in _ENDING:
        for other in _ENDING:
            signal.signal(other, signal.SIG_DFL)
