"""Which process is named when one of several fails, and that every other one ends with exit code 1."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gm_jax.cluster import watchdog
from gm_jax.cluster.watchdog import Heartbeat, SilenceDetector, Watchdog

ONE, TWO, THREE = (Heartbeat(number, "host", 100 + number, phase="training", step=7) for number in (1, 2, 3))
BEAT = 0.01


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def own(tmp_path, clock):
    """(heartbeat timeout, stall timeout) -> the watchdog of process 1, which is not started."""

    def make(heartbeat_timeout=1000 * BEAT, stall_timeout=5.0):
        return Watchdog(
            tmp_path, 1, heartbeat_timeout=heartbeat_timeout, stall_timeout=stall_timeout, beat=BEAT, clock=clock
        )

    return make


def test_a_heartbeat_is_read_as_it_was_written(tmp_path):
    watchdog.write(tmp_path, ONE._replace(phase="x" * 300))
    watchdog.write(tmp_path, ONE)  # a shorter one over it
    (tmp_path / "2.json").write_text("")  # torn
    assert watchdog.read(tmp_path) == {1: ONE}


def test_the_first_failure_that_is_reported_stands(tmp_path):
    assert watchdog.read_failure(tmp_path) is None
    (tmp_path / watchdog.FAILURE).touch()
    assert watchdog.read_failure(tmp_path) is None
    assert watchdog.report_failure(tmp_path, "process 1 is dead") == "process 1 is dead"
    assert watchdog.report_failure(tmp_path, "process 2 is dead") == "process 1 is dead"
    assert watchdog.read_failure(tmp_path) == "process 1 is dead"


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u65e5", "\U0001f600", "\x1b", "\udc80", '"'])
def test_a_long_reason_is_cut_and_still_names_its_process(character, own, tmp_path):
    own().fail("ValueError: " + 5000 * character)
    line = watchdog.read_failure(tmp_path)
    assert line.startswith("process 1 (pid ")
    assert "ValueError: " + 200 * ("?" if character == "\udc80" else character) in line


def test_a_count_that_stays_the_same_for_enough_looks_is_silent():
    detector = SilenceDetector(looks=2)
    assert detector.silent([ONE, TWO]) == []
    assert detector.silent([ONE, TWO._replace(count=1)]) == []
    assert detector.silent([ONE, TWO._replace(count=1)]) == [ONE]
    assert detector.silent([ONE._replace(count=1), TWO._replace(count=1)]) == [TWO._replace(count=1)]


def test_the_limit_of_a_phase_follows_from_its_median_duration(own, clock):
    one = own(stall_timeout=5.0)
    assert one.limit("training") == 300.0
    for seconds in (0.1, 0.1, 200.0):
        one.enter("training", 7)
        clock.now += seconds
    one.enter("validation", 7)
    assert one.limit("training") == 5.0
    for _ in range(10):
        one.enter("training", 8)
        clock.now += 1.0
    one.enter("validation", 8)
    assert one.limit("training") == 20.0


def test_nobody_is_named_while_everyone_is_within_the_limit(own, clock, tmp_path):
    one = own()
    watchdog.write(tmp_path, TWO)
    one.enter("training", 7)
    clock.now += 200.0
    assert one.check() is None


def test_a_silent_process_is_named_after_the_heartbeat_timeout(own, clock, tmp_path):
    one = own(heartbeat_timeout=3 * BEAT)
    watchdog.write(tmp_path, TWO)
    one.enter("training", 7)
    assert one.check() is None
    clock.now += 2 * BEAT  # long enough in a phase to look at the others
    for count in range(10):
        watchdog.write(tmp_path, THREE._replace(count=count))
        line = one.check()
        assert (line is None) == (count < 3)
        if line is not None:
            break
    assert line == "process 2 (pid 102 on host) is dead or stopped: no heartbeat since training at step 7"
    assert watchdog.read_failure(tmp_path) == line  # for process 3


@pytest.fixture
def stalled(own, clock):
    """The watchdog of process 1, in its second phase, which has outlasted its limit of 5 s."""
    one = own()
    one.enter("training", 7)
    one.enter("training", 7)
    clock.now += 6.0
    return one


@pytest.fixture
def alive(tmp_path):
    """(heartbeat) -> gives it again and again, with a new count, until the test ends."""
    processes = []

    def give(heartbeat: Heartbeat) -> None:
        source = f"""
            import pathlib, time
            from gm_jax.cluster import watchdog
            heartbeat = watchdog.Heartbeat(**{heartbeat._asdict()})
            while True:
                heartbeat = heartbeat._replace(count=heartbeat.count + 1)
                watchdog.write(pathlib.Path({str(tmp_path)!r}), heartbeat)
                time.sleep({BEAT / 5})
        """
        processes.append(subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)]))
        until = time.monotonic() + 60.0
        while heartbeat.process not in watchdog.read(tmp_path) and time.monotonic() < until:
            time.sleep(BEAT)

    yield give
    for process in processes:
        process.kill()
        process.wait()


def test_a_dead_process_is_named_before_one_that_is_behind(stalled, alive, tmp_path):
    watchdog.write(tmp_path, TWO._replace(passed=2))
    alive(THREE._replace(passed=1))
    assert stalled.check() == "process 2 (pid 102 on host) is dead or stopped: no heartbeat since training at step 7"


@pytest.mark.parametrize(
    ("passed", "step", "named"),
    [
        (1, 7, r"process 2 (pid 102 on host) is stalled in reading data at step 7, and training at step 7 waits"),
        (3, 8, r"is stalled in training at step 7, and reading data at step 8 waits for it: 6 s so far"),
        (2, 7, r"training at step 7 takes 6 s, and no process is behind: check devices and network"),
    ],
)
def test_past_the_limit_the_process_that_is_behind_is_named(passed, step, named, stalled, alive):
    alive(TWO._replace(passed=passed, phase="reading data", step=step))
    assert named in stalled.check()


def test_a_phase_with_a_limit_of_its_own_may_take_so_long(own, clock):
    one = own()
    one.enter("leaving", 0, limit=7.0)
    clock.now += 6.0
    assert one.check() is None
    clock.now += 2.0
    assert "leaving at step 0 takes 8 s" in one.check()


def test_a_failure_that_another_process_reports_is_the_culprit(own, tmp_path):
    watchdog.write(tmp_path, TWO)  # silent, as a victim that has left may be
    watchdog.report_failure(tmp_path, "process 3 ended in training")
    assert own().check() == "process 3 ended in training"
    assert own().find_culprit() == "process 3 ended in training"


def test_a_process_that_has_left_in_order_is_not_the_culprit(own, tmp_path):
    watchdog.write(tmp_path, TWO._replace(left=True))
    assert own().find_culprit() is None


def start(folder: Path, process: int, then: str) -> subprocess.Popen:
    """Starts a program with a watchdog of its own, which then runs some code, e.g. waits for some heartbeats."""
    source = f"""
        import os, pathlib, sys, time
        from gm_jax.cluster import watchdog
        folder = pathlib.Path(sys.argv[1])
        one = watchdog.Watchdog(folder, {process}, heartbeat_timeout=60.0, stall_timeout=60.0, beat={BEAT})
        one.start()
        one.catch_abort()

        def wait_for_beats():
            while (own := watchdog.read(folder).get({process})) is None or own.count < 3:
                time.sleep({BEAT})

    """
    program = textwrap.dedent(source) + then
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.PIPE, text=True)


def test_a_survivor_prints_the_reported_line_and_ends_with_exit_code_1(tmp_path):
    survivor = start(tmp_path, 1, "time.sleep(60)")
    watchdog.report_failure(tmp_path, "process 2 is dead")
    _, err = survivor.communicate(timeout=60)
    assert survivor.returncode == 1
    assert err == "error: process 2 is dead; start all processes again: they resume from the last checkpoint\n"
    assert watchdog.read(tmp_path)[1].left


def test_an_abort_after_the_death_of_process_0_names_it(tmp_path):
    watchdog.write(tmp_path, TWO._replace(process=0))
    victim = start(tmp_path, 1, "os.abort()")
    _, err = victim.communicate(timeout=60)
    assert victim.returncode == 1
    assert err.splitlines()[-1].startswith("error: process 0 (pid 102 on host) is dead or stopped: no heartbeat since")


def test_an_abort_without_a_culprit_stays_one_and_is_reported(tmp_path):
    victim = start(tmp_path, 1, "os.abort()")
    victim.communicate(timeout=60)
    assert victim.returncode < 0
    assert "ended in starting at step 0: aborted by C++" in watchdog.read_failure(tmp_path)


def test_the_reporting_process_does_not_read_its_own_report(tmp_path):
    culprit = start(tmp_path, 1, "one.fail('ValueError: no'); time.sleep(0.5); sys.exit(7)")
    _, err = culprit.communicate(timeout=60)
    assert (culprit.returncode, err) == (7, "")


def test_heartbeats_go_on_until_the_process_leaves(tmp_path):
    leaving = start(tmp_path, 1, "wait_for_beats(); one.leave()")
    leaving.communicate(timeout=60)
    assert leaving.returncode == 0
    assert watchdog.read(tmp_path)[1].left


def test_process_0_leaves_after_the_others(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(watchdog.time, "sleep", slept.append)
    watchdog.write(tmp_path, TWO)
    first = Watchdog(tmp_path, 0, heartbeat_timeout=60.0, stall_timeout=60.0, beat=1.0)
    first.leave()
    assert sum(slept) == pytest.approx(3.0)  # beats: its patience with one that does not leave
    watchdog.write(tmp_path, TWO._replace(left=True))
    slept.clear()
    first.leave()
    assert slept == []
