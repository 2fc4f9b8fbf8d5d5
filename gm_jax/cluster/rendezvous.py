"""Where the processes of a run meet: at the port of process 0, before jax takes it.

jax alone waits five minutes and then aborts from C++ if the port is in use, if two processes have one id or if a
process is missing. Here each of these mistakes is one line, within seconds, and Ctrl-C ends the wait.

Process 0 listens. Each other process connects, as soon as somebody listens, and sends one line of JSON; the answer is
one line, "gm_jax go" when all are there, or "gm_jax " and what is wrong. Everything else that connects is ignored.

A process that comes with the id of another leaves its own id without a process. Hence process 0 gives those that are
missing a few seconds more, and then ends the wait of all.
"""

import contextlib
import errno
import json
import os
import selectors
import socket
import time
from typing import NamedTuple

from gm_jax import signals
from gm_jax.errors import UserError

_GO = "go"
_PREFIX = b"gm_jax "
_LONGEST = 4096  # bytes of a line
_LOOK = 0.2  # seconds between two looks at the flag of signals and at the clock
_GRACE = 15.0  # seconds that are left for the missing processes after one that was started wrongly


class _Guest(NamedTuple):
    """What a process sends to process 0."""

    process: int
    num_processes: int
    host: str
    pid: int


def meet(address: str, process: int, num_processes: int, *, timeout: float = 300.0) -> None:
    """Waits until all processes of a run are there; afterwards the port is free for jax.

    Args:
        address: HOST:PORT of process 0.
        process: index of this process.
        num_processes: of the run.
        timeout: seconds to wait.

    Raises:
        UserError: the port is in use, another process has the same index, or not all came in time: within a few seconds
            if one that came was started wrongly.
        KeyboardInterrupt: a signal has asked this process to stop.
    """
    deadline = time.monotonic() + timeout
    if process == 0:
        _receive(address, num_processes, deadline)
    else:
        _arrive(address, _Guest(process, num_processes, socket.gethostname(), os.getpid()), deadline)


def _receive(address: str, num_processes: int, deadline: float) -> None:
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        server = stack.enter_context(_listen(address, num_processes))
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        waiting: dict[socket.socket, _Guest] = {}
        wrong = ""  # what is wrong with a process that came
        while len(waiting) < num_processes - 1:
            missing = sorted(set(range(1, num_processes)) - {guest.process for guest in waiting.values()})
            why = f"process {', '.join(map(str, missing))} did not come to {address}"
            try:
                _look(deadline, f"{why}, and {wrong}" if wrong else f"{why}: start all processes.")
            except UserError as error:
                for connection in waiting:
                    _answer(connection, " ".join(str(error).split()))
                raise
            for key, _ in selector.select(_LOOK):
                connection = key.fileobj
                if connection is server:
                    with contextlib.suppress(OSError):
                        new, _ = server.accept()
                        stack.enter_context(new)
                        new.setblocking(False)
                        selector.register(new, selectors.EVENT_READ, data=bytearray())
                elif isinstance(connection, socket.socket):
                    stays, refused = _read(connection, key.data, waiting, num_processes)
                    if refused:
                        wrong, deadline = refused, min(deadline, time.monotonic() + _GRACE)
                    if not stays:
                        waiting.pop(connection, None)
                        selector.unregister(connection)
                        connection.close()
        for connection in waiting:
            _answer(connection, _GO)


def _read(
    connection: socket.socket, received: bytearray, waiting: dict[socket.socket, _Guest], num_processes: int
) -> tuple[bool, str]:
    """Reads what has come from a connection; returns whether it stays open, and why a process was refused."""
    try:
        part = connection.recv(_LONGEST)
    except OSError:
        return False, ""
    received += part
    if not part or connection in waiting or len(received) > _LONGEST:
        return False, ""
    if not received.endswith(b"\n"):
        return True, ""
    try:
        guest = _Guest(**json.loads(received))
        if type(guest.process) is not int or not 0 <= guest.process < num_processes:
            return False, ""
    except (ValueError, TypeError, RecursionError):
        return False, ""
    refused = _refusal(guest, waiting, num_processes)
    if refused:
        _answer(connection, refused)
        return False, refused
    waiting[connection] = guest
    return True, ""


def _refusal(guest: _Guest, waiting: dict[socket.socket, _Guest], num_processes: int) -> str:
    """Returns what is wrong with a process; empty if nothing is."""
    if guest.num_processes != num_processes:
        return f"process 0 has --cluster.num-processes {num_processes}: give all processes the same."
    twin = next((other for other in waiting.values() if other.process == guest.process), None)
    if twin is None and guest.process != 0:
        return ""
    by = "process 0" if twin is None else f"pid {twin.pid} on {twin.host}"
    return f"--cluster.process-id {guest.process} is taken by {by}: give each process an id of its own."


def _arrive(address: str, guest: _Guest, deadline: float) -> None:
    with _connect(address, deadline) as connection:
        received = b""
        try:
            connection.sendall(json.dumps(guest._asdict()).encode() + b"\n")
            connection.settimeout(_LOOK)
            while not received.endswith(b"\n"):
                _look(deadline, f"not all processes came to {address}: start all of them.")
                with contextlib.suppress(TimeoutError):
                    part = connection.recv(_LONGEST)
                    received += part
                    if not part or not (received.startswith(_PREFIX) or _PREFIX.startswith(received)):
                        raise ConnectionError
        except OSError:
            raise UserError(
                f"no process 0 waits at {address}: it has ended, its run has all its processes, or another program has "
                "the port.\nStart all processes again, or choose another port."
            ) from None
    answer = received.removeprefix(_PREFIX).decode(errors="replace").strip()
    if answer != _GO:
        raise UserError(answer)


def _connect(address: str, deadline: float) -> socket.socket:
    why = ""
    while True:
        _look(deadline, f"process 0 could not be reached at {address}{why}: check the address, and start it.")
        try:
            connection = socket.create_connection(_split(address), timeout=2.0)
        except OSError as error:
            why = f" ({error.strerror})" if error.strerror else ""
            time.sleep(_LOOK)
            continue
        if connection.getsockname() != connection.getpeername():
            return connection
        connection.close()  # a connection to itself: nobody listens, and the system chose this very port for our end


def _listen(address: str, num_processes: int) -> socket.socket:
    host, port = _split(address)
    try:
        if is_local(address):
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            with contextlib.suppress(OSError), socket.create_connection(_split(address), timeout=2.0) as connection:
                # If it is another process 0, it learns that somebody has the wrong id.
                guest = _Guest(0, num_processes, socket.gethostname(), os.getpid())
                connection.sendall(json.dumps(guest._asdict()).encode() + b"\n")
                connection.settimeout(2.0)
                connection.recv(_LONGEST)
        raise UserError(
            f"process 0 cannot listen at port {port} of this machine: {os.strerror(error.errno or 0)}.\n"
            "Another process 0 or another program may have it: choose another port, and give each process its own id."
        ) from None


def is_local(address: str) -> bool:
    """Returns whether an address HOST:PORT can be reached from its own machine only."""
    return _split(address)[0] in ("127.0.0.1", "localhost", "::1")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answer(connection: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # it has left
        connection.sendall(_PREFIX + text.encode() + b"\n")


def _look(deadline: float, message: str) -> None:
    signals.check()
    if time.monotonic() > deadline:
        raise UserError(message)
