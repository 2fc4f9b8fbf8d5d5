"""The manifest of a checkpoint: what was saved, so that a restore can compare its result with it.

It is a JSON document with the run's identity, step, metric, fingerprint, and the path, shape, dtype and SHA-256 of
every leaf. It also has a SHA-256 of its own, because a flipped bit can damage the manifest too. No function here
touches a file or a device.
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
    step: int,
    metric: float | None,
    fingerprint: Mapping[str, str] | None,
    leaves: Mapping[str, np.ndarray],
    *,
    run: str = "",
) -> dict[str, Any]:
    """Makes the document to save with the leaves: the manifest and its SHA-256.

    Args:
        step: of the state.
        metric: of the state, if any.
        fingerprint: what the state depends on, if anything is to be compared.
        leaves: path -> array.
        run: the identity of the run; empty for none.
    """
    digests = _digests(leaves)
    manifest = {
        **({"run": run} if run else {}),
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
    if not _is_manifest(document["manifest"]):
        raise DamageError("the manifest is not one that is written here")
    return document["manifest"]


def without(manifest: dict[str, Any], part: str | None) -> dict[str, Any]:
    """Returns a manifest without the leaves of a part of the state, e.g. "opt_state"; None leaves it as it is."""
    if part is None:
        return manifest
    kept = {path: leaf for path, leaf in manifest["leaves"].items() if not path.startswith((f".{part}[", f".{part}."))}
    return {**manifest, "leaves": kept}


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


def fingerprint_differences(manifest: Mapping[str, Any], fingerprint: Mapping[str, str] | None) -> list[str]:
    """Lists how a fingerprint differs from the saved one, one phrase per entry; nothing differs from None."""
    return [] if fingerprint is None else _differences(manifest["fingerprint"] or {}, fingerprint)


def run_differences(manifest: Mapping[str, Any], run: str | None) -> list[str]:
    """Lists how an identity, empty for a run without one, differs from the saved one; nothing differs from None."""
    if run is None or manifest.get("run", "") == run:
        return []
    there, here = (identity[:8] or "none" for identity in (manifest.get("run", ""), run))
    return [f"its identity is {there}, that of this run is {here}"]


def first_of(items: Sequence[str]) -> str:
    """Joins the first few items and the number of the others on one line."""
    rest = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {**there, **here} if there.get(name) != here.get(name))
    return [f"{name} was {there.get(name, 'missing')}, is {here.get(name, 'missing')}" for name in names]


def _is_manifest(manifest: Any) -> bool:
    """Returns whether a document, which may have been made by hand with a SHA-256 that fits, has the right types."""
    if not isinstance(manifest, dict) or not {"step", "metric", "fingerprint", "leaves"} <= manifest.keys():
        return False
    fingerprint, leaves = manifest["fingerprint"], manifest["leaves"]
    return (
        type(manifest["step"]) is int
        and (manifest["metric"] is None or type(manifest["metric"]) in (int, float))
        and isinstance(manifest.get("run", ""), str)
        and (fingerprint is None or (isinstance(fingerprint, dict) and all(map(_is_text, fingerprint.values()))))
        and isinstance(leaves, dict)
        and all(map(_is_leaf, leaves.values()))
    )


def _is_leaf(leaf: Any) -> bool:
    if not isinstance(leaf, dict) or leaf.keys() != {"shape", "dtype", "sha256"}:
        return False
    shape = leaf["shape"]
    sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    return sizes and _is_text(leaf["dtype"]) and _is_text(leaf["sha256"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _digests(leaves: Mapping[str, np.ndarray]) -> dict[str, str]:
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        return dict(zip(leaves, pool.map(hashing.leaf_digest, leaves.values()), strict=True))
