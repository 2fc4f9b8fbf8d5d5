"""Splits that a data set does not ship, cut from its train split by a fixed rule.

A tenth of the examples, in an order that depends only on their number, becomes each missing split. The rule is a text
that every result of a run states.
"""

from collections.abc import Collection, Mapping

import numpy as np

from gm_jax.data import pipeline
from gm_jax.data.array_cache import Splits
from gm_jax.errors import UserError

SPLITS = ("train", "validation", "test")

_SEED = 10  # of the permutation; changing it changes the data


def cut_missing(shipped: Splits, origin: str) -> tuple[Splits, str | None]:
    """Cuts the validation and test splits that are missing from the train split.

    Args:
        shipped: the splits that the data have, with "train".
        origin: the name of the data, for messages.
    Returns:
        (all three splits, the rule, or None if nothing was missing).
    Raises:
        UserError: the train split has too few examples.
    """
    missing = [split for split in SPLITS if split not in shipped]
    if not missing:
        return {split: shipped[split] for split in SPLITS}, None
    parts = dict(zip(["train", *missing], cut_indices(len(shipped["train"]["x"]), missing, origin), strict=True))
    splits = shipped | {
        split: {name: array[part] for name, array in shipped["train"].items()} for split, part in parts.items()
    }
    return {split: splits[split] for split in SPLITS}, rule(missing)


def sort_examples(sizes: Mapping[str, int], origin: str) -> tuple[np.ndarray, str | None]:
    """Does what `cut_missing` does for examples that are still to be decoded.

    Args:
        sizes: shipped split -> how many examples it has, in the order of decoding, with "train".
        origin: the name of the data, for messages.
    Returns:
        ([N] uint8, for each example the index of its split in SPLITS; the rule, or None if nothing was missing).
    Raises:
        UserError: the train split has too few examples.
    """
    missing = [split for split in SPLITS if split not in sizes]
    parts = {split: np.full(size, SPLITS.index(split), np.uint8) for split, size in sizes.items()}
    if missing:
        for split, indices in zip(missing, cut_indices(sizes["train"], missing, origin)[1:], strict=True):
            parts["train"][indices] = SPLITS.index(split)
    return np.concatenate(list(parts.values())), rule(missing) if missing else None


def cut_indices(num_examples: int, missing: Collection[str], origin: str) -> list[np.ndarray]:
    """Returns the indices of the train split, then of each missing split; each is sorted.

    Raises:
        UserError: there are too few examples for one in each split.
    """
    each = max(1, num_examples // 10)
    if num_examples <= each * len(missing):
        raise UserError(
            f"{origin} has {num_examples} examples to train on, too few to cut {' and '.join(missing)} from them: give "
            "at least 3."
        )
    order = pipeline.permutation(num_examples, _SEED, 0)
    ends = [num_examples - each * count for count in range(len(missing), 0, -1)]
    return [np.sort(part) for part in np.split(order, ends)]


def rule(missing: Collection[str]) -> str:
    """Returns the text of the rule by which the missing splits were cut."""
    return f"{', '.join(missing)}: 1/10 of train{' each' * (len(missing) > 1)}"
