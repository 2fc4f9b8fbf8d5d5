"""Writes what `python -m benchmarks.accelerator` measured into the records of docs/results/, and the pages' tables.

python -m benchmarks.accelerator.publish runs/accelerator --commit 0123abc
python -m benchmarks.accelerator.publish OUT_1 OUT_2 ...              # parts that were run apart
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).resolve().parents[2] / "docs" / "results"
COMMAND = "python -m benchmarks.accelerator"
Row = dict[str, Any]


def speed_rows(cases: Mapping[str, Any]) -> list[Row]:
    """Returns a row for each case that was timed."""
    units = {
        "ms": "ms",
        "examples_per_second": "1/s",
        "tflops": "TFLOP/s",
        "share_of_peak": "%",
        "times_slower_than_ours": "1",
        "spread": "1",
    }
    rows = []
    for name, case in cases.items():
        if "ms" not in case:
            continue
        work, _, who = name.partition(": ")
        values = {key: case[key] for key in units if key in case}
        values |= {"share_of_peak": 100 * case["share_of_peak"]} if "share_of_peak" in case else {}
        numbers = [{"name": key, "value": _rounded(value), "unit": units[key]} for key, value in values.items()]
        if memory := case["facts"].get("peak_gb"):
            numbers.append({"name": "memory", "value": _rounded(memory), "unit": "GB"})
        rows.append({"id": _slug(name), "labels": {"work": work, "by": who}, "numbers": numbers})
    return rows


def correctness_rows(checks: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns a row for each family and mode; errors are shown as powers of ten."""
    rows = []
    for check in checks:
        if not check["errors"]:  # the program failed or had no time: there is nothing to publish
            continue
        errors = {kind: check["errors"].get(kind) for kind in ("loss", "grads", "log_prob", "samples")}
        labels = {kind: "" if error is None else f"{error:.0e}" for kind, error in errors.items()}
        verdict = "; ".join(check["failures"]) or "agrees"
        if check["failures"] and check.get("failures_against_cpu") == []:
            verdict = "agrees with the CPU of the same machine"
        numbers = [{"name": kind, "value": float(e), "unit": "1"} for kind, e in errors.items() if e is not None]
        names = {"family": check["family"], "mode": check["mode"], "verdict": verdict}
        rows.append({"id": _slug(f"{check['family']} {check['mode']}"), "labels": names | labels, "numbers": numbers})
    return sorted(rows, key=lambda row: ("float32", "default", "bfloat16", "-").index(row["labels"]["mode"]))


def resume_rows(checks: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns a row for each model and setting."""
    words = {True: "same bits", False: "other bits"}
    rows = []
    for check in checks:
        if "failed" in check:
            continue
        labels = {"model": check["model"], "setting": check["setting"]}
        labels |= {key: words[check[key]] for key in ("half_same", "whole_same")}
        seconds = {key: check[key] for key in ("first_seconds", "resumed_seconds") if key in check}
        numbers = [{"name": key, "value": value, "unit": "s"} for key, value in seconds.items()]
        rows.append({"id": _slug(f"{check['model']} {check['setting']}"), "labels": labels, "numbers": numbers})
    return rows


def training_rows(trainings: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns a row for each number of each training."""
    rows = []
    for training in trainings:
        for result in training.get("results", []):
            settings = result.get("settings", {})
            data = Path(result["data"].partition(":")[2] or result["data"]).stem
            labels = {
                "training": training["training"],
                "data": data,
                "what": f"{result['name']}, {result['unit']}",
                "step": f"{settings['step']:,}" if "step" in settings else "",
                "steps": f"{training.get('reached', training['steps']):,} of {training['steps']:,}",
            }
            digits = 2 if abs(result["value"]) > 10.0 else 4
            number = {**result, "name": "value", "data": data, "digits": digits}
            number["standard_error"] = settings.get("standard_error")
            rows.append(
                {
                    "id": _slug(f"{training['training']} {result['name']} {result['unit']}"),
                    "labels": labels,
                    "numbers": [
                        number,
                        {"name": "seconds", "value": round(training["seconds"]), "unit": "s"},
                    ],
                }
            )
    return rows


def _field(title: str, name: str) -> dict[str, Any]:
    return {"title": title, "field": name}


def _number(title: str, name: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "number": name, **{"sign": False, **more}}


# part -> (table, columns, rows of what the part found)
TABLES: Mapping[str, tuple[str, list[dict[str, Any]], Callable[[Any], list[Row]]]] = {
    "speed": (
        "accelerator_speed",
        [
            _field("work", "work"),
            _field("by", "by"),
            _number("ms per step", "ms"),
            _number("examples per second", "examples_per_second", digits=0),
            _number("TFLOP/s", "tflops"),
            _number("% of the peak", "share_of_peak"),
            _number("GB", "memory"),
            _number("time / gm_jax's", "times_slower_than_ours", digits=2),
            _number("spread", "spread", digits=2),
        ],
        speed_rows,
    ),
    "correctness": (
        "accelerator_correctness",
        [
            _field("family", "family"),
            _field("mode", "mode"),
            *(_field(t, n) for t, n in (("loss", "loss"), ("gradients", "grads"), ("log p", "log_prob"))),
            _field("samples", "samples"),
            _field("verdict", "verdict"),
        ],
        correctness_rows,
    ),
    "resume": (
        "accelerator_resume",
        [
            _field("model", "model"),
            _field("setting", "setting"),
            _field("two processes, step 30", "half_same"),
            _field("killed and resumed, step 60", "whole_same"),
        ],
        resume_rows,
    ),
    "train": (
        "accelerator_trainings",
        [
            _field("training", "training"),
            _field("data", "data"),
            _field("number", "what"),
            _number("value", "value", sign=True),
            _field("best step", "step"),
            _field("steps", "steps"),
            _number("seconds", "seconds"),
        ],
        training_rows,
    ),
}


def publish(folders: Sequence[Path], *, commit: str | None, records: Path = RECORDS) -> list[str]:
    """Writes a table for each part that the folders hold; returns the tables' names."""
    written = []
    for folder in folders:
        found = json.loads((folder / "all.json").read_text())
        facts = found.pop("facts")
        for training in found.get("train", []):
            log = folder / f"training_{training['training']}_metrics.jsonl"
            if log.exists():
                training["reached"] = json.loads(log.read_text().splitlines()[-1])["step"]
        about = {
            "command": COMMAND,
            "device": facts.get("card") or ", ".join(facts["devices"]),
            "versions": facts["versions"],
            "commit": commit or facts.get("commit"),
        }
        for part, (table, columns, rows) in TABLES.items():
            if part in found:
                content = {"columns": columns, "rows": [{**row, **about} for row in rows(found[part])]}
                (records / f"{table}.json").write_text(json.dumps(content, indent=1) + "\n")
                written.append(table)
    return written


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog=f"{COMMAND}.publish", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="--out of one or several runs")
    parser.add_argument("--commit", help="that was measured, if its copy on the machine has no git")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the records and the pages."""
    from tools import results

    args = parse(argv)
    written = publish(args.folders, commit=args.commit)
    print(f"wrote {', '.join(written)}; {results.update(results.Config())}")


if __name__ == "__main__":
    main()
