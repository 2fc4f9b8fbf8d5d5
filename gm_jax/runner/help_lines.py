"""Joins the lines of each flag's help. The texts are docstrings of fields, in `config.sections` and `recipes.configs`.

tyro keeps a line break that is followed by an indent, as every field's docstring has it. `join` gives tyro the same
text in one line, in the metadata of the field, which it takes first.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
from typing import Any


def join(args: Any) -> None:
    """Joins the lines of the help texts of a dataclass, and of its sections.

    Args:
        args: a dataclass, or an instance with the sections that were chosen. The metadata of its type's fields are
            changed; nothing else reads them.
    """
    for kind in (args if isinstance(args, type) else type(args)).__mro__:
        if dataclasses.is_dataclass(kind):
            _join_of_type(kind)
    for field in dataclasses.fields(args):
        value = getattr(args, field.name, None)
        if dataclasses.is_dataclass(value):
            join(value)


@functools.cache
def _join_of_type(kind: type) -> None:
    """Joins the texts of a dataclass, and of the fields that its subclasses share with it."""
    texts = _texts(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in texts and "help" not in field.metadata:
            help_text = " ".join(texts[field.name].split())
            field.metadata = types.MappingProxyType({**field.metadata, "help": help_text})


def _texts(kind: type) -> dict[str, str]:
    """Returns the docstring below each field; none for a class without a source, as of a cell."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    found = {}
    statements = getattr(body, "body", [])
    for field, below in itertools.pairwise(statements):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = below.value.value
    return found
