"""The command line of every experiment: verbs, flags and exit codes.

    python -m experiments.NAME [train] [flags]       trains, or goes on where the run in the folder stopped
    python -m experiments.NAME evaluate [flags]      evaluates a run, from its folder alone
    python -m experiments.NAME sample [flags]        draws from a run, from its folder alone
    python -m experiments.NAME plan [flags]          says what training would cost on TPUs, without any

Exit codes: 0 done, or stopped by a signal and saved; 1 a defect, or training diverged, or another process failed (134
where jax itself ends this one for that); 2 a mistake of the user's; 130 Ctrl-C where there was nothing to save.
"""

import ast
import dataclasses
import errno
import inspect
import itertools
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gm_jax.cluster.config import ClusterConfig
from gm_jax.errors import UserError
from gm_jax.runner import config as config_lib
from gm_jax.runner import cpu_flags
from gm_jax.runner.config import Count, CountOrZero, Rate, Seed

VERBS = ("train", "evaluate", "sample", "plan")

# A disk that is full, may not be written to, or lacks what was named: nothing that this program could mend.
_OF_THE_DISK = {errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}


@dataclasses.dataclass(frozen=True)
class EvaluateArgs:
    """Evaluate the run in a folder: the table, results.json and the pictures anew."""

    workdir: Path
    """The run's folder."""
    data_dir: str | None = None
    """Where TensorFlow Datasets are prepared, if not where the run found them."""
    split: Literal["train", "validation", "test"] = "test"
    """The split to evaluate."""
    checkpoint: Literal["best", "latest"] = "best"
    """Which checkpoint: the best on validation, or the latest."""
    seed: Seed = 0
    """Seed of the evaluation's own randomness."""
    batch_size: Count = 100
    """Examples at a time; a matter of memory."""
    features: Literal["digits-cnn", "mnist-cnn", "inception"] | None = None
    """Measure samples too, by this extractor's features: Frechet and kernel distance, precision, recall, Inception
    Score, classes covered."""
    weights: Path | None = None
    """The extractor's weights: the file that tools/convert_inception.py makes, for inception."""
    num_generated: Count | None = None
    """How many samples are measured; by default as many as there are real images."""
    real_split: Literal["train", "validation", "test"] = "train"
    """The split that samples are held against."""


@dataclasses.dataclass(frozen=True)
class SampleArgs:
    """Draw from the run in a folder; its data are not needed."""

    workdir: Path
    """The run's folder."""
    num: Count = 64
    """How many samples."""
    checkpoint: Literal["best", "latest"] = "best"
    """Which checkpoint: the best on validation, or the latest."""
    seed: Seed = 0
    """Seed of the samples."""
    label: CountOrZero | None = None
    """The class to draw from, for a model that is conditioned on labels; by default all, as often as each other."""
    temperature: Rate | None = None
    """Less than 1 for samples nearer to the likeliest, for autoregressive models and flows; by default 1."""
    output: Path | None = None
    """The PNG to write, with or without its suffix; by default samples-seed<seed>.png in the run's folder. The arrays
    go beside it as .npy."""


@dataclasses.dataclass(frozen=True)
class PlanArgs:
    """Where to plan for, and where to write it."""

    plot: Path
    """The PNG to write where there are several topologies."""
    topology: tuple[str, ...] = ()
    """Slices to plan for, each a chip (v4, v5e, v5p, v6e) and its chips along each axis: v5e:4x4 v5p:8x8x8."""
    batch_per_chip: Count | None = None
    """Examples a step on each chip; by default --train.batch-size is shared out."""
    json: Path | None = None
    """A file to write the same to as JSON, in bytes, FLOPs and seconds."""
    markdown: bool = False
    """Print rows of a Markdown table instead, one for each topology."""


def main(config_type: type, build: Callable[[Any, Any], Any], argv: Sequence[str] | None = None) -> None:
    """Run an experiment module as a program; never returns.

    Args:
        config_type: the experiment's frozen dataclass; it can be made without arguments.
        build: (config, data spec) -> Experiment, pure and cheap.
        argv: the arguments; the program's own by default.
    """
    _run(lambda: _dispatch(config_type, build, list(sys.argv[1:] if argv is None else argv)))


def program(config_type: type, run: Callable[[Any], Any], argv: Sequence[str] | None = None) -> None:
    """Run a module that is a command but no experiment: flags, messages and exit codes as theirs; never returns.

    Args:
        config_type: its frozen dataclass of flags.
        run: (config) -> what is printed at the end, None for nothing.
        argv: the arguments; the program's own by default.
    """
    module, description = _identity(config_type)

    def parse_and_run() -> None:
        config = tyro.cli(config_type, prog=f"python -m {module}", args=argv, description=description)
        config_lib.check(config)
        said = run(config)
        if said is not None:
            print(said)

    _run(parse_and_run)


def _run(command: Callable[[], None]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    cpu_flags.set_flags(os.environ)
    try:
        command()
    except (UserError, OSError, KeyboardInterrupt) as error:
        code = report(error)
        if code is None:
            raise
        sys.exit(code)
    sys.exit(0)


def report(error: BaseException) -> int | None:
    """Say in a few lines what was wrong, and return the exit code; None of what is a defect of this program."""
    if isinstance(error, UserError):
        print("\n".join(f"error: {error}".splitlines()[:3]), file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        print(f"error: {error.strerror}: {error.filename or 'no file is named'}", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return None


def _dispatch(config_type: type, build: Callable, argv: list[str]) -> None:
    module, description = _identity(config_type)
    if argv and argv[0] not in VERBS and not argv[0].startswith("-"):
        raise UserError(f"no verb {argv[0]!r}: there are {', '.join(VERBS)}.")
    verb = argv.pop(0) if argv and argv[0] in VERBS else "train"
    workdir = Path("runs") / module.rpartition(".")[2]
    prog = f"python -m {module} {verb}"
    if verb == "train":
        args = tyro.cli(_train_args(config_type, workdir, description), prog=prog, args=argv)
        config_lib.check(args.config)
        config_lib.check(args.cluster)
        from gm_jax.runner import train

        train.run(module, args.config, build, args.workdir, args.cluster)
    elif verb == "evaluate":
        args_type = _with_fields(EvaluateArgs, config_type, config_lib.measuring_fields(config_type))
        args = tyro.cli(args_type, prog=prog, args=argv, default=args_type(workdir=workdir))
        config_lib.check(args)
        from gm_jax.runner import evaluate

        evaluate.run(module, config_type, build, args)
    elif verb == "plan":
        plot = workdir.with_name(f"plan-{workdir.name}.png")
        args = tyro.cli(_plan_args(config_type, plot), prog=prog, args=argv)
        config_lib.check(args.config)
        config_lib.check(args.plan)
        from gm_jax.runner import plan

        plan.plan_run(module, args.config, build, args.plan)
    else:
        args_type = _with_fields(SampleArgs, config_type, config_lib.sampling_fields(config_type))
        args = tyro.cli(args_type, prog=prog, args=argv, default=args_type(workdir=workdir))
        config_lib.check(args)
        from gm_jax.runner import sample

        sample.run(module, config_type, build, args)


def _train_args(config_type: type, default_workdir: Path, description: str) -> type:
    @dataclasses.dataclass(frozen=True)
    class TrainArgs:
        config: Annotated[config_type, tyro.conf.arg(name="")]
        workdir: Path = default_workdir
        """The run's folder. The same command again goes on where the run in it stopped."""
        cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)

    TrainArgs.__doc__ = (
        f"{description}\n\nVerbs: train (this one, the default), evaluate, sample, plan; each has --help."
    )
    return TrainArgs


def _with_fields(verb_args: type, config_type: type, marked: dict[str, Any]) -> type:
    """A verb's own arguments, and a flag for every field of the experiment that is marked for it."""
    fields = []
    for name, hint in marked.items():
        help_text = f"{_text_under(config_type, name)} By default the run's own."
        fields.append((name, Annotated[hint | None, tyro.conf.arg(help=help_text)], None))
    described = {"__doc__": verb_args.__doc__}
    return dataclasses.make_dataclass("Args", fields, bases=(verb_args,), namespace=described, frozen=True)


def _text_under(config_type: type, name: str) -> str:
    """The text under a field, where its class or one that it extends has some."""
    for cls in filter(dataclasses.is_dataclass, config_type.__mro__):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=found)), ast.Expr(value=ast.Constant(value=str(said))):
                    if found == name:
                        return " ".join(said.split())
    return ""


def _plan_args(config_type: type, default_plot: Path) -> type:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Args:
        """Compile the train step for TPUs that need not be there: what it would cost, and whether it fits."""

        plan: Annotated[PlanArgs, tyro.conf.arg(name="")] = PlanArgs(plot=default_plot)
        config: Annotated[config_type, tyro.conf.arg(name="")]

    return Args


def _identity(config_type: type) -> tuple[str, str]:
    """The experiment's module name and the first paragraph of its docstring."""
    program = sys.modules[config_type.__module__]
    module = program.__spec__.name if program.__spec__ is not None else Path(str(program.__file__)).stem
    return module, (program.__doc__ or "").strip().partition("\n\n")[0]
