"""results.json and the table: a number keeps its sign, unit, kind, measure and data, and the file is valid JSON."""

import json
import math
import re

import pytest

from gm_jax.evaluation import results
from gm_jax.evaluation.likelihood import LikelihoodSummary


def summary(mean=-100.0, error=0.5, kind="lower_bound", measure="256 levels", settings=(("K", 500),), examples=1000):
    return LikelihoodSummary(mean, error, examples, kind, measure, settings)


def records(made=None, *, name="nll", measure="256 levels", data="digits", split="test", num_dims=64, settings=None):
    return results.likelihood_records(
        name,
        made or summary(measure=measure),
        data=data,
        split=split,
        num_dims=num_dims,
        settings=settings or {},
    )


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_log_2_nats_per_dimension_are_one_bit():
    nats, bits = records(summary(mean=-64 * math.log(2.0), error=32 * math.log(2.0)), num_dims=64)
    assert (nats.unit, bits.unit) == ("nats", "bits/dim")
    assert nats.value == pytest.approx(44.3614195558365, rel=1e-13)
    assert bits.value == pytest.approx(1.0, rel=1e-13)
    assert bits.settings["standard_error"] == pytest.approx(0.5, rel=1e-13)


def test_the_uniform_distribution_over_256_levels_has_eight_bits():
    num_dims = 32 * 32 * 3
    _, bits = records(summary(mean=-num_dims * math.log(256.0)), num_dims=num_dims)
    assert bits.value == pytest.approx(8.0, rel=1e-13)


def test_the_value_is_the_negative_log_likelihood():
    assert next(record.value for record in records(summary(mean=-2.0))) == 2.0
    assert next(record.value for record in records(summary(mean=2.0))) == -2.0


@pytest.mark.parametrize(("measure", "units"), [("binary", 2), ("256 levels", 2), ("continuous", 1)])
def test_a_density_has_no_bits_per_dimension(measure, units):
    assert [record.unit for record in records(measure=measure)] == ["nats", "bits/dim"][:units]


def test_a_record_holds_everything_about_its_number():
    nats, bits = records(measure="binary", settings={"step": 300})
    expected = {
        "name": "nll",
        "value": 100.0,
        "unit": "nats",
        "kind": "lower_bound",
        "data": "digits",
        "measure": "binary",
        "split": "test",
        "examples": 1000,
        "settings": {"K": 500, "step": 300, "standard_error": 0.5},
    }
    assert nats._asdict() == expected
    same = {key: value for key, value in bits._asdict().items() if key not in ("value", "unit", "settings")}
    assert same == {key: expected[key] for key in same}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_null_in_json(tmp_path, bad):
    made = records(summary(mean=bad, error=math.nan))
    results.write(tmp_path / "results.json", made)
    entries = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse_constant)
    assert [entry["value"] for entry in entries] == [None, None]
    assert [entry["settings"]["standard_error"] for entry in entries] == [None, None]
    assert results.read(tmp_path / "results.json") == made
    assert results.table(made).count("not finite") == 2


def test_an_estimate_that_has_not_converged_has_no_value_but_its_bounds_have():
    facts = {"not_converged": True}
    assert [one.value for one in records(summary(kind="estimate"), settings=facts)] == [None, None]
    assert results.table(records(summary(kind="estimate"), settings=facts)).count("not converged") == 2
    for kind in ("exact", "upper_bound"):
        assert all(one.value is not None for one in records(summary(kind=kind), settings=facts))
    assert [one.value for one in records(summary(), settings=facts)] == [None, None]
    assert all(one.value is not None for one in records(summary(), settings={**facts, "of": "annealed model"}))
    again = records(summary(kind="estimate"), settings={"log_z": 3.0, "log_z_effective_sample_size": 20.0})
    assert results.merge(records(summary(kind="estimate"), settings={"log_z": 3.1}), again) == again
    assert all(one.value is not None for one in records(summary(kind="estimate")))


def test_a_value_that_json_cannot_hold_leaves_the_old_file_unchanged(tmp_path):
    path = tmp_path / "results.json"
    results.write(path, records())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        results.write(path, records(settings={"bandwidth": math.nan}))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_records_are_read_back_exactly(tmp_path):
    made = records(summary(mean=-100 / 3, error=0.1)) + records(measure="continuous", name="kde", settings={"s": "a"})
    results.write(tmp_path / "results.json", made)
    assert results.read(tmp_path / "results.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    results.write(tmp_path / "results.json", made[:1])
    assert results.read(tmp_path / "results.json") == made[:1]


def test_a_missing_file_has_no_records(tmp_path):
    assert results.read(tmp_path / "results.json") == []


def test_merging_replaces_numbers_measured_again_and_keeps_the_rest():
    old = records() + records(split="validation") + records(name="iwae")
    new = records(summary(mean=-90.0, kind="exact"))
    merged = results.merge(old, new)
    assert merged == old[2:] + new
    assert results.merge(merged, new) == merged  # measuring again changes nothing


@pytest.mark.parametrize(
    "other",
    [
        *({"name": "iwae"}, {"data": "mnist"}, {"split": "validation"}),
        *({"settings": {"step": 2}}, {"settings": {"step": 1, "seed": 0}}, {"made": summary(settings=(("K", 5000),))}),
        {"made": summary(examples=500)},
    ],
)
def test_numbers_of_different_identity_are_both_kept(other):
    old, new = records(settings={"step": 1}), records(**{"settings": {"step": 1}, **other})
    assert results.merge(old, new) == old + new
    assert results.merge(results.merge(old, new), new) == old + new


def test_a_number_from_the_file_is_replaced_if_its_settings_hold_tuples(tmp_path):
    made = records(settings={"dilations": (1, 2), "temperature": 0.1})
    results.write(tmp_path / "results.json", made)
    assert results.merge(results.read(tmp_path / "results.json"), made) == made


def test_a_different_standard_error_does_not_change_the_identity():
    old, new = records(), records(summary(error=0.25))
    assert old[0].settings != new[0].settings
    assert results.merge(old, new) == new


def test_the_error_of_probes_stands_beside_the_number_in_its_unit_and_does_not_identify_it():
    made = records(summary()._replace(probe_error=6.4 * math.log(2.0)), num_dims=64)
    nats, bits = (record.settings["probe_error"] for record in made)
    assert (nats, bits) == (pytest.approx(6.4 * math.log(2.0)), pytest.approx(0.1))
    shown = results.table(made)
    assert "probe_error=4.436" in shown
    assert "probe_error=0.1" in shown
    again = records(summary()._replace(probe_error=1.0), num_dims=64)
    assert results.merge(made, again) == again
    assert all("probe_error" not in record.settings for record in records())


def test_nats_do_not_replace_bits():
    nats, bits = records()
    (new,) = records(summary(mean=-90.0, measure="continuous"))
    assert results.merge([nats, bits], [new]) == [bits, new]


def test_merging_with_nothing_changes_nothing():
    assert results.merge([], records()) == results.merge(records(), []) == records()


@pytest.mark.parametrize(
    ("kind", "sign", "shown"),
    [
        ("exact", "=", "exact"),
        ("lower_bound", "<=", "upper bound"),
        ("upper_bound", ">=", "lower bound"),
        ("estimate", "~", "estimate"),
    ],
)
def test_the_table_shows_sign_and_kind_of_the_nll(kind, sign, shown):
    # The table shows the NLL, for which a lower bound on log p is an upper bound.
    above, _, _, nats, bits, *note = results.table(records(summary(kind=kind))).splitlines()
    assert above.startswith("test split of ")
    for row in (nats, bits):
        assert row.split()[:2] == ["nll", sign]
        assert row.endswith(f"  {shown}")
    side = {"lower_bound": "from below", "upper_bound": "from above"}.get(kind)
    assert [f"log p is bounded {side}" in line for line in note] == [True] * (side is not None)


def test_every_row_of_the_table_shows_what_differs_and_a_line_above_what_does_not():
    made = (
        records(summary(kind="exact", measure="continuous"), name="flow", data="toy:moons", split="validation")
        + records(summary(kind="estimate", measure="binary"), name="kde", data="mnist")
        + records(measure="256 levels", settings={"T": 3})
    )
    above, head, rule, *rows, note = results.table(made).splitlines()
    assert above == "1,000 examples: K=500"
    assert note.startswith("<=: ")
    assert set(rule) == {"-"}
    assert len(rule) == max(map(len, [head, *rows]))
    columns = {name: head.index(name) for name in ("quantity", "value", "unit", "kind", "data", "measure", "split")}
    ends = dict(zip(columns, [*list(columns.values())[1:], head.index("settings")], strict=True))
    ends["quantity"] = head.index("value")
    for row, record in zip(rows, made, strict=True):
        cells = {name: row[start : ends[name]].strip() for name, start in columns.items()}
        assert cells["value"] == f"{record.value:.4f} +- {record.settings['standard_error']:.4f}"
        assert cells["quantity"].split()[0] == record.name
        for name in ("unit", "data", "measure", "split"):
            assert cells[name] == getattr(record, name)
        assert cells["kind"] == {"lower_bound": "upper bound"}.get(record.kind, record.kind)
        assert ("T=3" in row) == ("T" in record.settings)
        assert "standard_error" not in row
    same = results.table(records(settings={"step": 7})).splitlines()[0]
    assert re.fullmatch(r"test split of \w+, 1,000 examples, .+: K=500 step=7", same)


def test_no_table_is_wider_than_100_columns():
    many = {f"a_setting_with_a_long_name_{index}": 1000.5 + index for index in range(8)}
    made = records(settings=many) + records(summary(kind="exact"), name="nll_at_high_log_z", settings={"step": 1})
    lines = results.table(made).splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert all(f"{name}={value:.4g}" in text for name, value in many.items())
    alone = results.table(records(settings=many)).splitlines()
    assert max(map(len, alone)) <= 100
    assert sum("a_setting_with_a_long_name_3=" in line for line in alone) == 1


@pytest.mark.parametrize("settings", [{}, {"standard_error": None}])
def test_a_record_without_a_standard_error_is_read_and_shown_without_one(settings, tmp_path):
    (record, _) = records(summary())
    old = record._replace(settings=settings)
    results.write(tmp_path / "results.json", [old])
    assert results.read(tmp_path / "results.json") == [old]
    row = results.table([old]).splitlines()[3]
    assert f" {old.value:.4f}  nats" in row


def test_the_table_without_records_is_its_head():
    assert len(results.table([]).splitlines()) == 2
