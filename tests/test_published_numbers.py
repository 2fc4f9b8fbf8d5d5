"""The tables of the pages are those of the records in docs/results/, and a record says what it is."""

import json
import re

import numpy as np
import pytest

from tests.page_commands import PAGES, REPO, commands_in, name_of, parse
from tools import presets, results

TABLES = sorted(path.stem for path in results.RECORDS.glob("*.json"))


def test_the_tables_of_the_pages_are_those_of_the_records():
    different = [name_of(path) for path, text in results.rendered_pages() if text != path.read_text(encoding="utf-8")]
    assert different == [], "run python -m tools.results"


def test_the_sections_of_presets_are_those_of_the_presets():
    assert presets.rendered_page() == presets.PAGE.read_text(encoding="utf-8"), "run python -m tools.presets"


def test_every_table_of_records_is_shown_once():
    shown = [table for page in PAGES for table in re.findall(r"<!-- results:(\w+) -->", page.read_text("utf-8"))]
    assert sorted(shown) == TABLES


def test_a_table_of_numbers_is_not_written_by_hand():
    for page in PAGES:
        if page.parent.name == "lecture":  # tools.lecture writes these pages, and checks their numbers
            continue
        generated = r"<!-- results:.*?<!-- /results -->|<!-- presets -->.*<!-- /presets -->"
        text = re.sub(generated, "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        numbers = [
            line for line in text.splitlines() if line.startswith("|") and re.search(r"\| *[~<>=]* *-?\d+\.\d", line)
        ]
        assert not numbers, (page, numbers)


@pytest.mark.parametrize("table", TABLES)
def test_every_record_says_what_it_is(table):
    content = results.read(table)
    assert len({row["id"] for row in content["rows"]}) == len(content["rows"])
    if table == "families":
        return
    for row in content["rows"]:
        assert {"numbers", "command", "device", "versions", "commit"} <= set(row), row["id"]
        assert all(np.isfinite(number["value"]) and number["unit"] for number in row["numbers"]), row["id"]
        for number in row["numbers"]:
            if "kind" in number:
                known = {"name", "value", "unit", "kind", "measure", "data", "split", "examples", "settings"}
                assert known | {"standard_error"} <= set(number), row["id"]
                assert number["kind"] in ("exact", "lower_bound", "upper_bound", "estimate", "score"), row["id"]


@pytest.mark.parametrize("table", [table for table in TABLES if table != "families"])
def test_every_command_of_a_record_parses(table):
    for line in {row["command"] for row in results.read(table)["rows"]} - {None}:
        found = list(commands_in(line))
        assert found, line
        for command in found:
            parse(command)


def test_experiments_keep_no_second_copy_of_a_number():
    for path in (REPO / "experiments").glob("[a-z]*.py"):
        docstring = path.read_text(encoding="utf-8").split('"""')[1]
        assert not re.search(r"[Mm]easured|NLL [<=~]* ?-?\d|bits/dim", docstring), path.name


def test_a_changed_record_changes_the_page(tmp_path, monkeypatch):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    for name in ("vae", "families", "autoregressive", "flow", "dcgan_mnist", "diffusion", "score", "energy"):
        text = (results.RECORDS / f"{name}.json").read_text(encoding="utf-8")
        (tmp_path / "docs" / "results" / f"{name}.json").write_text(text, encoding="utf-8")
    (tmp_path / "README.md").write_text((REPO / "README.md").read_text("utf-8"), encoding="utf-8")
    (tmp_path / "docs" / "vae.md").write_text("<!-- results:vae -->\n<!-- /results -->\n", encoding="utf-8")
    monkeypatch.setattr(results, "REPO", tmp_path)
    monkeypatch.setattr(results, "RECORDS", tmp_path / "docs" / "results")
    monkeypatch.setattr(results.read, "__defaults__", (tmp_path / "docs" / "results",))
    assert results.update(results.Config()) == "rewrote docs/vae.md"
    assert results.update(results.Config()) == "all pages are up to date"
    content = results.read("vae")
    content["rows"][1]["numbers"][0]["value"] = 70.123456
    (tmp_path / "docs" / "results" / "vae.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(results.UserError, match=r"README.md, docs/vae.md differ .* `python -m tools.results`"):
        results.update(results.Config(check=True))
    assert results.update(results.Config()) == "rewrote README.md, docs/vae.md"
    for page in ("README.md", "docs/vae.md"):
        assert "70.12" in (tmp_path / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "column", "text"),
    [
        ({"value": 88.6249, "unit": "nats", "kind": "lower_bound"}, {"digits": 2}, "<= 88.62"),
        ({"value": -3.25, "unit": "nats", "kind": "estimate"}, {"digits": 1}, "~ -3.2"),
        ({"value": 0.9, "unit": "share", "kind": "score"}, {"digits": 2}, "0.90"),
        ({"value": 33.5, "unit": "1", "low": 31.1, "high": 34.9}, {}, "33.5 (31.1 to 34.9)"),
        ({"value": 1720.4, "unit": "ms"}, {}, "1,720"),
        ({"value": 0.00152, "unit": "s"}, {}, "0.00152"),
        ({"value": 9.321, "unit": "", "standard_deviation": 0.294}, {"digits": 2}, "9.32 ± 0.29"),
        ({"value": 0.17931, "unit": "", "standard_error": 0.00043}, {"digits": 2}, "0.1793 ± 0.0004"),
        ({"value": 1.0, "unit": "", "standard_error": 0.0}, {"digits": 2}, "1.00 ± 0.00"),
        (
            {"value": 5.0, "unit": "nats", "kind": "exact", "settings": {"K": 5000}},
            {"settings": ["K"]},
            "= 5.0, K = 5,000",
        ),
    ],
)
def test_a_number_is_shown_with_its_sign_and_its_digits(number, column, text):
    assert results.shown(number, column) == text
