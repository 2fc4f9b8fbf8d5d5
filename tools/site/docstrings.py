"""Prepares docstrings for the API reference (an extension of griffe, see mkdocs.yml).

The house writes `Example:` for one example and `Source:` for the paper; griffe knows `Examples:` alone, and would run
the source into the section above it.
"""

import itertools
import re
import textwrap
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


def module_markdown(docstring: str) -> str:
    """Returns a module's docstring as Markdown: prose as prose; equations, tables and code as text of fixed width."""
    blocks = docstring.split("\n\n")
    written = []
    for fixed, group in itertools.groupby(blocks, lambda block: bool(re.search(r"^ |\S {2,}\S", block, flags=re.M))):
        text = "\n\n".join(group)
        written.append(f"```text\n{textwrap.dedent(text)}\n```" if fixed else without_tags(text))
    return "\n\n".join(written)


if griffe is not None:

    class HouseStyle(griffe.Extension):
        """Rewrites `Example:` and `Source:` in each docstring as griffe's Google parser expects them."""

        def on_object(self, *, obj: Any, **kwargs: Any) -> None:
            """Rewrites the docstring of one object."""
            if obj.docstring is not None:
                obj.docstring.value = rewritten(obj.docstring.value)
