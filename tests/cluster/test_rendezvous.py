"""All processes of a run meet, or each mistake is one line, at once."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable

import pytest

from gm_jax import signals
from gm_jax.cluster import rendezvous
from gm_jax.errors import UserError

WAIT = 60.0  # seconds until a test fails; none is waited for if all is well


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def start(address) -> Callable[..., tuple[threading.Thread, list[str]]]:
    """(process, num_processes) -> its thread, and its message in a list: empty when all met."""

    def begin(process: int, num_processes: int, *, timeout: float = WAIT):
        said: list[str] = []

        def run() -> None:
            try:
                rendezvous.meet(address, process, num_processes, timeout=timeout)
                said.append("")
            except UserError as error:
                said.append(str(error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread, said

    return begin


def ended(*started: tuple[threading.Thread, list[str]]) -> list[str]:
    for thread, _ in started:
        thread.join(WAIT)
    return [said[0] for _, said in started]


def call(address: str) -> socket.socket:
    """Connects as soon as process 0 listens."""
    host, port = address.split(":")
    for _ in range(600):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), timeout=WAIT)
        threading.Event().wait(0.05)
    raise AssertionError("nobody listens")


def hello(connection: socket.socket, process: object, num_processes: object) -> None:
    guest = {"process": process, "num_processes": num_processes, "host": "far", "pid": 7}
    connection.sendall(json.dumps(guest).encode() + b"\n")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_meet_in_any_order_and_the_port_is_free_again(order, start, address):
    assert ended(*[start(process, 3) for process in order]) == ["", "", ""]
    host, port = address.split(":")
    socket.create_server((host, int(port))).close()


def test_a_single_process_waits_for_nobody(address):
    rendezvous.meet(address, 0, 1)


def test_a_port_in_use_is_named_at_once(address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))), pytest.raises(UserError, match=f"cannot listen at port {port}"):
        rendezvous.meet(address, 0, 2)


def test_an_id_given_twice_is_refused_and_the_others_still_meet(start, address):
    zero = start(0, 3)
    with call(address) as first, call(address) as second:
        hello(first, 1, 3)
        hello(second, 1, 3)
        told = b"gm_jax --cluster.process-id 1 is taken by pid 7 on far: give each process an id of its own.\n"
        assert second.recv(1000) == told
        two = start(2, 3)
        assert first.recv(1000) == b"gm_jax go\n"
    assert ended(zero, two) == ["", ""]


def test_a_second_process_0_is_told_of_the_port(start, address):
    zero = start(0, 2)
    with call(address), pytest.raises(UserError, match="cannot listen at port"):
        rendezvous.meet(address, 0, 2)
    one = start(1, 2)
    assert ended(zero, one) == ["", ""]


@pytest.mark.parametrize(
    ("wrong", "named"), [((1, 3), "process-id 1"), ((0, 3), "process-id 0"), ((1, 4), "num-processes")]
)
def test_a_process_started_wrongly_ends_the_wait_of_all_within_seconds(wrong, named, start, monkeypatch):
    monkeypatch.setattr(rendezvous, "_GRACE", 0.5)
    # Two have one id: which of them comes first does not matter.
    told = sorted(ended(start(0, 3), start(1, 3), start(*wrong)), key=lambda text: text.startswith("process 2 did"))
    assert named in told[0] or (named == "process-id 0" and told[0].startswith("process 0 cannot listen"))
    for text in told[1:]:
        assert text.startswith("process 2 did not come to")
        assert named in text
        assert "\n" not in text


def test_another_number_of_processes_is_refused(start, address):
    zero, wrong = start(0, 2), start(1, 3)
    assert ended(wrong) == ["process 0 has --cluster.num-processes 2: give all processes the same."]
    assert ended(zero, start(1, 2)) == ["", ""]


def test_who_left_before_all_came_may_come_again(start, address):
    zero = start(0, 3)
    with call(address) as gone:
        hello(gone, 1, 3)
    assert ended(zero, start(1, 3), start(2, 3)) == ["", "", ""]


@pytest.mark.parametrize(
    "noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\n", b"[]\n", b"{}\n", b"[" * 4000 + b"\n", b"x" * 9000, b"\xff\n"]
)
def test_noise_on_the_port_is_ignored(noise, start, address):
    zero = start(0, 2)
    with call(address) as visitor, call(address) as silent:
        silent.sendall(b"{")
        with contextlib.suppress(OSError):
            visitor.sendall(noise)
            visitor.shutdown(socket.SHUT_WR)
            assert visitor.recv(1000) == b""
        assert ended(zero, start(1, 2)) == ["", ""]


@pytest.mark.parametrize("values", [(True, 2), ("1", 2), (1.0, 2), (9, 2), (-1, 2), (None, 2), (1, [2])])
def test_a_hello_that_makes_no_sense_is_ignored(values, start, address):
    zero = start(0, 2)
    with call(address) as odd:
        hello(odd, *values)
        odd.recv(1000)
        assert ended(zero, start(1, 2)) == ["", ""]


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH\r\n", b"\0\0\x12\4\0\0", b"gm_ja\n"])
def test_a_port_of_another_program_or_of_a_run_under_way_is_told_at_once(greeting, start, address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as server:
        one = start(1, 2)
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(greeting)
        assert ended(one)[0].startswith(f"no process 0 waits at {address}")


def test_who_does_not_come_is_named(start, address):
    assert ended(start(0, 3, timeout=0.5))[0].startswith("process 1, 2 did not come to")
    assert ended(start(1, 3, timeout=0.5))[0].startswith(
        f"process 0 could not be reached at {address} (Connection refused)"
    )


@pytest.mark.parametrize("process", [0, 1])
def test_ctrl_c_ends_the_wait(process, address):
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    with signals.deferred():
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            rendezvous.meet(address, process, 2)
