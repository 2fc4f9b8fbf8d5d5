"""The verb `sample`: draws from a run, from its folder alone; the data are not loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gm_jax.errors import UserError
from gm_jax.plotting import images
from gm_jax.runner import config as config_lib
from gm_jax.runner import evaluate
from gm_jax.runner.run import Run, reopen, restore

if TYPE_CHECKING:
    from gm_jax.runner.cli import SampleArgs


def run(module: str, config_type: type, build: Callable, args: "SampleArgs") -> None:
    """Write samples as a PNG and as an array."""
    anew = config_lib.given(args, config_lib.sampling_fields(config_type))
    opened = reopen(module, config_type, build, args.workdir, with_data=False, anew=anew)
    png = _with_suffix(args.output or opened.folder.root / f"samples-seed{args.seed}.png")
    state, step = restore(opened, args.checkpoint)
    samples = evaluate.draw_samples(opened, state, args.num, seed=args.seed, **_settings(opened, args))
    images.draw_grid(png, images.as_grid(samples), opened.spec.levels)
    np.save(png.with_suffix(".npy"), samples)
    print(f"{args.num} samples of step {step}: {png}, {png.with_suffix('.npy').name}")


def _settings(opened: Run, args: "SampleArgs") -> dict[str, Any]:
    """What is asked of the model's `sample` by name."""
    settings = {}
    if args.label is not None:
        classes = opened.spec.num_classes or 0
        if args.label >= classes:
            raise UserError(f"--label {args.label}: {opened.spec.name} has {classes} classes, numbered from 0.")
        settings["label"] = np.full(args.num, args.label, np.int32)
    if args.temperature is not None:
        settings["temperature"] = args.temperature
    return settings


def _with_suffix(output: Path) -> Path:
    """The path with .png at its end. A dot in a name begins no suffix: v1.5 becomes v1.5.png."""
    if output.is_dir():
        raise UserError(f"{output} is a folder: name a file in it.")
    if output.suffix in (".jpg", ".jpeg", ".npy", ".pdf", ".svg"):
        raise UserError(f"samples are written as PNG, and as .npy beside it: {output.with_suffix('.png')}")
    return output if output.suffix == ".png" else output.with_name(output.name + ".png")
