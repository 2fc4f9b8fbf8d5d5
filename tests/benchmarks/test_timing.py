import types

import pytest

from benchmarks import timing

CLEAN, DIRTY = 0.1, 0.3


def rounds_of(*pairs):
    return [{"ours": timing.Sample(ours, a), "theirs": timing.Sample(theirs, b)} for ours, a, theirs, b in pairs]


def make_work(seconds):
    """Makes work on a clock of its own, in its worker's process: each unit takes so many seconds on it."""
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    timing.time = clock

    def run(count):
        now[0] += count * seconds

    return run


def make_nothing():
    raise ValueError("there is no such case")


def test_busy_seconds_count_everything_except_idle_and_waiting():
    stat = "cpu  100 20 30 9999 8888 1 2 3 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert timing.busy_seconds(stat, 100) == pytest.approx(1.56)


def test_others_are_the_machine_minus_oneself():
    assert timing.others_used(busy=3.0, own=2.0, elapsed=2.0) == pytest.approx(0.5)
    assert timing.others_used(busy=1.99, own=2.0, elapsed=1.0) == 0.0


def test_the_ratio_is_the_median_of_pairs_of_clean_samples():
    rounds = rounds_of(
        (1.0, CLEAN, 2.0, CLEAN),
        (1.0, CLEAN, 90.0, DIRTY),
        (2.0, CLEAN, 6.0, CLEAN),
        (0.1, DIRTY, 8.0, CLEAN),
        (1.0, CLEAN, 8.0, CLEAN),
    )
    ratio = timing.ratio(rounds, over="theirs", under="ours")
    assert ratio == timing.Ratio(median=3.0, low=2.0, high=8.0, clean=3, rounds=5)
    assert str(ratio) == "3.00 (2.00-8.00)"
    assert timing.median_seconds(rounds, "ours") == 1.0


def test_without_clean_rounds_there_is_no_ratio_and_no_verdict():
    rounds = rounds_of(*[(1.0, DIRTY, 90.0, CLEAN)] * 9)
    ratio = timing.ratio(rounds, over="theirs", under="ours")
    assert (ratio.median, ratio.cleanliness, str(ratio)) == (None, "0/9", "-")
    assert timing.verdict(ratio, at_least=1.3) == "at least 1.3: no verdict"
    assert timing.median_seconds(rounds, "ours") is None


def test_a_verdict_needs_enough_clean_rounds():
    few = timing.Ratio(2.0, 2.0, 2.0, clean=timing.FEWEST_CLEAN - 1, rounds=9)
    enough = few._replace(clean=timing.FEWEST_CLEAN)
    assert timing.verdict(few, at_least=1.3).endswith("no verdict")
    assert timing.verdict(enough, at_least=1.3).endswith("met")
    assert timing.verdict(enough, at_most=1.1).endswith("missed")


def test_cases_are_timed_in_workers():
    cases = {"short": timing.Case(make_work, 2.0**-6), "long": timing.Case(make_work, 2.0**-4)}
    rounds = timing.alternate(cases, rounds=1, seconds=0.25)
    assert 1 <= len(rounds) <= 2
    for samples in rounds:
        # As many units as a sample of a quarter of a second contains.
        assert {name: sample[::2] for name, sample in samples.items()} == {"short": (2.0**-6, 16), "long": (2.0**-4, 4)}


def test_a_failing_worker_reports_why():
    with pytest.raises(RuntimeError, match="there is no such case"):
        timing.alternate({"none": timing.Case(make_nothing)}, rounds=1)


def test_tables_are_aligned_markdown():
    assert timing.table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"
