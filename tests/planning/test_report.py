"""The table, Markdown, notes, JSON and picture of plans, with numbers written by hand."""

import json

import pytest

from gm_jax.planning import report
from tests.planning.handmade import handmade


def test_the_table_has_a_column_per_slice_and_dashes_for_unknown_cells():
    text = report.table([handmade("v5e:4x4"), handmade("v5e:2x2", refusal="needs 26G of 15.75G")])
    lines = {line[:22].strip(): line[22:].split() for line in text.splitlines()}
    assert lines["chips"] == ["16", "4"]
    assert lines["all-reduce"] == ["1", "of", "1", "MB", "-"]
    assert lines["fits, share of HBM"] == ["yes,", "0.0%", "-"]
    assert len({len(line.rstrip()) for line in text.splitlines()}) == 1


def test_numbers_that_loops_of_unknown_length_bound_on_one_side_are_marked():
    looping, plain = handmade("v5e:4x4", inner_loops=(28, None)), handmade("v5e:4x4", inner_loops=(28,))
    text = report.table([looping])
    lines = {line[:23].strip(): line[23:].strip() for line in text.splitlines()}
    assert lines["matrix products"] == "at least 197 GFLOP"
    assert lines["share of peak, at most"] == "unknown"
    assert lines["bytes to and from HBM"] == "at least 819 MB"
    assert lines["cycles, estimated"] == "at least 3 M"
    assert lines["step, at least"] == "1 ms"
    assert lines["time, memory"] == "at least 1 ms"
    assert report.table([plain]).count("at least") == 1, "only the name of the step's row"


def test_markdown_has_a_row_per_slice():
    fit, refused = handmade("v5e:16x16"), handmade("v5e:2x2", refusal="too much")
    head, rule, first, second = report.markdown("experiments.vae", [fit, refused]).splitlines()
    assert head.startswith("| experiment | topology | chips | memory |")
    assert set(rule) == set("| -")
    assert first == (
        "| `vae` | v5e:16x16 | 256 | 2.45 MB | 197 GFLOP | 2 Mop | 1 of 1 MB | none | 1 ms, compute | 100.0% | 3 M |"
    )
    assert second.startswith("| `vae` | v5e:2x2 | 4 | does not fit | ")
    assert len({line.count("|") for line in (head, rule, first, second)}) == 1


def test_the_notes_state_what_the_numbers_leave_out():
    plain = "\n".join(report.notes([handmade("v5e:4x4")], num_examples=5000))
    for text in ("does not fit", "Loops", "not fully donated", "refuse"):
        assert text not in plain
    refused = handmade("v5e:2x2", refusal="needs 26G of 15.75G")
    odd = "\n".join(report.notes([refused, handmade("v5e:4x4", inner_loops=(28, None, 28))], num_examples=1000))
    for text in (
        "v5e:2x2 does not fit: needs 26G",
        "2 with 28 iterations, 1 with ? iterations",
        "not fully donated",
        "refuse a batch of 1,024",
    ):
        assert text in odd


def test_steps_with_conditionals_are_marked():
    turns = handmade("v5e:4x4", conditionals=2)
    assert " | 1 ms, compute, larger branches | " in report.markdown("experiments.gan", [turns])
    assert "Conditionals count as their larger branch" in "\n".join(report.notes([turns], num_examples=None))
    assert "Conditionals" not in "\n".join(report.notes([handmade("v5e:4x4")], num_examples=None))
    lines = {line[:23].strip(): line[23:].strip() for line in report.table([turns]).splitlines()}
    assert lines["operations of the core"] == "1,234"


def test_a_plan_that_does_not_fit_is_reported_and_drawn_too(tmp_path):
    plans = [handmade("v5e:1x1"), handmade("v5e:2x2", refusal="too much"), handmade("v5e:4x4"), handmade("v4:2x2x1")]
    saved = json.loads(json.dumps(report.as_json("experiments.vae", {"hidden": [16]}, plans), allow_nan=False))
    assert [each["fits"] for each in saved["plans"]] == [True, False, True, True]
    assert saved["plans"][1]["refusal"] == "too much"
    report.draw(tmp_path / "plan.png", plans)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (508_691_360, "FLOP", "508.7 MFLOP"),
        (999.96, "B", "1 kB"),
        (0, "B", "0 B"),
        (16e9, "B", "16 GB"),
        (2.5e-6, "s", "2.5 us"),
        (0.0125, "s", "12.5 ms"),
        (61, "s", "61 s"),
    ],
)
def test_numbers_have_prefixes_of_powers_of_a_thousand(value, unit, text):
    assert report.with_prefix(value, unit) == text
