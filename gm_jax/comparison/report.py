"""A comparison as a page: report.html with its pictures inside, the same as report.md, and results.json.

A table for each data set, a row for each family, in the order of the families; one that failed has its error in its
row. Every likelihood carries its sign and kind, every distance its extractor and the numbers of samples.
"""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gm_jax.comparison.measure import Outcome, kind_of
from gm_jax.evaluation import results
from gm_jax.evaluation.results import Record
from gm_jax.files import write_text

_SIGNS = {"exact": "=", "lower_bound": "≤", "upper_bound": "≥", "estimate": "≈", "score": ""}
_KINDS = {
    "exact": "exact",
    "lower_bound": "bound",
    "upper_bound": "bound from below",
    "estimate": "estimate",
    "score": "",
}
_TITLES = {"images": "Images", "points": "Points in the plane", "small_world": "The exact small world"}
_NOTES = {
    "images": "Negative log-likelihood of the test split: a smaller one is better. = is exact; ≤ is a bound: the true "
    "one is at most this; ≈ is an estimate; that of GANs, of a density by kernels on their samples, compares with no "
    "other family's. Distances and scores compare samples with as many training images, by the "
    "features of the extractor that their column names; they are no FIDs. A smaller distance and a larger score are "
    "better. The row of the data compares held-out images, of which there are fewer, with the training images.",
    "points": "Negative log-likelihood of the test split, a density, beside the entropy of the true one, which no "
    "model can stay below but by the chance of the split.",
    "small_world": "16 binary pixels, 65,536 states, and the data's probability of each is known. The bound and the "
    "reported number are of draws; the true one is the expectation under the data, by enumeration of all states or by "
    "quadrature over the latent plane (=), or by a mean over the noise that the model averages (≈; of bounds, "
    "which it stays, ≤). TV: total variation of 10,000 samples; in brackets what exact draws would have. A sampler "
    "whose own is much larger does not draw from its model.",
}


class Table(NamedTuple):
    """Rows of cells, a cell being (main text, small text); a row of one cell is a message beside its name."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


Cell = tuple[str, str]
Column = tuple[str, str, Callable[[Outcome], Cell]]


def write(folder: Path, outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> Path:
    """Write report.html, report.md and results.json; returns the first.

    Args:
        folder: where to; pictures of the outcomes lie in it.
        outcomes: in the order of the rows; those of one data set are one table.
        facts: what is to be said of all, by name: time, machine, versions.
    """
    names = list(dict.fromkeys(outcome.data for outcome in outcomes))
    sections = []
    for data in names:
        mine = [outcome for outcome in outcomes if outcome.data == data]
        sections.append((data, table(mine), _pictures(mine, _curves(folder, data, mine))))
    write_text(folder / "report.md", _markdown(sections, facts))
    write_text(folder / "report.html", _html(sections, facts))
    results.write(folder / "results.json", [record for outcome in outcomes for record in outcome.records])
    return folder / "report.html"


def table(outcomes: Sequence[Outcome]) -> Table:
    """The table of one data set."""
    columns = _COLUMNS[kind_of(outcomes[0].data)]
    rows = []
    for outcome in outcomes:
        cells = ((outcome.error, ""),) if outcome.error else tuple(cell(outcome) for _, _, cell in columns)
        rows.append((outcome.family, cells))
    heads = [(title, _said_of(outcomes, name) if name else "") for title, name, _ in columns]
    return Table((("Family", ""), *heads), tuple(rows))


def _said_of(outcomes: Sequence[Outcome], name: str) -> str:
    """What the head of a column says of its records: the extractor and the number of real images, or the measure."""
    found = [record for outcome in outcomes for record in outcome.records if record.name.split("[")[0] == name]
    extractors = {
        f"{record.settings['extractor']}, {record.settings['num_real']:,} real"
        if "num_real" in record.settings
        else record.settings["extractor"]
        for record in found
        if "extractor" in record.settings
    }
    return "; ".join(sorted(extractors or {record.measure for record in found}))


def _find(outcome: Outcome, name: str, unit: str | None = None) -> Record | None:
    found = (r for r in outcome.records if r.name.split("[")[0] == name and unit in (None, r.unit))
    return next(found, None)


def _number(name: str, unit: str | None = None, digits: int = 2, note: str | None = None) -> Callable[[Outcome], Cell]:
    """The cell of a record: its sign and value, and its kind or one of its settings below."""

    def cell(outcome: Outcome) -> Cell:
        record = _find(outcome, name, unit)
        if record is None:
            return "-", ""
        if record.value is None:
            return "not finite", ""
        said = _KINDS[record.kind]
        if "K" in record.settings and record.kind == "lower_bound":
            said = f"{said}, K = {record.settings['K']}"
        if record.measure == "continuous" and kind_of(outcome.data) != "points":
            said = f"{said}, a density"
        if note is not None and note in record.settings:
            value = record.settings[note]
            said = f"[{value:.{digits}f}]" if isinstance(value, float) else str(value)
        if record.kind == "score" and "standard_deviation" in record.settings and note is None:
            said = f"± {record.settings['standard_deviation']:.{digits}f}"
        elif note == "num_generated":
            said = f"{record.settings[note]:,} samples"
        return f"{_SIGNS[record.kind]} {record.value:.{digits}f}".strip(), said

    return cell


def _rounded(value: float) -> str:
    """To three digits, for a speed has no more."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 10 else f"{value:.2g}"


_SPEED: tuple[Column, ...] = (
    ("Samples / s", "", lambda o: (_rounded(o.samples_per_second) if o.samples_per_second else "-", "")),
    ("Parameters", "", lambda o: (f"{o.num_params:,}" if o.num_params else "-", "")),
    ("Training", "", lambda o: (f"{o.seconds:.1f} s", f"{o.steps:,} steps") if o.steps else ("-", "")),
)
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "images": (
        ("Test NLL, nats", "nll", _number("nll", "nats")),
        ("bits / dim", "", _number("nll", "bits/dim", 3)),
        ("Fréchet distance", "frechet", _number("frechet", note="num_generated")),
        ("Inception Score", "inception_score", _number("inception_score")),
        ("Precision", "precision", _number("precision")),
        ("Recall", "recall", _number("recall")),
        *_SPEED,
    ),
    "points": (("Test NLL, nats", "nll", _number("nll", "nats", 3)), *_SPEED),
    "small_world": (
        ("-ELBO, nats", "", _number("negative_elbo", "nats", 3)),
        ("Reported NLL, nats", "", _number("nll", "nats", 3)),
        ("True NLL, nats", "", _number("nll_of_world", "nats", 3, "by")),
        ("KL from the data", "", _number("kl_to_world", "nats", 3)),
        ("TV to its own p", "", _number("tv_samples_to_model", None, 3, "of_exact_draws")),
        ("TV to the data", "", _number("tv_samples_to_data", None, 3)),
        *_SPEED,
    ),
}


def _curves(folder: Path, data: str, outcomes: Sequence[Outcome]) -> Path | None:
    """Validation over time of all families in one picture; None where none was validated."""
    from matplotlib.figure import Figure

    curves = {o.family: np.array([(m.seconds, m.value) for m in o.curve]) for o in outcomes if o.curve}
    curves = {name: curve[np.isfinite(curve[:, 1])] for name, curve in curves.items()}
    if not any(map(len, curves.values())):
        return None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(*curve.T, marker="o", ms=3, label=name, ls="-" if index < 10 else "--")
    # The worst family's first moments leave the picture, rather than flatten it.
    ends = np.array([curve[-1, 1] for curve in curves.values() if len(curve)])
    low, spread = ends.min(), max(np.median(ends) - ends.min(), 0.05 * abs(ends.min()), 0.1)
    axes.set_ylim(low - 0.2 * spread, low + 5.0 * spread)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("validation -log p, nats")
    axes.legend(fontsize="small", ncols=2)
    path = folder / f"{data.replace(':', '-')}-curves.png"
    figure.savefig(path, dpi=120)
    return path


def _pictures(outcomes: Sequence[Outcome], curves: Path | None) -> list[tuple[str, Path]]:
    """(caption, file) of everything to be shown of a data set."""
    shown = [(f"{o.family}: {what}", path) for o in outcomes for what, path in o.pictures.items()]
    return [*shown, *([("validation over time", curves)] if curves else [])]


def _markdown(sections: Sequence, facts: Mapping[str, str]) -> str:
    lines = ["# All families side by side", "", *(f"* {name}: {said}" for name, said in facts.items())]
    for data, made, shown in sections:
        kind = kind_of(data)
        heads = [title + (f" ({small})" if small else "") for title, small in made.columns]
        lines += ["", f"## {_TITLES[kind]}: {data}", "", _NOTES[kind], "", "| " + " | ".join(heads) + " |"]
        lines += ["|" + " --- |" * len(heads)]
        for name, cells in made.rows:
            texts = [main + (f" ({small})" if small else "") for main, small in cells]
            texts += [""] * (len(heads) - 1 - len(texts))
            lines.append("| " + " | ".join(text.replace("|", "\\|") for text in (name, *texts)) + " |")
        lines += ["", *(f"![{caption}]({path.name})" for caption, path in shown)]
    return "\n".join(lines) + "\n"


def _html(sections: Sequence, facts: Mapping[str, str]) -> str:
    e = html.escape
    parts = [f"<li><b>{e(name)}</b> {e(said)}</li>" for name, said in facts.items()]
    body = [f"<h1>All families side by side</h1><ul class=facts>{''.join(parts)}</ul>"]
    for data, made, shown in sections:
        kind = kind_of(data)
        body.append(f"<section><h2>{e(_TITLES[kind])} <small>{e(data)}</small></h2><p>{e(_NOTES[kind])}</p>")
        heads = "".join(f"<th scope=col>{_cell(e, head)}</th>" for head in made.columns)
        rows = [_html_row(e, name, cells, len(made.columns)) for name, cells in made.rows]
        shown_table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        body.append(f"<div class=wide>{shown_table}</div>")
        figures = [
            f"<figure{' class=large' if _is_large(path) else ''}><img alt='{e(caption)}' src='{_embedded(path)}'>"
            f"<figcaption>{e(caption)}</figcaption></figure>"
            for caption, path in shown
        ]
        body.append(f"<div class=pictures>{''.join(figures)}</div></section>")
    return _PAGE.replace("BODY", "\n".join(body))


def _html_row(e: Callable, name: str, cells: tuple[Cell, ...], num_columns: int) -> str:
    head = f"<tr data-family='{e(name)}'><th scope=row>{e(name)}</th>"
    if len(cells) == 1:
        return f"{head}<td class=message colspan={num_columns - 1}>{e(cells[0][0])}</td></tr>"
    return head + "".join(f"<td>{_cell(e, cell)}</td>" for cell in cells) + "</tr>"


def _cell(e: Callable, cell: Cell) -> str:
    main, small = cell
    return e(main) + (f"<small>{e(small)}</small>" if small else "")


def _is_large(path: Path) -> bool:
    return path.stem.endswith(("-density", "-curves"))


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>All families side by side</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0b65c2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h2 small { font-weight: normal; opacity: .7; }
p { max-width: 48rem; }
.facts { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; min-width: 5rem; }
td, tbody th { white-space: nowrap; }
th:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
tbody tr:hover td { background: var(--soft); }
td small, th small { display: block; font-weight: normal; font-size: .75rem; opacity: .7; }
td.message { text-align: left; font-style: italic; opacity: .8; white-space: normal; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 45%), 1fr)); gap: 1rem;
  margin-top: 1.5rem; align-items: start; }
figure { margin: 0; }
figure.large { grid-column: span 2; }
figcaption { font-size: .85rem; opacity: .8; }
img { display: block; width: 100%; height: auto; background: white; border-radius: 4px; }
@media (max-width: 40rem) { th, td { padding: .3rem .5rem; } }
</style>
</head>
<body>
BODY
</body>
</html>
"""
