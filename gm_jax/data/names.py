"""Suggestions after an unknown name of a data set: the nearest names, and the known ones."""

import difflib
from collections.abc import Collection

from gm_jax.errors import UserError


def unknown_name(kind: str, name: str, known: Collection[str], listed: str | None = None) -> UserError:
    """Builds the error for an unknown name: it suggests up to three similar names and lists the known ones.

    Args:
        kind: what the name should name, e.g. "data set".
        name: the unknown name.
        known: the names to suggest from.
        listed: the list to show; by default all of `known`, which suits a short list.
    Returns:
        An error of two lines, for the caller to raise.
    """
    nearest = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(known), n=3, cutoff=0.5)
    suggestion = f" Did you mean {' or '.join(repr(near) for near in nearest)}?" if nearest else ""
    return UserError(f"There is no {kind} {name!r}.{suggestion}\nKnown names: {listed or ', '.join(known)}.")
