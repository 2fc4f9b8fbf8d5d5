"""Who is named when one of several processes fails, from what each has last said."""

import subprocess
import sys
import time

import numpy as np
import pytest

from gm_jax.cluster import watchdog as peers
from gm_jax.cluster.watchdog import Sign

ONE, TWO, THREE = (Sign(number, "host", 100 + number, phase="training", step=7) for number in (1, 2, 3))

UNHEALTHY = """\
E1122 17:46:15.874559   11009 coordination_service.cc:1549] Use error polling to propagate the following error: \
UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
{}
The tasks have crashed. Check the task logs for an earlier error. [type.googleapis.com/x='']
F1122 17:46:15.875152   11020 client.h:80] Terminating process because the JAX distributed service detected fatal \
errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
{}
The tasks have crashed.
*** Check failure stack trace: ***
    @     0x7fe5ff040634  absl::lts::log_internal::LogMessage::SendToLog()
"""
UNREACHABLE = """\
F1122 17:46:20.076334   11103 client.h:80] Terminating process because the JAX distributed service detected fatal \
errors. absl::Status: UNAVAILABLE: Failed to send RPC to coordination service.
*** Check failure stack trace: ***
"""


def test_a_sign_is_read_as_it_was_written(tmp_path):
    peers.write(tmp_path, ONE._replace(ended="x" * 300))
    peers.write(tmp_path, ONE)  # a shorter one over it
    (tmp_path / "2.json").write_text("")  # torn
    assert peers.read(tmp_path) == {1: ONE}


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u65e5", "\U0001f600", "\x1b", "\udc80", '"'])
def test_a_long_last_word_is_cut_and_whoever_said_it_is_still_named(character, tmp_path):
    watchdog = peers.Watchdog(tmp_path, 1, floor=5.0)
    watchdog.end("ValueError: " + 5000 * character)
    assert (tmp_path / "1.json").stat().st_size == peers._SIZE
    sign = peers.read(tmp_path)[1]
    assert sign.ended.startswith("ValueError: " + 200 * ("?" if character == "\udc80" else character))
    assert peers.blame([sign], []).startswith("process 1 (pid ")


def test_whose_count_stays_the_same_for_long_enough_is_silent():
    hearing = peers.Hearing(silence=3.0)
    assert hearing.silent([ONE, TWO], 0.0) == []
    assert hearing.silent([ONE, TWO._replace(count=1)], 2.0) == []
    assert hearing.silent([ONE, TWO._replace(count=1)], 3.5) == [ONE]
    assert hearing.silent([ONE._replace(count=1), TWO._replace(count=1)], 5.5) == [TWO._replace(count=1)]


def test_the_cause_is_named_before_its_victims():
    left = TWO._replace(ended=peers.blaming("process 3 is dead"))
    broken = THREE._replace(ended="ValueError: no")
    assert (
        peers.blame([left, broken], [ONE]) == "process 3 (pid 103 on host) ended in training at step 7: ValueError: no"
    )
    assert peers.blame([left, ONE], [ONE]).startswith("process 1 (pid 101 on host) is dead or stopped")
    assert peers.blame([left], [left]) == "process 3 is dead"
    assert peers.blame([ONE._replace(ended=peers.DONE)], []) is None
    assert peers.blame([ONE], []) is None


@pytest.fixture
def watchdog(tmp_path):
    """Of process 1; it is not started, and has been in its phase for ten seconds."""
    watchdog = peers.Watchdog(tmp_path, 1, floor=5.0, limits={"leaving": 7.0})
    watchdog.enter("training", 7)
    watchdog._since -= 10.0
    return watchdog


def test_a_phase_may_take_long_the_first_time_and_then_twenty_times_as_long_as_usual(watchdog):
    assert watchdog.limit("training") == 300.0
    watchdog._durations["training"].extend([0.1, 0.1, 200.0])
    assert watchdog.limit("training") == 5.0
    watchdog._durations["training"].extend([1.0] * 10)
    assert watchdog.limit("training") == 20.0
    assert watchdog.limit("leaving") == 7.0


def test_within_the_limit_nobody_is_blamed_but_who_is_silent(watchdog, tmp_path):
    peers.write(tmp_path, TWO._replace(passed=0))
    assert watchdog._accusation() is None
    watchdog._hearing = peers.Hearing(0.0)
    assert watchdog._accusation() is None
    assert "process 2 (pid 102 on host) is dead or stopped" in watchdog._accusation()


def test_past_the_limit_whoever_is_behind_is_named_by_all(watchdog, tmp_path):
    watchdog._durations["training"].append(0.1)
    peers.write(tmp_path, TWO._replace(passed=0, phase="reading data"))
    assert "process 2 (pid 102 on host) is stalled in reading data at step 7" in watchdog._accusation()
    peers.write(tmp_path, TWO._replace(passed=2, step=8))
    assert "process 1 (pid" in watchdog._accusation()
    assert "is stalled in training at step 7, and training at step 8 waits" in watchdog._accusation()
    peers.write(tmp_path, TWO._replace(passed=1))
    assert "no process is behind" in watchdog._accusation()


def test_at_the_least_limit_it_is_known_who_is_dead_and_not_only_behind(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(peers.time, "monotonic", lambda: clock[0])
    watchdog = peers.Watchdog(tmp_path, 1, floor=6.0)
    watchdog.enter("training", 5)
    watchdog.enter("training", 7)  # the one before took no time: this one's limit is the least
    accusations = {}
    for clock[0] in np.arange(0.5, 8.0, peers.BEAT):
        peers.write(tmp_path, TWO._replace(count=1))
        peers.write(tmp_path, THREE._replace(count=int(clock[0]), passed=2))
        accusations[clock[0]] = watchdog._accusation()
    assert {when for when, line in accusations.items() if line is None} == {0.5, 1.5, 2.5, 3.5, 4.5, 5.5}
    assert accusations[6.5].startswith("process 2 (pid 102 on host) is dead or stopped")


def test_a_short_phase_is_not_looked_into(watchdog):
    watchdog._durations["training"].append(0.1)
    watchdog.enter("training", 8)
    assert watchdog._accusation() is None


@pytest.mark.parametrize("number", ["2", "/job:jax_worker/replica:0/task:2"])
def test_the_last_words_name_whom_jax_has_given_up(number, tmp_path):
    peers.write(tmp_path, TWO)
    line = peers.last_words(UNHEALTHY.format(number, number), tmp_path, 1)
    assert line.startswith("error: process 2 (pid 102 on host) is dead or stopped: no sign of life since training at")
    assert peers.read(tmp_path)[1].ended == peers.blaming(line.removeprefix("error: ").partition("; ")[0])


def test_the_last_words_on_process_0_are_those_that_it_said_itself(tmp_path):
    assert "process 0 is dead or cannot be reached" in peers.last_words(UNREACHABLE, tmp_path, 1)
    peers.write(tmp_path, ONE._replace(process=0, ended=peers.blaming("process 3 is dead or stopped")))
    assert peers.last_words(UNREACHABLE, tmp_path, 1).startswith("error: process 3 is dead or stopped; ")


def test_what_cpp_writes_goes_on_but_for_the_page_that_becomes_one_line(tmp_path):
    peers.write(tmp_path, TWO)
    page = "before\nW1122 17:46:15.8 1 other.cc:1] kept\n" + UNHEALTHY.format(2, 2)
    command = [sys.executable, "-I", peers.__file__, str(tmp_path), "1"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, timeout=60, check=True)
    before, kept, line = done.stderr.splitlines()
    assert (before, kept) == ("before", "W1122 17:46:15.8 1 other.cc:1] kept")
    assert line.startswith("error: process 2 (pid 102 on host)")
    assert "stack trace" in (tmp_path / "1.log").read_text()


LATE = """\
before
E1122 17:46:15.874559   11009 coordination_service_agent.cc:289] Polled an error from coordination service
terminate called after throwing an instance of 'std::bad_alloc'
"""


@pytest.mark.parametrize(
    ("spoken", "shown"), [(None, LATE.splitlines()), ("ValueError: no", ["before"]), (peers.DONE, ["before"])]
)
def test_what_cpp_says_last_is_shown_unless_the_process_itself_has_said_why(spoken, shown, tmp_path):
    peers.write(tmp_path, ONE._replace(ended=spoken))
    command = [sys.executable, "-I", peers.__file__, str(tmp_path), "1"]
    done = subprocess.run(command, input=LATE, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines() == shown


def test_when_all_is_done_and_its_folder_gone_nothing_more_is_said(tmp_path):
    command = [sys.executable, "-I", peers.__file__, str(tmp_path / "gone"), "0"]
    done = subprocess.run(command, input=LATE, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines() == ["before"]


def test_with_nobody_to_read_it_what_cpp_writes_is_still_taken_and_the_end_understood(tmp_path):
    peers.write(tmp_path, TWO)
    command = [sys.executable, "-I", peers.__file__, str(tmp_path), "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stderr.close()
    process.communicate("one\ntwo\n" + UNHEALTHY.format(2, 2), timeout=60)
    assert "process 2 (pid 102 on host)" in peers.read(tmp_path)[1].ended


def test_a_watchdog_gives_signs_until_it_is_told_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "BEAT", 0.01)
    watchdog = peers.Watchdog(tmp_path, 1, floor=60.0)
    watchdog.start()
    until = time.monotonic() + 30.0
    while peers.read(tmp_path)[1].count < 3 and time.monotonic() < until:
        time.sleep(0.01)
    watchdog.end("ValueError: no")
    watchdog._thread.join(30.0)
    last = peers.read(tmp_path)[1]
    assert last.count >= 3
    assert last.ended == "ValueError: no"
