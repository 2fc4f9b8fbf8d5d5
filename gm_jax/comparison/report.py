"""Writes a comparison as a page: report.html with its pictures embedded, report.md and results.json.

Each data set has a table, and each family a row in it; the row of a family that failed shows its error. Every
likelihood carries its sign, kind and measure, every distance its extractor and the numbers of samples. The layout is in
templates/.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jinja2
import numpy as np

from gm_jax.comparison import intervals
from gm_jax.comparison.measure import Outcome, Taxonomy, kind_of
from gm_jax.evaluation import results
from gm_jax.evaluation.results import Record
from gm_jax.files import write_text
from gm_jax.plotting import images

_SIGNS = {"=": "=", "<=": "≤", ">=": "≥", "~": "≈"}
_TITLES = {"images": "Images", "points": "Points in the plane", "small_world": "The exact small world"}
_INTERVALS = (
    "An interval holds a mean -log p of the model, if both ends are known; its words state of which examples, and what "
    "makes each end."
)
_NOTES = {
    "images": "Negative log-likelihood of the test split; smaller is better. = is exact; ≤ is an upper bound: the true "
    "value is at most this; ≥ is a lower bound: the true value is at least this; ≈ is an estimate. Compare only values "
    "of the same measure: the continuous estimate of a GAN, from kernels on its samples, is not comparable with the "
    "others. Distances and scores compare samples with as many training images, by the features of the extractor that "
    "heads the column; they are not FIDs. Smaller distances and larger scores are better. The row of the data compares "
    "held-out images, which are fewer, with training images. " + _INTERVALS,
    "points": "Negative log-likelihood of the test split under a density, next to the entropy of the true density, "
    "which a model can beat only by chance. " + _INTERVALS,
    "small_world": "16 binary pixels have 65,536 states, and the probability of each under the data is known. The "
    "-ELBO and reported NLL are test-split means. The true NLL is the expectation under the data: exact (=) by "
    "enumeration of all states or by quadrature over the latent plane; otherwise a mean over the model's noise, which "
    "is an estimate (≈) or, for an average of bounds, a bound (≤). TV is the total variation of 10,000 samples; "
    "brackets show its expectation for exact draws. A sampler with a much larger value does not draw from its model. "
    + _INTERVALS,
}


class Cell(NamedTuple):
    """The text of a cell: a main text, and a small text below it or in brackets."""

    main: str
    small: str = ""


class Row(NamedTuple):
    """The row of a family; the cells of a row with an error are the error and blanks."""

    family: str
    cells: tuple[Cell, ...]
    error: str | None


class Section(NamedTuple):
    """The table and the pictures of one data set; `pictures` are (caption, PNG)."""

    title: str
    data: str
    note: str
    heads: tuple[Cell, ...]
    rows: tuple[Row, ...]
    pictures: tuple[tuple[str, Path], ...]


class Column(NamedTuple):
    """A column: its title, the record that its head describes ("" for none), and its cells."""

    title: str
    record: str
    cell: Callable[[Outcome], Cell]


def write(
    folder: Path,
    outcomes: Sequence[Outcome],
    facts: Mapping[str, str],
    taxonomies: Mapping[str, Taxonomy] = MappingProxyType({}),
) -> Path:
    """Writes report.html, report.md and results.json, and returns the path of report.html.

    Args:
        folder: folder to write to; it holds the pictures of the outcomes.
        outcomes: one outcome per row, in the order of the rows; each data set becomes a table.
        facts: name -> value of what applies to all rows: time, machine, versions.
        taxonomies: family -> how the field classifies it: the rows of the page's first table.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gm_jax.comparison"),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"embedded": _embedded, "inline": _inline}
    sections = [section(folder, data, outcomes) for data in dict.fromkeys(outcome.data for outcome in outcomes)]
    for name in ("report.md", "report.html"):
        template = environment.get_template(f"{name}.jinja")
        write_text(folder / name, template.render(sections=sections, facts=facts, taxonomies=taxonomies))
    results.write(folder / "results.json", [record for outcome in outcomes for record in outcome.records])
    return folder / "report.html"


def section(folder: Path, data: str, outcomes: Sequence[Outcome]) -> Section:
    """Returns the section of one data set, and draws its validation curves."""
    outcomes, kind = [outcome for outcome in outcomes if outcome.data == data], kind_of(data)
    pictures = [(f"{o.family}: {what}", path) for o in outcomes for what, path in o.pictures.items()]
    curves = _draw_curves(folder, data, outcomes)
    return Section(
        title=_TITLES[kind],
        data=data,
        note=_NOTES[kind],
        heads=tuple(Cell(column.title, _head(outcomes, column.record)) for column in _COLUMNS[kind]),
        rows=tuple(_row(outcome, _COLUMNS[kind]) for outcome in outcomes),
        pictures=tuple(pictures + ([("validation over time", curves)] if curves else [])),
    )


def _row(outcome: Outcome, columns: Sequence[Column]) -> Row:
    if outcome.error:
        return Row(outcome.family, (Cell(outcome.error), *[Cell("")] * (len(columns) - 1)), outcome.error)
    return Row(outcome.family, tuple(column.cell(outcome) for column in columns), None)


def _head(outcomes: Sequence[Outcome], name: str) -> str:
    """Describes the records of a column: their extractor and number of real images, or their measures."""
    heads = set()
    for record in (r for outcome in outcomes for r in outcome.records if r.name.split("[")[0] == name):
        extractor, num_real = (record.settings.get(key) for key in ("extractor", "num_real"))
        heads.add((extractor or record.measure) + (f", {num_real:,} real" if num_real else ""))
    return "; ".join(sorted(heads))


def _find(outcome: Outcome, name: str, unit: str | None = None) -> Record | None:
    found = (r for r in outcome.records if r.name.split("[")[0] == name and unit in (None, r.unit))
    return next(found, None)


def _likelihood(name: str, unit: str = "nats", digits: int = 3) -> Callable[[Outcome], Cell]:
    """Makes cells of -log p: sign and value, and below them kind, measure, K and method."""

    def cell(outcome: Outcome) -> Cell:
        record = _find(outcome, name, unit)
        if record is None:
            return Cell("-")
        words = [results.KIND_OF_NLL[record.kind], record.measure]
        words += [f"on {record.settings['space']}"] if "space" in record.settings else []
        words += [f"K = {record.settings['K']}"] if "K" in record.settings else []
        words += [f"by {record.settings['by']}"] if "by" in record.settings else []
        sign = _SIGNS[results.SIGN_OF_NLL[record.kind]]
        return Cell("not finite" if record.value is None else f"{sign} {record.value:.{digits}f}", ", ".join(words))

    return cell


def _score(name: str, digits: int = 2, note: str = "") -> Callable[[Outcome], Cell]:
    """Makes cells of a score; below it stands `note`, a format of the record's settings, if it has them."""

    def cell(outcome: Outcome) -> Cell:
        record = _find(outcome, name)
        if record is None:
            return Cell("-")
        try:
            small = note.format(**record.settings)
        except KeyError:
            small = ""
        return Cell("not finite" if record.value is None else f"{record.value:.{digits}f}", small)

    return cell


def _interval(outcome: Outcome) -> Cell:
    """Makes the cell of the interval that holds the mean -log p, and below it what makes each end."""
    found = intervals.find(outcome.records)
    if found is None:
        return Cell("-")
    low, high = found.low, found.high
    if low is high:
        return Cell(f"= {low.value:.2f}", "exact")
    words = [f"of {high.examples:,} {'own samples' if high.split == 'samples' else f'{high.split} examples'}"]
    words += [f"low end by {low.settings['by']}", f"high end by {high.settings['by']}"]
    words += [f"truth {found.truth.value:.2f}"] if found.truth is not None else []
    ends = [one.value for one in (low, high) if one.value is not None]
    digits = 2 if ends[-1] - ends[0] > 0.1 else 3
    return Cell(f"[{ends[0]:.{digits}f}, {ends[-1]:.{digits}f}]", ", ".join(words))


def _rounded(value: float) -> str:
    """Rounds to three digits, because a speed is not known better."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 10 else f"{value:.2g}"


_SPEED = (
    Column("Samples / s", "", lambda o: Cell(_rounded(o.samples_per_second) if o.samples_per_second else "-")),
    Column("Parameters", "", lambda o: Cell(f"{o.num_params:,}" if o.num_params else "-")),
    Column("Training", "", lambda o: Cell(f"{o.seconds:.1f} s", f"{o.steps:,} steps") if o.steps else Cell("-")),
)
_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "images": (
        Column("Test NLL, nats", "nll", _likelihood("nll", digits=2)),
        Column("Test NLL, bits / dim", "nll", _likelihood("nll", "bits/dim")),
        Column("Interval of -log p, nats", "", _interval),
        Column("Fréchet distance", "frechet", _score("frechet", note="{num_generated:,} samples")),
        Column("Inception Score", "inception_score", _score("inception_score", note="± {standard_deviation:.2f}")),
        Column("Precision", "precision", _score("precision")),
        Column("Recall", "recall", _score("recall")),
        *_SPEED,
    ),
    "points": (
        Column("Test NLL, nats", "nll", _likelihood("nll")),
        Column("Interval of -log p, nats", "", _interval),
        *_SPEED,
    ),
    "small_world": (
        Column("-ELBO, nats", "negative_elbo", _likelihood("negative_elbo")),
        Column("Reported NLL, nats", "nll", _likelihood("nll")),
        Column("True NLL, nats", "nll_of_world", _likelihood("nll_of_world")),
        Column("Interval of -log p, nats", "", _interval),
        Column("KL from the data, nats", "kl_to_world", _likelihood("kl_to_world")),
        Column("TV to its own p", "", _score("tv_samples_to_model", 3, "[{of_exact_draws:.3f}]")),
        Column("TV to the data", "", _score("tv_samples_to_data", 3)),
        *_SPEED,
    ),
}


def _draw_curves(folder: Path, data: str, outcomes: Sequence[Outcome]) -> Path | None:
    """Draws the validation of all families over time in one picture; returns None if no family was validated."""
    curves = {}
    for outcome in outcomes:
        points = np.array([(moment.seconds, moment.value) for moment in outcome.curve]).reshape(-1, 2)
        points = points[np.isfinite(points[:, 1])]
        if len(points):
            kind, measure = outcome.curve[0].kind, outcome.curve[0].measure
            curves[f"{outcome.family} ({_SIGNS[results.SIGN_OF_NLL[kind]]} {measure})"] = points
    return images.draw_validation(folder / f"{data.replace(':', '-')}-curves.png", curves) if curves else None


def _inline(cell: Cell) -> str:
    """Formats a cell for a Markdown table."""
    return (f"{cell.main} ({cell.small})" if cell.small else cell.main).replace("|", "\\|")


def _embedded(path: Path) -> str:
    """Returns a PNG as a data URL."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
