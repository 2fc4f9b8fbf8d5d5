"""Prepares docstrings for the API reference (an extension of griffe, see mkdocs.yml).

The house writes `Example:` for one example and `Source:` for the paper; griffe knows `Examples:` alone, and would run
the source into the section above it.
"""

import itertools
import re
import textwrap
from collections.abc import Collection
from typing import Any

try:
    import griffe
except ImportError:  # the tests of `rewritten` need no griffe
    griffe = None


def rewritten(docstring: str) -> str:
    """Returns a docstring with sections that the parser knows."""
    source = r"^Source: (?P<text>.*(?:\n[ ]{4,}\S.*)*)"
    docstring = re.sub(
        source, lambda match: "\n**Source:** " + re.sub(r"\n\s+", " ", match["text"]) + "\n", docstring, flags=re.M
    )
    docstring = re.sub(r"^Example:$", "\nExamples:", docstring, flags=re.M)
    docstring = re.sub(r"^(Args|Returns|Raises|Attributes|Yields):$", r"\n\1:", docstring, flags=re.M)
    text, examples, code = docstring.partition("\nExamples:")
    return without_tags(text) + examples + code


def without_tags(text: str) -> str:
    """Returns Markdown in which no "x_<i" outside of backticks can be taken for an HTML tag."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"<(?=[A-Za-z/])", "&lt;", part) for i, part in enumerate(parts))


def module_markdown(docstring: str, room: str = "", entries: Collection[str] = ()) -> str:
    """Returns a module's docstring as Markdown: prose as prose; equations, tables and code as text of fixed width.

    Args:
        docstring: of the module.
        room: the room whose index it is, e.g. "gm_jax.losses"; empty for another module.
        entries: dotted names that the page of the room has, to which its index links.
    """
    written = []
    for kind, group in itertools.groupby(docstring.split("\n\n"), lambda block: _kind(block, room)):
        if kind == "index":
            written += [_table(block, room, entries) for block in group]
        else:
            text = "\n\n".join(group)
            written.append(f"```text\n{textwrap.dedent(text)}\n```" if kind == "fixed" else without_tags(text))
    return "\n\n".join(written)


def _kind(block: str, room: str) -> str:
    head, *rows = block.splitlines() or [""]
    if room and rows and re.match(r"\w", head) and all(re.match(r" {4}\S.*?\S {2,}\S", row) for row in rows):
        return "index"
    return "fixed" if re.search(r"^ |\S {2,}\S", block, flags=re.M) else "prose"


def _table(block: str, room: str, entries: Collection[str]) -> str:
    """Returns one module of an index as a table: its functions with their links, what they do, their papers."""
    head, *rows = block.splitlines()
    module = re.split(r"\W", head)[0]
    rest = head.removeprefix(module).lstrip(": ")

    def link(name: str) -> str:
        target = f"{room}.{module}.{name}"
        return f"[`{name}`](#{target})" if target in entries else f"`{name}`"

    cells = [re.split(r" {2,}", row.strip()) for row in rows]
    width = max(map(len, cells))
    shown = [[f"**{module}**", _escaped(rest)], ["---"] * width]
    shown += [[", ".join(map(link, names.split(", "))), *map(_escaped, others)] for names, *others in cells]
    return "\n".join(f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in shown)


def _escaped(text: str) -> str:
    return re.sub(r"([|*_])", r"\\\1", text.replace("<", "&lt;"))


if griffe is not None:

    class HouseStyle(griffe.Extension):
        """Rewrites `Example:` and `Source:` in each docstring as griffe's Google parser expects them."""

        def on_object(self, *, obj: Any, **kwargs: Any) -> None:
            """Rewrites the docstring of one object."""
            if obj.docstring is not None:
                obj.docstring.value = rewritten(obj.docstring.value)
