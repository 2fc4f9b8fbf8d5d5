"""The verb `sample`: draws from a run, from its folder alone."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gm_jax.runner import evaluate, pictures
from gm_jax.runner.run import reopen, restore

if TYPE_CHECKING:
    from gm_jax.runner.cli import SampleArgs


def run(module: str, config_type: type, build: Callable, args: "SampleArgs") -> None:
    """Write samples as a PNG and as an array."""
    opened = reopen(module, config_type, build, args.workdir, data_dir=args.data_dir)
    state, step = restore(opened, args.checkpoint)
    samples = evaluate.draw_samples(opened, state, args.num, seed=args.seed)
    output = (args.output or opened.folder.root / f"samples-seed{args.seed}.png").with_suffix(".png")
    pictures.draw(output, pictures.as_grid(samples), opened.source.spec)
    np.save(output.with_suffix(".npy"), samples)
    print(f"{args.num} samples of step {step}: {output}, {output.with_suffix('.npy').name}")
