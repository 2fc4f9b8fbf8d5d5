"""The page of a comparison: every row and every picture, in the text and in a browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from gm_jax.comparison import families, report
from gm_jax.comparison.measure import Outcome, Taxonomy
from gm_jax.comparison.train_for_time import Moment
from gm_jax.evaluation import results
from gm_jax.evaluation.results import Record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FAMILIES = ("VAE", "MADE & <friends>", "broken", "a family with a rather long name")


def record(name, value, unit="nats", kind="exact", data="digits4x4", **settings):
    return Record(name, value, unit, kind, data, "binary", "test", 100, settings)


def measured(data, folder):
    png = folder / f"{data.replace(':', '-')}-samples.png"
    Image.fromarray(np.full((650, 650, 3), 90, np.uint8)).save(png)
    score = {"kind": "score", "extractor": "digits-cnn", "num_real": 1437, "num_generated": 1437, "data": data}
    records = (
        record("nll", 12.3456, kind="lower_bound", data=data, K=100),
        record("nll", 0.2783, unit="bits/dim", kind="lower_bound", data=data, K=100),
        record("frechet[digits-cnn]", 3.25, unit="squared feature distance", **score),
        record("inception_score[digits-cnn]", 7.5, unit="classes", standard_deviation=0.25, **score),
        record("nll_of_world", 6.543, data=data, by="enumeration"),
        record("nll_at_low_log_z", 11.5, kind="upper_bound", data=data, by="annealed chains"),
        record("nll_at_high_log_z", 12.25, kind="lower_bound", data=data, by="reversed chains from data"),
        record("kl_to_world", None, data=data),
        record("tv_samples_to_model", 0.1234, unit="total variation", kind="score", data=data, of_exact_draws=0.1201),
    )
    curve = tuple(Moment(float(t), 10 * t, 20.0 - t, "lower_bound", "binary") for t in range(1, 9))
    row = Outcome(FAMILIES[0], data, None, records, {"samples": png}, curve, 1234567, 890, 8.04, 12345.0)
    return [
        Outcome("the data", data, records=(record("kl_to_world", 0.0, data=data),), pictures={"samples": png}),
        row,
        row._replace(family=FAMILIES[1], pictures={}, curve=(), num_params=2_000_000),
        Outcome(FAMILIES[2], data, error="failed: ValueError: shapes (3, 4) | <b>do not fit</b>"),
        row._replace(family=FAMILIES[3], num_params=3_000_000),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    outcomes = [row for data in ("binarized_digits", "toy:two_moons", "digits4x4") for row in measured(data, folder)]
    taxonomies = {FAMILIES[1]: Taxonomy("explicit", "exact", "pixel by pixel", "maximises log p", "none")}
    assert report.write(folder, outcomes, {"training": "8 s each"}, taxonomies) == folder / "report.html"
    return folder


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_every_family_has_a_row_in_every_table(written, name):
    text = html.unescape((written / name).read_text())
    for family in ("the data", *FAMILIES):
        tables = text[text.index("Images") :]
        rows = re.findall(rf"(?m)^\| {re.escape(family)} \||<tr data-family='{re.escape(family)}'>", tables)
        assert len(rows) == 3, family


def test_numbers_carry_sign_kind_extractor_and_counts(written):
    text = (written / "report.md").read_text()
    assert "≤ 12.35 (upper bound, binary, K = 100)" in text
    assert "≤ 0.278 (upper bound, binary, K = 100)" in text
    assert "= 6.543 (exact, binary, by enumeration)" in text
    assert "not finite (exact, binary)" in text
    ends = "low end by annealed chains, high end by reversed chains from data"
    assert f"[11.50, 12.25] (of 100 test examples, {ends})" in text
    assert "0.123 ([0.120])" in text
    assert "7.50 (± 0.25)" in text
    assert "Fréchet distance (digits-cnn, 1,437 real)" in text
    assert "1,234,567" in text
    assert "3.25 (1,437 samples)" in text
    assert "12,300" in text
    assert "8.0 s (890 steps)" in text
    assert "FID " not in text.replace("not FIDs", "")


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("exact", ("= -18.00", "exact")),
        ("lower_bound", ("≤ -18.00", "upper bound")),
        ("upper_bound", ("≥ -18.00", "lower bound")),
        ("estimate", ("≈ -18.00", "estimate")),
    ],
)
@pytest.mark.parametrize("measure", ["binary", "17 levels", "continuous"])
def test_every_likelihood_carries_sign_kind_and_measure(kind, shown, measure, tmp_path):
    probability = record("nll", 12.0, data="binarized_digits")
    other = record("nll", -18.0, kind=kind, data="binarized_digits")._replace(measure=measure)
    outcomes = [Outcome(name, "binarized_digits", records=(r,)) for name, r in (("MADE", probability), ("GAN", other))]
    section = report.section(tmp_path, "binarized_digits", outcomes)
    assert section.rows[1].cells[0][:2] == (shown[0], f"{shown[1]}, {measure}")
    # Two measures in one column are both named in its head.
    assert section.heads[0].small == "; ".join(sorted({"binary", measure}))


def test_an_estimate_that_is_not_converged_says_so(tmp_path):
    empty = record("nll", 12.0, kind="estimate", data="binarized_digits")._replace(value=None)
    stuck = empty._replace(settings={**empty.settings, "not_converged": True})
    outcomes = [Outcome(name, "binarized_digits", records=(r,)) for name, r in (("EBM", empty), ("JEM", stuck))]
    section = report.section(tmp_path, "binarized_digits", outcomes)
    assert [row.cells[0].main for row in section.rows] == ["not finite", "not converged"]


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_the_first_table_states_what_the_families_are(written, name):
    text = html.unescape((written / name).read_text())
    first = re.sub(r"<[^>]*>|\|", " ", text[text.index("What the families are") : text.index("Images")])
    assert "MADE &" in first
    for word in ("Form", "Latents", "explicit", "exact", "pixel by pixel", "maximises log p", "none"):
        assert word in first, word


def test_every_family_of_the_table_is_classified():
    rows = families.table()
    assert all(row.taxonomy is not None for row in rows)
    assert {row.taxonomy.form for row in rows} == {"explicit", "implicit"}
    assert {row.name for row in rows if row.taxonomy.form == "implicit"} == {
        *("GAN", "improved GAN", "WGAN-GP"),
        "consistency model",
    }


def test_the_row_of_a_failed_family_shows_its_error_escaped(written):
    markdown, source = ((written / name).read_text() for name in ("report.md", "report.html"))
    assert "failed: ValueError: shapes (3, 4) \\| <b>do not fit</b>" in markdown
    assert "&lt;b&gt;do not fit" in source
    assert "<friends>" not in source
    # Each row of a Markdown table has as many cells as its head.
    for table in re.findall(r"(?m)(?:^\|.*\n)+", markdown):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
        assert f"\n\n{table}\n" in markdown  # blank lines separate a table from the rest


def test_the_page_needs_no_other_file(written):
    source = (written / "report.html").read_text()
    assert set(re.findall(r"src='([^,]*),", source)) == {"data:image/png;base64"}
    assert not re.findall(r"https?://|<script [^>]*src|<link|@import|url\(", source)


def test_the_results_file_holds_all_records(written):
    records = results.read(written / "results.json")
    assert len(records) == 3 * (1 + 3 * 9)


def ranked(cells, better="smaller"):
    """Which of some cells are marked as the best."""
    rows = [report.Row(f"family {index}", (cell,), None) for index, cell in enumerate(cells)]
    column = report.Column("a column", "", lambda outcome: report.Cell("-"), better)
    return [row.cells[0].is_best for row in report._with_best(rows, [column])]


def test_the_best_value_is_marked_among_those_of_one_kind_and_measure_only():
    cells = [report.Cell(str(value), value=value, group=group) for value, group in ((3.0, "a"), (2.0, "a"), (1.0, "b"))]
    assert ranked(cells) == [False, True, False]
    assert ranked(cells, "larger") == [True, False, False]
    assert ranked(cells, "") == [False] * 3
    assert ranked([report.Cell("-"), *cells]) == [False, False, True, False]


def test_the_data_are_never_the_best():
    rows = [
        report.Row(name, (report.Cell("x", value=value),), None, is_data=name == "the data")
        for name, value in (("the data", 0.0), ("a", 1.0), ("b", 2.0))
    ]
    column = report.Column("a column", "", lambda outcome: report.Cell("-"), "smaller")
    assert [row.cells[0].is_best for row in report._with_best(rows, [column])] == [False, True, False]


def test_a_small_curve_falls_as_the_validation_does():
    values = (20.0, 14.0, float("nan"), 10.0)
    curve = tuple(Moment(float(t), t, value, "exact", "binary") for t, value in enumerate(values))
    points, text = report._spark(Outcome("a", "digits4x4", curve=curve))
    assert points == "0.0,2.0 40.0,17.6 120.0,28.0"
    assert text == "20.00 to 10.00 nats"
    assert report._spark(Outcome("a", "digits4x4", curve=curve[:1])) == ("", "")


# What a browser does with the page at some width, as a reader would: sorts, looks at a picture, changes the colours.
ASK = """<script>addEventListener("load", () => {
    const all = selector => [...document.querySelectorAll(selector)], tiles = all(".tile"), dialog = all("dialog")[0];
    const names = () => all("section:last-of-type tr[data-family]").map(row => row.dataset.family);
    const sort = title => all("section:last-of-type thead button").find(b => b.textContent === title).click();
    const found = {
        images: all(".tile img, .curves img").map(i => i.complete && i.naturalWidth > 0 && i.clientWidth > 100),
        sizes: tiles.map(tile => [tile.clientWidth, tile.clientHeight]),
        rows: all("tr[data-family]").map(row => row.dataset.family),
        wide: document.documentElement.scrollWidth - innerWidth, width: innerWidth,
        sparks: all("svg polyline").map(line => line.getBoundingClientRect().width > 50)};
    sort("Parameters");
    found.ascending = names();
    sort("Parameters");
    found.descending = names();
    const back = () => getComputedStyle(document.body).backgroundColor;
    found.colours = [back()];
    document.getElementById("theme").click();
    found.colours.push(back());
    tiles[1].click();
    found.dialog = [dialog.open, dialog.querySelector("span").textContent];
    dialog.querySelector("[data-step='1']").click();
    found.dialog.push(dialog.querySelector("span").textContent);
    dialog.querySelector("[data-step='0']").click();
    found.dialog.push(dialog.open);
    parent.postMessage(JSON.stringify(found), "*");
})</script>"""
# Chromium's own windows are at least 500 pixels wide, a frame is not.
FRAME = """<!doctype html><body><iframe src="asked.html" style="border:0;width:{width}px;height:800px"></iframe>
<script>addEventListener("message", event => {{ document.body.dataset.found = event.data }})</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_sorts_and_enlarges_without_sideways_scrolling(written, tmp_path, width):
    (tmp_path / "asked.html").write_text((written / "report.html").read_text().replace("</body>", ASK + "</body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    quiet = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'user'}")
    page = ("--window-size=1400,900", "--virtual-time-budget=10000", "--dump-dom", (tmp_path / "frame.html").as_uri())
    done = subprocess.run(
        [CHROMIUM, *flags, *quiet, *page], **{"capture_output": True, "text": True, "check": True, "timeout": 120}
    )
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))
    assert found["width"] == width
    assert found["wide"] <= 0, found
    assert len(found["images"]) == 3 * (3 + 1)
    assert all(found["images"])
    assert len({tuple(size) for size in found["sizes"]}) <= 3  # the sizes of one grid are equal
    assert all(abs(across - down) <= 1 for across, down in found["sizes"])
    assert found["rows"] == ["the data", *FAMILIES] * 3
    assert found["sparks"] == [True] * 6
    others = [name for name in FAMILIES if name != "broken"]
    assert found["ascending"] == ["the data", *others, "broken"]
    assert found["descending"] == ["the data", *others[::-1], "broken"]
    assert found["colours"][0] != found["colours"][1]
    first, second = (f"{name}: samples (binarized_digits)" for name in (FAMILIES[0], FAMILIES[3]))
    assert found["dialog"] == [True, first, second, False]
