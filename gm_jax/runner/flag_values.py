"""What a flag takes instead of a value that it cannot take.

The check goes before the parser, whose own messages show the types of the source.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from gm_jax.errors import UserError
from gm_jax.runner import flag_suggestions

_NUMBERS: dict[type, tuple[str, str]] = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers")}


def check(argv: Sequence[str], flags: Any) -> None:
    """Refuses words that are not numbers where flags take numbers, and choices that do not exist.

    What is wrong otherwise, such as a flag that does not exist or lacks its value, is left to the parser.

    Args:
        argv: the arguments of a command.
        flags: the dataclass of its flags, or an instance with the defaults.
    Raises:
        UserError: there is such a value; the message names the flag, the value and what the flag takes.
    """
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    if {"-h", "--help"} & set(words):
        return
    known = flag_suggestions.fields_of(flags)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name in known:
            _check_flag(name, [value] if equals else _values(words[index + 1 :]), *known[name])


def _check_flag(flag: str, values: Sequence[str], hint: Any, default: Any) -> None:
    """Refuses the first value that is of none of the kinds that a flag's type allows."""
    options = list(_options(hint))
    is_optional = types.NoneType in options
    many = [option for option in options if typing.get_origin(option) is tuple]
    if many:
        options = list(_options(typing.get_args(many[0])[0]))
    choices = [choice for option in options for choice in typing.get_args(option)]
    numbers = [option for option in options if option in _NUMBERS]
    others = [option for option in options if option not in _NUMBERS and typing.get_origin(option) is not Literal]
    if set(others) - {types.NoneType} or (choices and numbers):
        return
    for value in values if many else values[:1]:
        if is_optional and value == "None":
            continue
        if choices and value not in map(str, choices):
            raise UserError(_no_choice(flag, value, [*map(str, choices), *["None"] * is_optional]))
        if numbers and not any(_is_number(kind, value) for kind in numbers):
            kind = float if float in numbers else int
            raise UserError(_no_number(flag, value, kind, default, is_optional=is_optional, is_many=bool(many)))


def _no_choice(flag: str, value: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, choices, n=1)
    takes = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    found = f"did you mean {near[0]}? It" if near else "it"
    return f"{flag} has no choice {value!r}: {found} takes {takes}."


def _no_number(flag: str, value: str, kind: type, default: Any, *, is_optional: bool, is_many: bool) -> str:
    takes, shown = _NUMBERS[kind][is_many], " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    if is_optional and default is None:
        return f"{flag} takes {takes}, and {value!r} is not one: leave the flag out for its default."
    found = f"{takes} or None, and {value!r} is neither" if is_optional else f"{takes}, and {value!r} is not one"
    example = f": for example {flag} {shown}" if shown and default is not None else ""
    return f"{flag} takes {found}{example}."


def _options(hint: Any) -> Iterator[Any]:
    """Yields the members of a union, without the marks of each."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        yield from _options(typing.get_args(hint)[0])
    elif origin in (types.UnionType, typing.Union):
        for option in typing.get_args(hint):
            yield from _options(option)
    else:
        yield hint


def _values(words: Sequence[str]) -> list[str]:
    """Returns the words before the next flag; a negative number is not one."""
    found = []
    for word in words:
        if word.startswith("-") and not _is_number(float, word):
            break
        found.append(word)
    return found


def _is_number(kind: type, word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True
