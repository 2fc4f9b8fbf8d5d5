"""The verb `sample`: draws samples of a run from its folder alone; the data are not loaded."""

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gm_jax.config import Count, CountOrZero, ExperimentConfig, Seed, Temperature, saved
from gm_jax.errors import UserError
from gm_jax.files import replacing
from gm_jax.runner.evaluate import with_optional_fields

if TYPE_CHECKING:
    import numpy as np

    from gm_jax.data.sources import Spec
    from gm_jax.runner.run import Run
    from gm_jax.training.state import TrainState

_SHOWN = 400  # samples in the PNG, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleArgs:
    """Draw samples of the run in a folder; its data are not needed.

    Flags of the experiment, whose default is None, take the value of the run.
    """

    workdir: Path
    """The run's folder."""
    num: Count = 64
    """How many samples."""
    checkpoint: Literal["best", "latest"] = "best"
    """Which checkpoint: the best on validation, or the latest."""
    seed: Seed = 0
    """Seed of the samples."""
    label: CountOrZero | None = None
    """The class to draw from, for a model that is conditioned on labels; by default all classes, equally often."""
    prompt: str | None = None
    """What to draw, for a model of captions; by default a sample of p(x)."""
    image: Path | None = None
    """A picture to start from, of the size of the data, for models with an encoder or of pixels; see --strength."""
    strength: float | None = None
    """Of --image: from 0 (the picture itself) to 1 (a new one); by default 0.6, or 1 with --mask."""
    mask: Path | None = None
    """Of --image: a picture that is white where --image is drawn again, and black where it is kept."""
    temperature: Temperature | None = None
    """For autoregressive models and flows: less than 1 draws samples closer to the most likely ones; by default 1."""
    output: Path | None = None
    """The PNG to write, with or without its suffix; by default samples-seed<seed>.png in the run's folder, with other
    flags that were given before -seed. The arrays are written next to it as .npy."""


def flags(config_type: type[ExperimentConfig], workdir: Path) -> SampleArgs:
    """Returns the default of every flag, including one for each field of the experiment that changes sampling."""
    return with_optional_fields(SampleArgs, saved.sampling_fields(config_type))(workdir=workdir)


def sample_run(config_type: type[ExperimentConfig], args: SampleArgs) -> None:
    """Writes samples as a PNG and as an array.

    Args:
        config_type: the type of the run's configuration.
        args: the flags; those of the experiment's own fields change how samples are drawn.
    """
    import numpy as np

    from gm_jax.plotting import images
    from gm_jax.plotting.layout import Grid
    from gm_jax.runner import draw
    from gm_jax.runner.run import reopen

    changes = saved.given(args, saved.sampling_fields(config_type))
    run = reopen(args.workdir, config_type=config_type, with_data=False, changes=changes)
    png = png_path(args.output or run.folder.root / default_name(args, changes))
    state, step = run.restore(args.checkpoint)
    drawn = draw_asked(run, state, args)
    grid = images.as_grid(drawn[:_SHOWN])
    titled = Grid(grid, title=", ".join(["Samples", *described(args, changes)]))
    images.draw_grid(png, titled, run.spec.levels, subtitle=draw.describe(run, step))
    with replacing(png.with_suffix(".npy")) as file:
        np.save(file, drawn)
    shown = grid.shape[0] * grid.shape[1]
    some = "" if shown == args.num else f" (the first {shown} of them)"
    print(f"{args.num} samples of step {step}: {png}{some}, {png.with_suffix('.npy').name}")
    bad = args.num - int(np.isfinite(drawn.reshape(args.num, -1)).all(axis=1).sum())
    if bad:
        print(f"warning: {bad} of {args.num} samples are not finite", file=sys.stderr)


def draw_asked(run: "Run", state: "TrainState", args: SampleArgs) -> "np.ndarray":
    """Draws the samples that the flags ask for: new ones, or edited copies of a picture.

    Raises:
        UserError: the picture, the mask or the strength does not fit, or the model has no such option.
    """
    from gm_jax.runner import image_edits, samples

    options = sample_options(run.spec, args)
    if args.image is None:
        for name in ("strength", "mask"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} is of a picture to start from: add --image, or leave it out.")
        return samples.draw_many(run, state, args.num, seed=args.seed, **options)
    strength = args.strength if args.strength is not None else 0.6 if args.mask is None else 1.0
    return image_edits.draw_edits(
        run,
        state,
        image_edits.read_image(run.spec, args.image, args.num),
        seed=args.seed,
        strength=strength,
        mask=None if args.mask is None else image_edits.read_mask(args.mask),
        **options,
    )


def described(args: SampleArgs, changes: Mapping[str, Any]) -> list[str]:
    """Returns what was asked of the samples, with the fields of the experiment, for the title of their picture."""
    label = [] if args.label is None else [f"label {args.label}"]
    label += [] if args.prompt is None else [f'"{args.prompt}"']
    label += [] if args.image is None else [f"from {args.image.name}"]
    label += [] if args.temperature is None else [f"temperature {args.temperature:g}"]
    return label + [" ".join(_words({name: value})) for name, value in changes.items()]


def sample_options(spec: "Spec", args: SampleArgs) -> dict[str, Any]:
    """Returns the options of the model's `sample` that the flags ask for.

    Raises:
        UserError: the data have no such class, or the prompt cannot be read.
    """
    from gm_jax.runner import samples

    options = samples.label_options(spec, args.num, args.label, args.prompt)
    if args.temperature is not None:
        options["temperature"] = args.temperature
    return options


def default_name(args: SampleArgs, changes: Mapping[str, Any]) -> str:
    """Returns the name of the PNG without --output: other flags, but for --num, give another name.

    Args:
        args: the flags.
        changes: of the experiment's own fields, nested as its sections are.
    """
    given = {name: getattr(args, name) for name in ("label", "prompt", "image", "strength", "mask", "temperature")}
    given |= {"checkpoint": None if args.checkpoint == "best" else args.checkpoint, **changes}
    words = re.sub(r"[^a-z0-9.]+", "-", " ".join(["samples", *_words(given)]).lower()).strip("-")
    return f"{words[:180]}-seed{args.seed}.png"


def _words(given: Mapping[str, Any]) -> list[str]:
    """Returns the names and values of what is not None."""
    words = []
    for name, value in given.items():
        if isinstance(value, Mapping):
            words += [name, *_words(value)]
        elif value is not None:
            words += [name, str(getattr(value, "stem", value))]
    return words


def png_path(output: Path) -> Path:
    """Returns the path with .png at its end. A dot in a name does not start a suffix: v1.5 becomes v1.5.png.

    Raises:
        UserError: it is a folder, or has the suffix of another format.
    """
    if output.is_dir():
        raise UserError(f"{output} is a folder: name a file in it.")
    if output.suffix in (".jpg", ".jpeg", ".npy", ".pdf", ".svg"):
        raise UserError(f"{output} is not a PNG, which samples are written as: use {output.with_suffix('.png')}.")
    return output if output.suffix == ".png" else output.with_name(output.name + ".png")
