"""Prepares docstrings for the API reference (an extension of griffe, see mkdocs.yml).

The house writes `Example:` for one example and `Source:` for the paper; griffe knows `Examples:` alone, and would run
the source into the section above it.
"""

import re
from typing import Any

import griffe


class HouseStyle(griffe.Extension):
    """Rewrites `Example:` and `Source:` in each docstring as griffe's Google parser expects them."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(docstring: str) -> str:
    """Returns a docstring with sections that the parser knows."""
    source = r"^Source: (?P<text>.*(?:\n[ ]{4,}\S.*)*)"
    docstring = re.sub(
        source, lambda match: "\n**Source:** " + re.sub(r"\n\s+", " ", match["text"]) + "\n", docstring, flags=re.M
    )
    docstring = re.sub(r"^Example:$", "\nExamples:", docstring, flags=re.M)
    return re.sub(r"^(Args|Returns|Raises|Attributes|Yields):$", r"\n\1:", docstring, flags=re.M)
