"""The manifest detects differences in dtype, shape, bytes or path, and changes of itself."""

import copy
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.training import manifest

LEAVES = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asarray(3, np.int32)}


def sealed(leaves=None):
    return manifest.seal(5, -1.25, {"seed": "0"}, LEAVES if leaves is None else leaves)


def test_a_sealed_manifest_is_unsealed_after_a_round_trip_through_json():
    saved = manifest.unseal(json.loads(json.dumps(sealed())))
    assert (saved["step"], saved["metric"], saved["fingerprint"]) == (5, -1.25, {"seed": "0"})
    assert saved["leaves"]["a"]["shape"] == [2, 3]
    manifest.check_leaves(saved, LEAVES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": LEAVES["a"].reshape(3, 2)},
        {"a": LEAVES["a"].view(np.int32)},
        {"a": LEAVES["a"].astype(np.float64)},
        {"a": LEAVES["a"] * np.float32(1 + 2**-23)},
        {"a": -LEAVES["a"] * 0},
        {"b": LEAVES["b"].reshape(1)},
        {"c": LEAVES["b"]},
    ],
)
def test_a_leaf_that_differs_is_named(wrong):
    with pytest.raises(manifest.DamageError, match=f"SHA-256 of {next(iter(wrong))} is not"):
        manifest.check_leaves(sealed()["manifest"], LEAVES | wrong)


def test_a_missing_leaf_is_named():
    with pytest.raises(manifest.DamageError, match="SHA-256 of b is not"):
        manifest.check_leaves(sealed()["manifest"], {"a": LEAVES["a"]})


def test_the_layout_in_memory_does_not_matter():
    manifest.check_leaves(sealed()["manifest"], LEAVES | {"a": np.asfortranarray(LEAVES["a"])})


def test_bfloat16_and_empty_leaves_have_a_digest():
    leaves = {"half": np.asarray(jnp.ones(3, jnp.bfloat16)), "none": np.zeros((0, 4), np.float32)}
    manifest.check_leaves(sealed(leaves)["manifest"], leaves)


@pytest.mark.parametrize(("saved", "run"), [("ab" * 16, "ab" * 16), ("", ""), ("", None), ("ab" * 16, None)])
def test_a_checkpoint_of_the_same_run_does_not_differ(saved, run):
    assert manifest.run_differences(manifest.seal(5, None, None, LEAVES, run=saved)["manifest"], run) == []


@pytest.mark.parametrize(("saved", "run"), [("ab" * 16, "cd" * 16), ("ab" * 16, ""), ("", "ab" * 16)])
def test_a_checkpoint_of_another_run_differs(saved, run):
    (phrase,) = manifest.run_differences(manifest.seal(5, None, None, LEAVES, run=saved)["manifest"], run)
    assert (saved[:8] or "none") in phrase
    assert (run[:8] or "none") in phrase


def test_a_changed_document_is_damaged():
    for touch in (
        lambda d: d["manifest"].update(step=6),
        lambda d: d["manifest"].update(metric=-1.0),
        lambda d: d["manifest"]["fingerprint"].update(seed="1"),
        lambda d: d["manifest"]["leaves"]["a"].update(dtype="int32"),
        lambda d: d.update(sha256="0"),
        lambda d: d.pop("manifest"),
    ):
        document = copy.deepcopy(sealed())
        touch(document)
        with pytest.raises(manifest.DamageError, match="manifest"):
            manifest.unseal(document)
    for document in (None, [], "text", {}):
        with pytest.raises(manifest.DamageError):
            manifest.unseal(document)


def test_paths_name_fields_keys_and_positions_and_skip_empty_containers():
    tree = {"opt": optax.adam(1e-3).init({"w": jnp.ones(2), "none": None, "empty": {}})}
    assert list(manifest.leaves_by_path(tree)) == ["['opt'][0].count", "['opt'][0].mu['w']", "['opt'][0].nu['w']"]


def test_differences_are_listed_by_name():
    like = {"a": jnp.ones((2, 4)), "c": jnp.ones(2, jnp.int32)}
    saved = sealed({f"['{name}']": leaf for name, leaf in LEAVES.items()})["manifest"]
    assert manifest.model_differences(saved, like) == [
        "['a'] was float32[2, 3], is float32[2, 4]",
        "['b'] was int32[], is missing",
        "['c'] was missing, is int32[2]",
    ]
    assert manifest.fingerprint_differences(saved, {"seed": "0"}) == []
    assert manifest.fingerprint_differences(saved, {"seed": "1"}) == ["seed was 0, is 1"]


def test_a_long_list_is_cut():
    assert manifest.first_of(["1", "2"]) == "1; 2"
    assert manifest.first_of([str(i) for i in range(6)]) == "0; 1; 2; 3; and 2 more"
