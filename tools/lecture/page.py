"""One page of the lecture: a concept, its formula, the functions that implement it, a picture and numbers.

A page is written by a function without arguments that returns a `Page`. The first line of its docstring is the title,
and its name is the name of the file. What the function measures goes into `Number`s. Each states the range that the
text relies on, and a number outside of its range is an error.
"""

import inspect
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from gm_jax.errors import UserError
from gm_jax.files import replacing, write_text

MOST_BYTES = 60_000  # of a picture
_COLOURS = 128
_CELL = re.compile(r"^\| (?P<name>[^|]+) \| (?P<value>[^|]+) \| (?P<low>\S+) to (?P<high>\S+) \|$", re.MULTILINE)


class Number(NamedTuple):
    """A measured number.

    Attributes:
        name: what it is, with its unit.
        value: measured by this run.
        low: smallest value with which the page is true.
        high: largest such value.
        form: format of the value and the range.
    """

    name: str
    value: float
    low: float
    high: float
    form: str = ".3g"


class Page(NamedTuple):
    """What a page shows.

    Attributes:
        formula: lines of mathematics.
        functions: functions and classes of gm_jax that implement them.
        seen: what the picture shows; paragraphs.
        numbers: what the page measures.
        draw: path -> None, writes the picture; None for a page without one.
        table: Markdown to add, such as a generated table.
    """

    formula: str
    functions: Sequence[Callable[..., Any]]
    seen: str
    numbers: Sequence[Number]
    draw: Callable[[Path], None] | None = None
    table: str = ""


PageFn = Callable[[], Page]


def title_of(page_fn: PageFn) -> str:
    """Returns the title of a page, the first line of its function's docstring."""
    return (inspect.getdoc(page_fn) or "").partition("\n")[0].removesuffix(".")


def write(page_fn: PageFn, folder: Path) -> Path:
    """Runs a page, checks its numbers, and writes NAME.md and NAME.png into a folder; returns the Markdown's path.

    Raises:
        UserError: a number is outside of its range, or the picture is too large.
    """
    name, page = page_fn.__name__, page_fn()
    false = [
        f"{number.name} is {number.value:{number.form}}, outside of {range_of(number)}"
        for number in page.numbers
        if not number.low <= number.value <= number.high
    ]
    if false:
        raise UserError(f"the page {name} is not true in this run: " + "; ".join(false))
    if page.draw is not None:
        page.draw(folder / f"{name}.png")
        shrink(folder / f"{name}.png")
    write_text(folder / f"{name}.md", markdown(name, title_of(page_fn), page))
    return folder / f"{name}.md"


def markdown(name: str, title: str, page: Page) -> str:
    """Returns a page as Markdown."""
    parts = [f"# {title}", f"```text\n{textwrap.dedent(page.formula).strip()}\n```"]
    parts.append("Implemented by " + _listed([link(function) for function in page.functions]) + ".")
    if page.draw is not None:
        parts.append(f"![{title}]({name}.png)")
    paragraphs = textwrap.dedent(page.seen).strip().split("\n\n")
    parts += [textwrap.fill(" ".join(paragraph.split()), 120, break_on_hyphens=False) for paragraph in paragraphs]
    if page.table:
        parts.append(page.table.strip())
    rows = [f"| {n.name} | {n.value:{n.form}} | {range_of(n)} |" for n in page.numbers]
    parts.append("\n".join(["| measured by this page | value | the page is true from |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def range_of(number: Number) -> str:
    """Returns the range of a number as the page shows it."""
    return f"{number.low:{number.form}} to {number.high:{number.form}}"


def link(function: Callable[..., Any]) -> str:
    """Returns a link to a function of gm_jax: its file in the repository, its entry in the reference on the site."""
    function = inspect.unwrap(function)
    dotted = f"{function.__module__}.{function.__qualname__}"
    return f"[`{dotted.removeprefix('gm_jax.')}`](../../{function.__module__.replace('.', '/')}.py#{dotted})"


def shrink(path: Path) -> None:
    """Reduces a picture to a palette.

    Raises:
        UserError: it is still larger than MOST_BYTES.
    """
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    with replacing(path) as file:
        image.quantize(_COLOURS, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path.name} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}: draw less in it.")


def differences(written: Path, committed: Path) -> list[str]:
    """Returns how a committed page differs from one that was just written, apart from the values in their ranges.

    Args:
        written: Markdown of this run.
        committed: Markdown of the repository; the picture is next to it.
    """
    if not committed.exists():
        return [f"{committed.name} is missing"]
    new, old = written.read_text(encoding="utf-8"), committed.read_text(encoding="utf-8")
    found = []
    if _CELL.sub(_without_value, new) != _CELL.sub(_without_value, old):
        found.append(f"{committed.name} has another text than its code")
    for cell in _CELL.finditer(old):
        if not float(cell["low"]) <= float(cell["value"]) <= float(cell["high"]):
            found.append(f"{committed.name}: {cell['name']} is {cell['value']}, outside of its range")
    has_picture, drawn = committed.with_suffix(".png").exists(), written.with_suffix(".png").exists()
    return found + ([f"{committed.stem}.png is missing or left over"] if has_picture != drawn else [])


def _without_value(cell: re.Match[str]) -> str:
    return f"| {cell['name']} | {cell['low']} to {cell['high']} |"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
