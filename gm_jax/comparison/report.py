"""Writes a comparison as a page: report.html with its pictures embedded, report.md and results.json.

Each data set has a table, and each family a row in it; the row of a family that failed shows its error. Every
likelihood carries its sign, kind and measure, every distance its extractor and the numbers of samples. The layout is in
templates/.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import jinja2
import numpy as np

from gm_jax.comparison import intervals
from gm_jax.comparison.measure import THE_DATA, Outcome, Taxonomy, kind_of
from gm_jax.evaluation import results
from gm_jax.evaluation.results import Record
from gm_jax.files import write_text
from gm_jax.plotting import curves as pictures_of_curves

_SIGNS = {"=": "=", "<=": "≤", ">=": "≥", "~": "≈"}
_TITLES = {"images": "Images", "points": "Points in the plane", "small_world": "The exact small world"}
_INTERVALS = (
    "An interval holds a mean -log p of the model, if both ends are known; its words state of which examples, and what "
    "makes each end."
)
_NFE = " NFE is the number of evaluations of the network for one sample, one after the other."
_NOTES = {
    "images": "Negative log-likelihood of the test split; smaller is better. = is exact; ≤ is an upper bound: the true "
    "value is at most this; ≥ is a lower bound: the true value is at least this; ≈ is an estimate. Compare only values "
    "of the same measure: the continuous estimate of a GAN, from kernels on its samples, is not comparable with the "
    "others. Distances and scores compare samples with as many training images, by the features of the extractor that "
    "heads the column; they are not FIDs. Smaller distances and larger scores are better. The row of the data compares "
    "held-out images, which are fewer, with training images. " + _INTERVALS + _NFE,
    "points": "Negative log-likelihood of the test split under a density, next to the entropy of the true density, "
    "which a model can beat only by chance. " + _INTERVALS + _NFE,
    "small_world": "16 binary pixels have 65,536 states, and the probability of each under the data is known. The "
    "-ELBO and reported NLL are test-split means. The true NLL is the expectation under the data: exact (=) by "
    "enumeration of all states or by quadrature over the latent plane; otherwise a mean over the model's noise, which "
    "is an estimate (≈) or, for an average of bounds, a bound (≤). TV is the total variation of 10,000 samples; "
    "brackets show its expectation for exact draws. A sampler with a much larger value does not draw from its model. "
    + _INTERVALS
    + _NFE,
}


class Cell(NamedTuple):
    """A cell of the table.

    Attributes:
        main: its main text.
        small: a small text below it or in brackets.
        value: what rows are sorted by; None if the cell has no number.
        group: kind and measure of the value: only values of one group are ranked.
        is_best: whether it is the best value of its group.
    """

    main: str
    small: str = ""
    value: float | None = None
    group: str = ""
    is_best: bool = False


class Head(NamedTuple):
    """The head of a column: its title, what describes its records, whether it sorts, and in which order at first."""

    main: str
    small: str
    is_sortable: bool
    first: Literal["ascending", "descending"]


class Row(NamedTuple):
    """The row of a family.

    Attributes:
        family: its name.
        cells: one for each column; the error and blanks in a row with an error.
        error: what went wrong, or None.
        spark: the points of a small curve of the validation, "x,y x,y ..." in a box of 120 x 30; "" without one.
        spark_text: the first and the last value of the curve.
        is_data: whether it is the row of the data themselves.
    """

    family: str
    cells: tuple[Cell, ...]
    error: str | None
    spark: str = ""
    spark_text: str = ""
    is_data: bool = False


class Section(NamedTuple):
    """The table and the pictures of one data set.

    Attributes:
        title: of the kind of data.
        data: name of the data set.
        note: how to read the table.
        heads: of the columns.
        rows: of the families.
        grids: what is shown ("samples", "density") -> (family, PNG), all of one size.
        curves: PNG of the validation of all families over time; None without any.
    """

    title: str
    data: str
    note: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    grids: Mapping[str, tuple[tuple[str, Path], ...]]
    curves: Path | None


class Column(NamedTuple):
    """A column: its title, the record that its head describes ("" for none), its cells, and which values are better."""

    title: str
    record: str
    cell: Callable[[Outcome], Cell]
    better: Literal["smaller", "larger", ""] = ""


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
    columns = _COLUMNS[kind]
    kinds = dict.fromkeys(what for outcome in outcomes for what in outcome.pictures)
    rows = _with_best([_row(outcome, columns) for outcome in outcomes], columns)
    return Section(
        title=_TITLES[kind],
        data=data,
        note=_NOTES[kind],
        heads=tuple(
            Head(
                column.title,
                _head(outcomes, column.record),
                any(not row.error and row.cells[index].value is not None for row in rows),
                "descending" if column.better == "larger" else "ascending",
            )
            for index, column in enumerate(columns)
        ),
        rows=tuple(rows),
        grids={what: tuple((o.family, o.pictures[what]) for o in outcomes if what in o.pictures) for what in kinds},
        curves=_draw_curves(folder, data, outcomes),
    )


def _row(outcome: Outcome, columns: Sequence[Column]) -> Row:
    is_data = outcome.family == THE_DATA
    if outcome.error:
        cells = (Cell(outcome.error), *[Cell("")] * (len(columns) - 1))
        return Row(outcome.family, cells, outcome.error, is_data=is_data)
    cells = tuple(column.cell(outcome) for column in columns)
    return Row(outcome.family, cells, None, *_spark(outcome), is_data=is_data)


def _with_best(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Returns the rows with the best cell of each column and group marked, unless it is alone in its group."""
    marked = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        ranked = [
            (number, row.cells[index])
            for number, row in enumerate(rows)
            if column.better and not row.error and not row.is_data and row.cells[index].value is not None
        ]
        for group in {cell.group for _, cell in ranked}:
            values = {number: cell.value or 0.0 for number, cell in ranked if cell.group == group}
            best = (min if column.better == "smaller" else max)(values.values())
            for number, value in values.items() if len(values) > 1 else ():
                marked[number][index] = marked[number][index]._replace(is_best=value == best)
    return [row._replace(cells=tuple(cells)) for row, cells in zip(rows, marked, strict=True)]


def _spark(outcome: Outcome) -> tuple[str, str]:
    """Returns the points of a small curve of the validation, and its first and last value; "" without two points."""
    points = np.array([(moment.seconds, moment.value) for moment in outcome.curve]).reshape(-1, 2)
    points = points[np.isfinite(points[:, 1])]
    if len(points) < 2:
        return "", ""
    low, spread = points.min(0), np.maximum(np.ptp(points, 0), 1e-9)
    x, y = ((points - low) / spread).T
    shown = " ".join(f"{120 * a:.1f},{2 + 26 * (1 - b):.1f}" for a, b in zip(x, y, strict=True))
    return shown, f"{points[0, 1]:.2f} to {points[-1, 1]:.2f} nats"


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
        sign, group = _SIGNS[results.SIGN_OF_NLL[record.kind]], f"{record.kind}, {record.measure}"
        text = results.without_value(record) if record.value is None else f"{sign} {record.value:.{digits}f}"
        return Cell(text, ", ".join(words), record.value, group)

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
        text = results.without_value(record) if record.value is None else f"{record.value:.{digits}f}"
        return Cell(text, small, record.value)

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


def _speed(outcome: Outcome) -> Cell:
    speed = outcome.samples_per_second
    return Cell(_rounded(speed), value=speed) if speed else Cell("-")


def _evaluations(outcome: Outcome) -> Cell:
    return Cell(f"{outcome.evaluations:,}", value=outcome.evaluations) if outcome.evaluations else Cell("-")


def _size(outcome: Outcome) -> Cell:
    return Cell(f"{outcome.num_params:,}", value=outcome.num_params) if outcome.num_params else Cell("-")


def _training(outcome: Outcome) -> Cell:
    steps = outcome.steps
    return Cell(f"{outcome.seconds:.1f} s", f"{steps:,} steps", value=steps) if steps else Cell("-")


_SPEED = (
    Column("NFE", "", _evaluations, "smaller"),
    Column("Samples / s", "", _speed, "larger"),
    Column("Parameters", "", _size),
    Column("Training", "", _training),
)
_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "images": (
        Column("Test NLL, nats", "nll", _likelihood("nll", digits=2), "smaller"),
        Column("Test NLL, bits / dim", "nll", _likelihood("nll", "bits/dim"), "smaller"),
        Column("Interval of -log p, nats", "", _interval),
        Column("Fréchet distance", "frechet", _score("frechet", note="{num_generated:,} samples"), "smaller"),
        Column(
            "Inception Score", "inception_score", _score("inception_score", note="± {standard_deviation:.2f}"), "larger"
        ),
        Column("Precision", "precision", _score("precision"), "larger"),
        Column("Recall", "recall", _score("recall"), "larger"),
        *_SPEED,
    ),
    "points": (
        Column("Test NLL, nats", "nll", _likelihood("nll"), "smaller"),
        Column("Interval of -log p, nats", "", _interval),
        *_SPEED,
    ),
    "small_world": (
        Column("-ELBO, nats", "negative_elbo", _likelihood("negative_elbo"), "smaller"),
        Column("Reported NLL, nats", "nll", _likelihood("nll"), "smaller"),
        Column("True NLL, nats", "nll_of_world", _likelihood("nll_of_world"), "smaller"),
        Column("Interval of -log p, nats", "", _interval),
        Column("KL from the data, nats", "kl_to_world", _likelihood("kl_to_world"), "smaller"),
        Column("TV to its own p", "", _score("tv_samples_to_model", 3, "[{of_exact_draws:.3f}]")),
        Column("TV to the data", "", _score("tv_samples_to_data", 3), "smaller"),
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
    return (
        pictures_of_curves.draw_validation(folder / f"{data.replace(':', '-')}-curves.png", curves) if curves else None
    )


def _inline(cell: Cell | Head) -> str:
    """Formats a cell for a Markdown table."""
    return (f"{cell.main} ({cell.small})" if cell.small else cell.main).replace("|", "\\|")


def _embedded(path: Path) -> str:
    """Returns a PNG as a data URL."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
