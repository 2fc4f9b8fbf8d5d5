"""The speed table: train steps and samplers of existing configurations, ours and theirs, on any device.

All cases warm up side by side, each in a process of its own, and are then timed in turns with the device to
themselves. The share of the peak compares a step's matrix products with a product of two matrices of 8,192 rows in
the same precision, measured by the same run; "f32" is what the device does with float32 by default: TF32 on NVIDIA's
cards.

FLOPs of an example are those of matrix products and convolutions, forward and backward, as PyTorch's FLOP counter
counts the peer's network: the same work whoever does it.
"""

import argparse
import functools
import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.accelerator import workers
from benchmarks.accelerator.workers import Case

OURS, THEIRS = "ours", "theirs"
SIDE, TINY_SIDE = 8_192, 128

# Per example, forward and backward; see above. The perceptrons' are three times the forward pass's.
UNET, UNET_FORWARD, GLOW, GATED_PIXELCNN = 36.3e9, 12.11e9, 24.1e9, 3.37e9
MADE = 3 * 2 * 2 * 784 * 500
VAE = 3 * 2 * 2 * (784 * 500 + 500 * 500 + 500 * 75)

NEEDS = {"diffusers": "diffusers", "normflows": "normflows", "PyTorch": "torch"}  # a word of a case's name -> a package


def _case(side: str, name: str, *args: Any, **settings: Any) -> Callable[[bool], Any]:
    """Returns a function of a module that is imported by the worker alone."""
    return functools.partial(_call, side, name, args, settings)


def _call(side: str, name: str, args: tuple, settings: Mapping[str, Any], tiny: bool) -> Any:
    if name == "matmul":
        return getattr(importlib.import_module(f"benchmarks.accelerator.{side}"), name)(
            *args, TINY_SIDE if tiny else SIDE
        )
    return getattr(importlib.import_module(f"benchmarks.accelerator.{side}"), name)(*args, **settings, tiny=tiny)


def _matmul(side: str, dtype: str) -> Case:
    precision = "bf16" if dtype == "bfloat16" else "f32"
    return Case(_case(side, "matmul", dtype), 1, f"product of matrices, {precision}", 2.0 * SIDE**3, precision)


def _torch(group: str, examples: int, name: str, *args: Any, modes: Sequence[str], label: str = "PyTorch") -> Any:
    cases = {mode: Case(_case(THEIRS, name, *args, mode), examples, group) for mode in modes}
    return {f"{group}: {label} {mode}": case for mode, case in cases.items()}


def _cases() -> dict[str, Case]:
    """Lists all cases; those that take longest to compile come first."""
    ddpm, glow, cnn = "DDPM CIFAR-10 B128, bf16", "Glow CIFAR-10 (K 32, L 3, 512), B64", "gated PixelCNN 8 x 64, B128"
    small, plane, ddim = "Glow small (K 8, L 2, 64), B32", "RealNVP of the plane, B512", "256 samples, DDIM 50 steps"
    made, nade, vae, gan = "MADE 784-500, B100", "NADE 500, B100", "VAE 784-500-500-50, B256", "DCGAN, B128"
    pixels, waves = "64 samples of the gated PixelCNN", "16 sequences of 1,024 of WaveNet"
    all_modes = ("eager", "compile", "graphs")
    return {
        "product of matrices, bf16: gm_jax": _matmul(OURS, "bfloat16"),
        "product of matrices, f32: gm_jax": _matmul(OURS, "float32"),
        "product of matrices, bf16: PyTorch": _matmul(THEIRS, "bfloat16"),
        f"{ddpm}: gm_jax": Case(_case(OURS, "ddpm", 128), 128, ddpm, UNET, "bf16"),
        **_torch(ddpm, 128, "ddpm", 128, modes=("graphs", "compile", "eager"), label="diffusers"),
        f"{ddim}: gm_jax": Case(_case(OURS, "ddim", 256), 256, ddim, 50 * UNET_FORWARD, "bf16"),
        **_torch(ddim, 256, "ddim", 256, modes=("graphs", "compile"), label="diffusers"),
        f"{glow}: gm_jax": Case(_case(OURS, "glow", 64, big=True), 64, glow, GLOW),
        f"{glow}: gm_jax, bf16": Case(_case(OURS, "glow", 64, big=True, dtype="bfloat16"), 64, glow, GLOW, "bf16"),
        f"{glow}: normflows": Case(_case(THEIRS, "glow", 64, big=True), 64, glow),
        f"{pixels}: gm_jax": Case(_case(OURS, "cached", "GATED_PIXELCNN", 64), 64, pixels),
        f"{waves}: gm_jax": Case(_case(OURS, "cached", "WAVENET", 16), 16, waves),
        f"{cnn}: gm_jax": Case(_case(OURS, "autoregressive", "GATED_PIXELCNN", 128), 1_280, cnn, GATED_PIXELCNN),
        **_torch(cnn, 128, "autoregressive", "GATED_PIXELCNN", 128, modes=all_modes),
        f"{ddpm}: gm_jax, pmap": Case(_case(OURS, "ddpm", 128, strategy="pmap"), 128, ddpm, UNET, "bf16"),
        f"{small}: gm_jax": Case(_case(OURS, "glow", 32, big=False), 32, small),
        f"{small}: normflows": Case(_case(THEIRS, "glow", 32, big=False), 32, small),
        f"{nade}: gm_jax": Case(_case(OURS, "autoregressive", "NADE", 100), 1_000, nade, MADE),
        **_torch(nade, 100, "autoregressive", "NADE", 100, modes=("eager",)),
        f"{made}: gm_jax": Case(_case(OURS, "autoregressive", "MADE", 100), 1_000, made, MADE),
        f"{made}: gm_jax, pmap": Case(_case(OURS, "autoregressive", "MADE", 100, strategy="pmap"), 1_000, made, MADE),
        **_torch(made, 100, "autoregressive", "MADE", 100, modes=all_modes),
        f"{vae}: gm_jax": Case(_case(OURS, "vae", 256), 2_560, vae, VAE),
        f"{vae}: gm_jax, pmap": Case(_case(OURS, "vae", 256, strategy="pmap"), 2_560, vae, VAE),
        **_torch(vae, 256, "vae", 256, modes=all_modes),
        f"{gan}: gm_jax": Case(_case(OURS, "dcgan", 128), 128, gan),
        f"{gan}: gm_jax, pmap": Case(_case(OURS, "dcgan", 128, strategy="pmap"), 128, gan),
        f"{gan}: PyTorch eager": Case(_case(THEIRS, "dcgan", 128), 128, gan),
        f"{plane}: gm_jax": Case(_case(OURS, "realnvp", 512), 5_120, plane),
        f"{plane}: normflows": Case(_case(THEIRS, "realnvp", 512), 512, plane),
        f"{pixels}: PyTorch, 16 of 784 positions": Case(_case(THEIRS, "naive", "GATED_PIXELCNN", 64, 16), 64, pixels),
        f"{waves}: PyTorch, 16 of 1,024 positions": Case(_case(THEIRS, "naive", "WAVENET", 16, 16), 16, waves),
        "DDPM CIFAR-10 B256, bf16: gm_jax": Case(
            _case(OURS, "ddpm", 256), 256, "DDPM CIFAR-10 B256, bf16", UNET, "bf16"
        ),
    }


CASES = _cases()
SCALE = {"16 of 784 positions": 784 / 16, "16 of 1,024 positions": 1_024 / 16}  # of a partial sampler's time


def available(names: Sequence[str] = tuple(CASES)) -> list[str]:
    """Lists the cases whose packages are installed."""
    missing = [word for word, package in NEEDS.items() if importlib.util.find_spec(package) is None]
    # diffusers and normflows are PyTorch's too.
    if "PyTorch" in missing:
        missing += list(NEEDS)
    return [name for name in names if not any(word in name for word in missing)]


def measure(
    names: Sequence[str], *, out: Path, tiny: bool, parallel: int, ready: float, seconds: float, rounds: int, end: float
) -> dict[str, Any]:
    """Warms up and times cases, and writes speed.json after each round.

    Args:
        names: of CASES.
        out: the folder of logs and results.
        tiny: small sizes, to try the program.
        parallel: how many cases warm up at once.
        ready: seconds for the warm-up of all; a case that is late is left out.
        seconds: length of a sample.
        rounds: samples of each case.
        end: a value of time.monotonic at which no further sample begins.

    Returns:
        name -> {"group", "facts", "samples": seconds per unit, ...}.
    """
    pool = workers.Workers(names, out=out, tiny=tiny, parallel=parallel, deadline=time.monotonic() + ready)
    rows: dict[str, Any] = {
        name: {"group": CASES[name].group, "facts": pool.facts[name], "samples": []} for name in names
    }
    try:
        for index in range(rounds):
            order = [name for name in names if "failed" not in rows[name]["facts"]]
            for name in order if index % 2 == 0 else order[::-1]:
                if time.monotonic() > end:
                    break
                answer = pool.sample(name, seconds, patience=max(30.0, 12 * seconds))
                if "failed" in answer:
                    rows[name]["facts"]["failed"] = answer["failed"]
                else:
                    rows[name]["samples"].append(answer["seconds"])
                    rows[name]["facts"] |= {key: answer[key] for key in ("peak_gb",) if key in answer}
            _derive(rows, tiny=tiny)
            (out / "speed.json").write_text(json.dumps(rows, indent=1) + "\n")
            print(f"  round {index + 1} of {rounds} is done", file=sys.stderr, flush=True)
    finally:
        pool.close()
    return rows


def _derive(rows: dict[str, Any], *, tiny: bool) -> None:
    """Adds the median time of a step, the rate, the work per second, its share of the peak, and the ratio to ours."""
    for name, row in rows.items():
        if not row["samples"]:
            continue
        case = CASES[name]
        scale = next((factor for words, factor in SCALE.items() if words in name), 1.0)
        steps = 10 if case.examples in (1_000, 1_280, 2_560, 5_120) else 1
        unit = statistics.median(row["samples"]) * scale
        row["ms"] = 1e3 * unit / steps
        row["spread"] = max(row["samples"]) / min(row["samples"])
        row["examples_per_second"] = case.examples / unit
        if case.flops is not None and not tiny:
            row["tflops"] = case.flops * row["examples_per_second"] / 1e12
    for name, row in rows.items():
        case = CASES[name]
        peak = rows.get(f"product of matrices, {case.precision}: gm_jax", {}).get("tflops")
        if peak and "tflops" in row:
            row["share_of_peak"] = row["tflops"] / peak
        ours = rows.get(f"{case.group}: gm_jax", {}).get("examples_per_second")
        if ours and "examples_per_second" in row:
            row["times_slower_than_ours"] = ours / row["examples_per_second"]


def table(rows: Mapping[str, Any]) -> str:
    """Formats the rows as Markdown."""
    header = (
        "case",
        "ms a step",
        "examples/s",
        "TFLOP/s",
        "of the peak",
        "GB",
        "time / ours",
        "spread",
        "ready, s",
    )
    lines = []
    for name, row in rows.items():
        facts = row["facts"]
        if "failed" in facts or not row["samples"]:
            why = " ".join(str(facts.get("failed", "not timed")).split())
            lines.append([name, why[-60:], *["-"] * (len(header) - 2)])
            continue
        ready = facts.get("compile_seconds", facts.get("first_call_seconds"))
        numbers = (
            (row["ms"], ".4g"),
            (row["examples_per_second"], ",.0f"),
            (row.get("tflops"), ".1f"),
            (row.get("share_of_peak"), ".1%"),
            (facts.get("peak_gb", facts.get("temp_gb")), ".2f"),
            (row.get("times_slower_than_ours"), ".2f"),
            (row["spread"], ".2f"),
            (ready, ".1f"),
        )
        lines.append([name, *(timing.number(value, form) for value, form in numbers)])
    return timing.table(header, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Is a worker of the speed table.")
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    workers.serve(CASES[args.case], tiny=args.tiny)
