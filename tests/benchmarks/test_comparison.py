"""The table of our cases against theirs, from made-up samples."""

import pytest

from benchmarks import comparison, timing
from benchmarks.comparison import OURS, UNFLAGGED

SECONDS = {OURS: 0.2, UNFLAGGED: 0.4, "PyTorch": 0.5, "other": 0.1}


def found(**settings):
    rounds = [{name: timing.Sample(value, 0.0) for name, value in SECONDS.items()}] * timing.FEWEST_CLEAN
    return comparison.of_rounds("a step", rounds, (OURS, UNFLAGGED), ("PyTorch", "other"), **settings)


def test_each_pair_has_a_row_with_their_time_over_ours():
    assert [(row["under"], row["over"]) for row in found()["ratios"]] == [
        (OURS, "PyTorch"),
        (OURS, "other"),
        (UNFLAGGED, "PyTorch"),
        (UNFLAGGED, "other"),
    ]
    assert [row["median"] for row in found()["ratios"]] == pytest.approx([2.5, 0.5, 1.25, 0.25])
    assert [cells[1:5] for cells in found()["cells"]] == [
        [OURS, "200", "PyTorch", "500"],
        [OURS, "200", "other", "100"],
        [UNFLAGGED, "400", "PyTorch", "500"],
        [UNFLAGGED, "400", "other", "100"],
    ]


def test_the_goal_applies_to_what_experiments_run_and_the_plain_peer():
    def goals(at_least):
        return [cells[6] for cells in found(at_least=at_least)["cells"]]

    assert goals(1.5) == ["at least 1.5: met", "-", "-", "-"]
    assert goals(3.0) == ["at least 3: missed", "-", "-", "-"]
    assert goals(None) == ["-"] * 4


def test_times_are_per_unit():
    halves = found(units=2)
    assert halves["seconds"] == pytest.approx({name: value / 2 for name, value in SECONDS.items()})
    assert halves["cells"][0][2:5] == ["100", "PyTorch", "250"]
    assert [row["median"] for row in halves["ratios"]] == [row["median"] for row in found()["ratios"]]


def test_without_a_clean_sample_there_are_no_numbers():
    rounds = [{name: timing.Sample(value, 1.5) for name, value in SECONDS.items()}]
    row = comparison.of_rounds("a step", rounds, (OURS,), ("PyTorch",), at_least=1.0)
    assert row["seconds"] == {OURS: None, "PyTorch": None}
    assert row["cells"] == [["a step", OURS, "-", "PyTorch", "-", "-", "at least 1: no verdict", "0/1"]]


def test_all_comparisons_are_in_one_table():
    lines = comparison.table([found(), found()]).splitlines()
    assert len(lines) == 2 + 8
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == list(comparison.HEADER)


def test_ours_is_also_timed_without_the_flags_if_they_matter():
    assert comparison.flags_of_ours("--flag") == {OURS: "--flag", UNFLAGGED: ""}
    assert comparison.flags_of_ours("--flag", matter=False) == {OURS: "--flag"}
    assert comparison.flags_of_ours("") == {OURS: ""}
