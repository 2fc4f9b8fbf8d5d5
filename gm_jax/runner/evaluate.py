"""The verb `evaluate`: writes the table, results.json and the pictures of a run, from its folder alone."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from gm_jax import signals
from gm_jax.config import Count, ExperimentConfig, Seed, saved
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArgs:
    """Evaluate the run in a folder: write its table, results.json and pictures.

    Flags of the experiment, whose default is None, take the value of the run.
    """

    workdir: Path
    """The run's folder."""
    data_dir: str | None = None
    """Where the data are, if they have moved since the run: the folder of prepared TensorFlow Datasets, or the parent
    of the folder of images or of the npz file."""
    split: Literal["train", "validation", "test"] = "test"
    """The split to evaluate."""
    checkpoint: Literal["best", "latest"] = "best"
    """Which checkpoint: the best on validation, or the latest."""
    seed: Seed = 0
    """Seed of the evaluation's own randomness."""
    batch_size: Count = 100
    """Examples per batch; it changes only memory and speed."""
    features: Literal["digits-cnn", "mnist-cnn", "inception"] | None = None
    """Also measure samples, with the features of this extractor: Frechet distance (FID), kernel distance (KID),
    precision, recall, Inception Score, classes covered."""
    weights: Path | None = None
    """The extractor's weights, for inception: the file that tools/convert_inception.py makes."""
    num_generated: Count | None = None
    """How many samples to measure; by default as many as there are real images."""
    real_split: Literal["train", "validation", "test"] = "train"
    """The split that samples are compared with."""


def flags(config_type: type[ExperimentConfig], workdir: Path) -> EvaluateArgs:
    """Returns the default of every flag, including one for each field of the experiment that only measures."""
    return with_optional_fields(EvaluateArgs, saved.measuring_fields(config_type))(workdir=workdir)


def evaluate_run(config_type: type[ExperimentConfig], args: EvaluateArgs) -> None:
    """Evaluates a split with a checkpoint of the run in a folder.

    Args:
        config_type: the type of the run's configuration.
        args: the flags; those of the experiment's own fields change what is measured.
    """
    from gm_jax.runner import draw, measure, terminal
    from gm_jax.runner.run import reopen

    for flag, value in (("--weights", args.weights), ("--num-generated", args.num_generated)):
        if args.features is None and value is not None:
            raise UserError(f"{flag} has no effect without --features: add --features NAME, or leave it out.")
    changes = saved.given(args, saved.measuring_fields(config_type))
    run = reopen(args.workdir, config_type=config_type, data_dir=args.data_dir, changes=changes)
    state, step = run.restore(args.checkpoint)
    samples = []
    if args.features is not None:  # first, because it may refuse its weights or the data at once
        samples = measure.sample_records(
            run,
            state,
            features_name=args.features,
            weights=args.weights,
            num_generated=args.num_generated,
            real_split=args.real_split,
            settings={"step": step, "seed": args.seed},
        )
    parts = measure.num_parts(run, args.split, batch_size=args.batch_size)
    with terminal.progress(f"evaluating step {step:,} on the {args.split} split", parts) as show:

        def before_batch(name: str) -> None:
            signals.check()
            show(name)

        records = measure.measure_run(
            run,
            state,
            step,
            split=args.split,
            seed=args.seed,
            batch_size=args.batch_size,
            before_batch=before_batch,
        )
    # Numbers before pictures: what cannot be drawn must not cost them.
    measure.write_results(run, records + samples)
    with terminal.progress("drawing", draw.num_parts(run)) as show:
        pictures = draw.draw_pictures(run, state, seed=args.seed, before=show)
    measure.print_files(run, pictures)


def with_optional_fields(args_type: type, fields: Mapping[str, Any]) -> Any:
    """Returns a dataclass that adds to a verb's flags one for each of `fields`, None by default.

    Args:
        args_type: the verb's own flags.
        fields: name -> type, or a dict of them for a section.
    """
    added = []
    for name, hint in fields.items():
        if isinstance(hint, Mapping):
            section = with_optional_fields(object, hint)
            added.append((name, section, dataclasses.field(default_factory=section)))
        else:
            # The help text is in the annotation, which the union with None would hide.
            texts = [mark for mark in hint.__metadata__ if type(mark) is type(arg())]
            added.append((name, Annotated[(hint | None, *texts)], None))
    described = {"__doc__": args_type.__doc__ if args_type is not object else "How samples are drawn."}
    return dataclasses.make_dataclass(
        args_type.__name__, added, bases=(args_type,), namespace=described, frozen=True, kw_only=True
    )
