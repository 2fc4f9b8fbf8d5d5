"""Compares losses, gradients, log-probabilities and samples of every family with values that a CPU computed.

    python -m benchmarks.accelerator.golden --write golden.npz       # on a CPU: the values that others are held to
    python -m benchmarks.accelerator.golden --family vae             # here: one family, a line of JSON

Three modes, each with a tolerance of its own:

    float32     matrix products in full precision: an accelerator must agree with the CPU up to rounding
    default     the device's own matrix products, on NVIDIA's cards TF32 with 10 bits of mantissa
    bfloat16    networks that compute in bfloat16

Parameters come from numpy, the model state of `init` from the file. Errors are relative, by Euclidean norms; the
gradient of an array is measured by that array's norm, or by a thousandth of the largest array's if that is more.
Samples of levels are compared level by level: their error is the share of levels that differ. An autoregressive sample
in which rounding flips one level differs in those after it too, so in the two coarse modes samples are only reported.
"""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.families import BATCH, FAMILIES, Family, batch, random_params

FILE = Path(__file__).with_name("golden.npz")
NUM_SAMPLES = 6
MODES = ("float32", "default", "bfloat16")
# Largest errors of (loss, gradients, log p, samples); None is not judged.
TOLERANCES: Mapping[str, Mapping[str, float | None]] = {
    "float32": {"loss": 1e-5, "grads": 2e-4, "log_prob": 1e-5, "samples": 1e-3},
    "default": {"loss": 1e-2, "grads": 5e-2, "log_prob": 1e-2, "samples": None},
    "bfloat16": {"loss": 5e-2, "grads": 3e-1, "log_prob": 5e-2, "samples": None},
}

Values = dict[str, np.ndarray]  # "loss/vae", "grads/vae['encoder']['kernel']", "log_prob", "samples", "state/..."


def initial(family: Family) -> tuple[Any, Any]:
    """Returns the family's random parameters and the model state that `init` makes, on the CPU."""
    import jax

    model, data = family.make(None), batch(family)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), data)
    with jax.default_device(jax.devices("cpu")[0]):
        _, model_state = jax.jit(model.init)(jax.random.key(0), data)
    return random_params(family, shapes), jax.tree.map(np.asarray, model_state)


def evaluate(family: Family, model_state: Any, mode: str) -> Values:
    """Computes a family's values on the default device."""
    import jax

    from gm_jax.training import model_state as kept

    model = family.make("bfloat16" if mode == "bfloat16" else None)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), batch(family))
    params = random_params(family, shapes)

    def values(params: Any, model_state: Any, data: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"loss": {}, "grads": {}}
        for index, objective in enumerate(model.objectives):
            key, player = jax.random.key(7 + index), objective.wrt

            def loss(own: Any, objective: Any = objective, key: Any = key) -> Any:
                state = kept.local_view(model_state, model.sync, batch_size=BATCH, axis_name=None)
                return objective.loss({**params, objective.wrt: own}, state, key, data)[0]

            found["loss"][player], found["grads"][player] = jax.value_and_grad(loss)(params[player])
        if model.log_prob is not None:
            found["log_prob"] = model.log_prob(params, model_state, jax.random.key(3), data["x"]).log_prob
        found["samples"] = model.sample(params, model_state, jax.random.key(5), NUM_SAMPLES)
        return found

    with jax.default_matmul_precision("float32") if mode == "float32" else contextlib.nullcontext():
        found = jax.jit(values)(params, model_state, batch(family))
    return flat(jax.tree.map(np.asarray, found))


def flat(tree: Any) -> Values:
    """Returns "path" -> array; paths begin with the names of the top level."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def errors(values: Values, golden: Values) -> dict[str, float]:
    """Computes the errors of "loss", "grads", "log_prob" (if there is one) and "samples"; see the module.

    Raises:
        ValueError: the arrays have other names or shapes.
    """
    if {name: a.shape for name, a in values.items()} != {name: a.shape for name, a in golden.items()}:
        raise ValueError(f"other arrays than in the file: {sorted(set(values) ^ set(golden))}")
    norms = {name: float(np.linalg.norm(np.asarray(array, np.float64))) for name, array in golden.items()}
    largest = max(norm for name, norm in norms.items() if name.startswith("grads/"))
    found: dict[str, float] = {}
    for name, array in golden.items():
        kind, own = name.split("/")[0], values[name]
        if kind == "samples" and np.issubdtype(array.dtype, np.integer):
            error = float(np.mean(own != array))
        else:
            floor = 1e-3 * largest if kind == "grads" else 1e-6
            difference = np.linalg.norm(np.asarray(own, np.float64) - np.asarray(array, np.float64))
            error = float(difference / max(norms[name], floor))
        found[kind] = max(found.get(kind, 0.0), error if np.isfinite(error) else float("inf"))
    return found


def failures(found: Mapping[str, float], mode: str) -> list[str]:
    """Lists the errors that are larger than the mode's tolerances."""
    limits = TOLERANCES[mode]
    return [
        f"{kind} {error:.1e} > {limit:.0e}"
        for kind, error in found.items()
        if (limit := limits[kind]) is not None and not error <= limit
    ]


def read(path: Path, name: str) -> tuple[Values, Any]:
    """Returns a family's golden values, and the model state that they were computed with."""
    import jax

    values, state = {}, {}
    with np.load(path, allow_pickle=False) as stored:
        for full in stored.files:
            family, _, key = full.partition("|")
            if family == name:
                (state if key.startswith("state/") else values)[key] = stored[full]
    family = FAMILIES[name]
    _, shapes = jax.eval_shape(family.make(None).init, jax.random.key(0), batch(family))
    paths = list(flat({"state": jax.tree.map(lambda leaf: np.zeros(()), shapes)}))
    leaves, structure = jax.tree.flatten(shapes)
    assert [state[path].shape for path in paths] == [leaf.shape for leaf in leaves]
    return values, structure.unflatten([state[path] for path in paths])


def write(path: Path, names: Sequence[str]) -> None:
    """Computes the golden values of some families on this machine's CPU and writes them; the file keeps the others."""
    arrays: Values = {}
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            arrays = {full: stored[full] for full in stored.files if full.split("|")[0] in set(FAMILIES) - set(names)}
    for name in names:
        _, model_state = initial(FAMILIES[name])
        values = evaluate(FAMILIES[name], model_state, "float32") | flat({"state": model_state})
        arrays |= {f"{name}|{key}": array for key, array in values.items()}
        print(f"{name}: {sum(array.size for array in values.values())} numbers", flush=True)
        np.savez_compressed(path, **arrays)


def check(name: str, path: Path = FILE) -> list[dict[str, Any]]:
    """Compares one family in every mode, and returns a row for each.

    In float32 a difference may come from another version of jax. The CPU of this machine tells: "cpu_errors" are the
    differences of the device from this machine's own CPU.
    """
    import jax

    family, (golden, model_state) = FAMILIES[name], read(path, name)
    rows = []
    for mode in MODES if family.has_dtype else MODES[:2]:
        started = time.perf_counter()
        values = evaluate(family, model_state, mode)
        found = errors(values, golden)
        row = {"family": name, "mode": mode, "errors": found, "failures": failures(found, mode)}
        if row["failures"] and jax.default_backend() != "cpu":
            with jax.default_device(jax.devices("cpu")[0]):
                row["cpu_errors"] = errors(values, evaluate(family, model_state, mode))
                row["failures_against_cpu"] = failures(row["cpu_errors"], mode)
        rows.append({**row, "seconds": round(time.perf_counter() - started, 1)})
    return rows


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator.golden", description=__doc__)
    parser.add_argument("--write", type=Path, help="write the values of this machine's CPU to this file")
    parser.add_argument("--family", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    return parser.parse_args(argv)


def main() -> None:
    """Writes the golden values, or checks families and prints a line of JSON for each mode."""
    args = parse()
    if args.write is not None:
        os.environ["JAX_PLATFORMS"] = "cpu"
        write(args.write, args.family)
        return
    for name in args.family:
        for row in check(name):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
