"""States to save, and what the tests of checkpoints do with the files."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.training.checkpoint import Checkpointer


class State(NamedTuple):
    step: jax.Array
    params: dict[str, Any]
    ema_params: dict[str, Any] | None
    opt_state: dict[str, Any]
    model_state: dict[str, Any]


def make_state(seed: int, width: int = 5) -> State:
    """Makes a state with random leaves, because a lost zero that is read as zero would look restored."""
    rng = np.random.default_rng(seed)
    params = {
        "vae": {
            "kernel": jnp.asarray(rng.standard_normal((3, width)), jnp.float32),
            # Stored outside of the index; Orbax compares checksums only of the index.
            "large": jnp.asarray(rng.standard_normal((64, 128)), jnp.float32),
            "half": jnp.asarray(rng.standard_normal(width), jnp.bfloat16),
            "empty": {},
            "absent": None,
        }
    }
    opt_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params["vae"])
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(rng.integers(1, 100, x.shape), x.dtype), opt_state)
    model_state = {"counts": jnp.asarray(rng.integers(-9, 9, (4,)), jnp.int32), "flag": jnp.asarray(True)}
    return State(jnp.asarray(seed, jnp.int32), params, None, {"vae": opt_state}, model_state)


def abstract(state: State) -> State:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (e.dtype, e.shape)
        assert np.asarray(a).tobytes() == np.asarray(e).tobytes()


def save_all(directory, steps, **kwargs):
    """Saves make_state(step) for each step; if `steps` is a dict, its values are the metrics."""
    with Checkpointer(directory, **kwargs) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step), metric=steps[step] if isinstance(steps, dict) else None)


def files_of(directory) -> list[pathlib.Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def listing(directory) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(directory)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in [directory, *directory.rglob("*")]
    }


def spoil(path: pathlib.Path, byte: int = -1, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def spoil_manifest(directory, step):
    spoil(directory / str(step) / "manifest" / "metadata", byte=-10)
