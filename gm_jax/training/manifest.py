"""The manifest of a checkpoint: what was saved, so that a restore can compare its result with it.

It is a JSON document with step, metric, fingerprint, and the path, shape, dtype and SHA-256 of every leaf. It also has
a SHA-256 of its own, because a flipped bit can damage the manifest too. No function here touches a file or a device.
"""

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gm_jax import hashing
from gm_jax.types import PyTree

_SHOWN = 4


class DamageError(Exception):
    """A checkpoint that does not hold what was saved; the message states in one line what is wrong."""


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves by path, e.g. `.params['vae']['Dense_0']['kernel']`.

    Containers without leaves (None, {}, optax.EmptyState) are left out: they belong to the program, not to the file.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def seal(
    step: int, metric: float | None, fingerprint: Mapping[str, str] | None, leaves: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Makes the document to save with the leaves: the manifest and its SHA-256."""
    digests = _digests(leaves)
    manifest = {
        "step": step,
        "metric": metric,
        "fingerprint": fingerprint,
        "leaves": {
            path: {"shape": list(leaf.shape), "dtype": leaf.dtype.name, "sha256": digests[path]}
            for path, leaf in leaves.items()
        },
    }
    return {"manifest": manifest, "sha256": hashing.json_digest(manifest)}


def unseal(document: Any) -> dict[str, Any]:
    """Returns the manifest in a document that `seal` made.

    Raises:
        DamageError: the document has changed.
    """
    if not isinstance(document, dict) or document.get("sha256") != hashing.json_digest(document.get("manifest")):
        raise DamageError("SHA-256 of the manifest is not the one saved")
    return document["manifest"]


def check_leaves(manifest: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> None:
    """Compares every leaf with the manifest, bit for bit.

    Raises:
        DamageError: some differ.
    """
    saved = {path: leaf["sha256"] for path, leaf in manifest["leaves"].items()}
    found = _digests(leaves)
    wrong = [path for path in saved | found if saved.get(path) != found.get(path)]
    if wrong:
        raise DamageError(f"SHA-256 of {first_of(wrong)} is not the one saved")


def model_differences(manifest: Mapping[str, Any], like: PyTree) -> list[str]:
    """Lists how the leaves of `like` differ from the saved ones by path, shape and dtype; one phrase per leaf."""
    there = {path: f"{leaf['dtype']}{leaf['shape']}" for path, leaf in manifest["leaves"].items()}
    here = {path: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves_by_path(like).items()}
    return _differences(there, here)


def fingerprint_differences(manifest: Mapping[str, Any], fingerprint: Mapping[str, str]) -> list[str]:
    """Lists how a fingerprint differs from the saved one; one phrase per entry."""
    return _differences(manifest["fingerprint"] or {}, fingerprint)


def first_of(items: Sequence[str]) -> str:
    """Joins the first few items and the number of the others on one line."""
    rest = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {**there, **here} if there.get(name) != here.get(name))
    return [f"{name} was {there.get(name, 'missing')}, is {here.get(name, 'missing')}" for name in names]


def _digests(leaves: Mapping[str, np.ndarray]) -> dict[str, str]:
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        return dict(zip(leaves, pool.map(hashing.leaf_digest, leaves.values()), strict=True))
