"""What an accelerator computes, and how fast, in ten minutes: correctness, bits after a resume, speed, trainings.

    python -m benchmarks.accelerator --budget 480 --out runs/accelerator --data data

It takes any device that jax finds and needs no network. Correctness needs jax, flax, optax, chex and numpy alone, the
rest also tyro, orbax-checkpoint and, for trainings, tensorboardX, tqdm and matplotlib. PyTorch, diffusers and normflows
are used if they are installed. Results are written to --out as they come, and one table is printed last. Data of the
trainings: `benchmarks.accelerator.pack`.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.accelerator import resume, speed, trainings, workers
from benchmarks.accelerator.families import FAMILIES

PARTS = ("correctness", "resume", "speed", "train")
WEIGHTS = {"correctness": 2.0, "resume": 2.0, "speed": 5.0, "train": 4.0}  # of the parts in what is left of the budget
TINY_CASES = ("product of matrices, f32: gm_jax", "MADE 784-500, B100: gm_jax", "MADE 784-500, B100: gm_jax, pmap")

# Failures of a family that the budget did not reach.
NOT_DONE, NOT_BEGUN = ["not done in time"], ["not begun in time"]


def versions() -> dict[str, Any]:
    """Returns versions, devices and the commit, from a process of its own that leaves the device free."""
    code = (
        "import jax, json; d = jax.devices(); "
        "print(json.dumps({'platform': d[0].platform, 'devices': [x.device_kind for x in d]}))"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    facts: dict[str, Any] = json.loads(found.stdout.splitlines()[-1]) if found.returncode == 0 else {"devices": []}
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "diffusers", "normflows", "jax-cuda13-plugin")
    facts["versions"] = timing.versions(*names)
    facts["machine"] = f"{timing.machine()}"
    facts["cores"] = os.cpu_count()
    facts["xla_flags"] = os.environ.get("XLA_FLAGS", "")
    card = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    for name, command in (("card", card), ("commit", ["git", "rev-parse", "HEAD"])):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True)
            facts |= {name: done.stdout.strip()} if done.returncode == 0 else {}
    return facts


def check_correctness(args: argparse.Namespace, end: float) -> list[dict[str, Any]]:
    """Compares every family with the golden values, each in a process of its own."""
    names = args.families or (("vae", "rbm") if args.tiny else tuple(FAMILIES))
    module = [sys.executable, "-m", "benchmarks.accelerator.golden", "--family"]
    environ = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    commands = {name: [*module, name] for name in names}
    rows: list[dict[str, Any]] = []
    with (args.out / "correctness.log").open("w") as log:
        for name, text, status in workers.run_all(commands, parallel=args.parallel, deadline=end, environ=environ):
            log.write(f"--- {name}: exit status {status}\n{text}\n")
            found = [json.loads(line) for line in text.splitlines() if line.startswith('{"family"')]
            if status != 0:
                why = NOT_DONE[0] if status == -1 else " ".join(text.split())[-200:]
                found.append({"family": name, "mode": "-", "errors": {}, "failures": [why], "seconds": 0.0})
            rows += found
            (args.out / "correctness.json").write_text(json.dumps(rows, indent=1) + "\n")
            for row in found:
                print(f"  {name}, {row['mode']}: {'; '.join(row['failures']) or 'ok'}", file=sys.stderr, flush=True)
    done = {row["family"] for row in rows}
    rows += [
        {"family": name, "mode": "-", "errors": {}, "failures": NOT_BEGUN, "seconds": 0.0}
        for name in names
        if name not in done
    ]
    (args.out / "correctness.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def check_resume(args: argparse.Namespace, end: float) -> list[dict[str, Any]]:
    """Kills and resumes runs, each model under each setting of the compiler; CPUs have one setting."""
    on_gpu = args.facts.get("platform") in ("gpu", "cuda", "rocm")
    settings = resume.SETTINGS if on_gpu else resume.SETTINGS[:1]
    models = ("vae",) if args.tiny else tuple(resume.MODELS)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, futures.ThreadPoolExecutor(max(1, args.parallel // 2)) as pool:
        jobs = [
            pool.submit(resume.check, model, setting, Path(folder) / f"{model}-{index}", tiny=args.tiny, deadline=end)
            for model in models
            for index, setting in enumerate(settings)
        ]
        for job in futures.as_completed(jobs):
            rows.append(job.result())
            (args.out / "resume.json").write_text(json.dumps(rows, indent=1) + "\n")
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    return sorted(rows, key=lambda row: (row["model"], settings.index(row["setting"])))


def report(facts: dict[str, Any], results: dict[str, Any]) -> str:
    """Formats everything as Markdown, the speed table last."""
    parts = [f"{facts.get('card') or ', '.join(facts['devices'])}; {facts['machine']}; {facts['versions']}"]
    if rows := results.get("correctness"):
        lines = []
        for row in rows:
            errors = [
                timing.number(row["errors"].get(kind), ".1e") for kind in ("loss", "grads", "log_prob", "samples")
            ]
            lines.append([row["family"], row["mode"], *errors, "; ".join(row["failures"])[-60:] or "ok"])
        header = ("family", "mode", "loss", "gradients", "log p", "samples", "verdict")
        parts += ["Relative differences from the CPU:", timing.table(header, lines)]
        ended = [row for row in rows if row["failures"] not in (NOT_DONE, NOT_BEGUN)]
        failed = sorted({row["family"] for row in ended if row["failures"]})
        late = f" Families not done in time: {len(rows) - len(ended)}." if len(ended) < len(rows) else ""
        parts.append(f"{len(ended)} checks; failed: {', '.join(failed) or 'none'}.{late}")
    if rows := results.get("resume"):
        header = ("model", "setting", "two processes, step 30", "killed and resumed, step 60", "s first", "s resumed")
        words = {True: "same bits", False: "differ", None: "-"}
        lines = [
            [
                row["model"],
                row["setting"],
                words[row.get("half_same")],
                words[row.get("whole_same")] if "failed" not in row else row["failed"][-40:],
                str(row.get("first_seconds", "-")),
                str(row.get("resumed_seconds", "-")),
            ]
            for row in rows
        ]
        parts += ["Bits of a run that was killed and resumed:", timing.table(header, lines)]
    for row in results.get("train", []):
        numbers = [f"{r['name']} {r['value']:.4f} {r['unit']} ({r['kind']})" for r in row.get("results", [])]
        parts.append(
            f"{row['training']}: {row['steps']} steps, {row['seconds']} s: {row.get('failed') or '; '.join(numbers)}"
        )
    if rows := results.get("speed"):
        parts.append(speed.table(rows))
    return "\n\n".join(parts)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"), help="folder of the results")
    parser.add_argument("--runs", type=Path, help="folder of the trainings' runs (default: OUT/runs)")
    parser.add_argument("--data", type=Path, help="folder that benchmarks.accelerator.pack has filled")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="what to do (default: all)")
    parser.add_argument("--families", nargs="*", choices=list(FAMILIES), help="families to check (default: all)")
    parser.add_argument("--cases", nargs="*", help="cases to time whose names contain one of these (default: all)")
    parser.add_argument("--train", nargs="*", choices=list(trainings.TRAININGS), default=["pixelcnn", "ddpm"])
    parser.add_argument("--together", action="store_true", help="run the trainings side by side")
    parser.add_argument("--parallel", type=int, default=max(2, cores - 2), help="processes that compile at once")
    parser.add_argument("--ready", type=float, default=150.0, help="seconds in which the cases must be warm")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a timed sample")
    parser.add_argument("--rounds", type=int, default=2, help="samples of each case")
    parser.add_argument("--tiny", action="store_true", help="small sizes and few cases, to try the program")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts within the budget; returns 1 if a check failed."""
    args, started = parse(argv), time.monotonic()
    end = started + args.budget
    args.out.mkdir(parents=True, exist_ok=True)
    args.facts = versions()
    results: dict[str, Any] = {}

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    def until(part: str) -> float:
        left = [WEIGHTS[other] for other in args.parts if PARTS.index(other) >= PARTS.index(part)]
        return time.monotonic() + (end - time.monotonic()) * WEIGHTS[part] / sum(left)

    say(f"{args.facts}")
    if "correctness" in args.parts:
        say("correctness")
        results["correctness"] = check_correctness(args, until("correctness"))
    if "resume" in args.parts:
        say("resume")
        results["resume"] = check_resume(args, until("resume"))
    if "speed" in args.parts:
        say("speed")
        names = speed.available(TINY_CASES if args.tiny else tuple(speed.CASES))
        names = [name for name in names if not args.cases or any(word in name for word in args.cases)]
        stop = until("speed")
        settings = {"out": args.out, "tiny": args.tiny, "parallel": args.parallel, "seconds": args.seconds}
        ready = min(args.ready, 0.7 * (stop - time.monotonic()))
        results["speed"] = speed.measure(names, **settings, ready=ready, rounds=args.rounds, end=stop)
    if "train" in args.parts:
        say("train")
        results["train"] = _train(args, results.get("speed", {}), end)
    (args.out / "all.json").write_text(json.dumps({"facts": args.facts, **results}, indent=1) + "\n")
    text = report(args.facts, results)
    (args.out / "report.md").write_text(text + "\n")
    print(text, flush=True)
    say("done")
    checks = [row["failures"] for row in results.get("correctness", []) if row["mode"] in ("float32", "-")]
    return int(any(checks))


def _train(args: argparse.Namespace, speeds: dict[str, Any], end: float) -> list[dict[str, Any]]:
    names = ["tiny"] if args.tiny else args.train
    if not args.tiny and args.data is None:
        print("  no trainings: give --data, see benchmarks.accelerator.pack", file=sys.stderr)
        return []
    missing = [package for package in ("tyro", "tensorboardX") if importlib.util.find_spec(package) is None]
    if missing:
        print(f"  no trainings: {', '.join(missing)} are not installed", file=sys.stderr)
        return []
    runs, data = args.runs or args.out / "runs", args.data or Path()
    settings = {"data": data, "runs": runs, "out": args.out, "speeds": speeds, "together": args.together}
    return trainings.run(names, **settings, end=end - 30.0)


if __name__ == "__main__":
    sys.exit(main())
