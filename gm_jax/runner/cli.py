"""The command line of every experiment: verbs and flags.

    python -m experiments.NAME [train] [flags]       trains a run, or resumes the run in the folder
    python -m experiments.NAME evaluate [flags]      evaluates a run from its folder alone
    python -m experiments.NAME sample [flags]        draws samples of a run from its folder alone
    python -m experiments.NAME plan [flags]          estimates what training would cost on TPUs, without any TPU

`gm_jax.errors` lists the exit codes.
"""

import dataclasses
import logging
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import tyro

from gm_jax import signals
from gm_jax.cluster import detached_output
from gm_jax.config import ExperimentConfig, saved
from gm_jax.errors import SMALLER_EVALUATION, SMALLER_SAMPLE, SMALLER_TRAINING, UserError, report, too_large
from gm_jax.files import address
from gm_jax.recipes import presets
from gm_jax.runner import (
    compiled_programs,
    evaluate,
    flag_suggestions,
    flag_values,
    help_lines,
    plan,
    sample,
    train,
    xla_flags,
)

VERBS = ("train", "evaluate", "sample", "plan")

_SMALLER = {"train": SMALLER_TRAINING, "evaluate": SMALLER_EVALUATION, "sample": SMALLER_SAMPLE}

ConfigT = TypeVar("ConfigT")


def main(config: ExperimentConfig, argv: Sequence[str] | None = None, *, module: ModuleType | None = None) -> None:
    """Runs an experiment as a program; returns after a success, and exits with a code after an error.

    Args:
        config: the experiment's defaults.
        argv: the arguments; by default the program's own, and none in a notebook.
        module: the experiment's module, whose name and docstring its help shows; by default the program itself.
    """
    arguments = list(_own_arguments() if argv is None else argv)

    def command() -> None:
        with signals.deferred():
            _dispatch(config, module or sys.modules["__main__"], arguments)

    _exit_after(command)


def program(config_type: type[ConfigT], run: Callable[[ConfigT], Any], argv: Sequence[str] | None = None) -> None:
    """Runs a command that is not an experiment, with the same flags, messages and exit codes, as `main` does.

    Args:
        config_type: the frozen dataclass of its flags.
        run: (config) -> what is printed at the end, or None. A signal ends it where it calls `signals.check`.
        argv: the arguments; by default the program's own.
    """

    def command() -> None:
        with signals.deferred():
            _parse_and_run(config_type, run, argv)

    _exit_after(command)


def _parse_and_run(config_type: type[ConfigT], run: Callable[[ConfigT], Any], argv: Sequence[str] | None) -> None:
    name, description = _identity(sys.modules[config_type.__module__])
    arguments = sys.argv[1:] if argv is None else list(argv)
    help_lines.join(config_type)
    settings = {"prog": f"python -m {name}", "description": description}
    config = _expanded(_parsed(config_type, arguments, settings))
    _check(config)
    result = run(config)
    if result is not None:
        print(result)


def _check(config: Any, *, prefix: str = "") -> None:
    """Checks the ranges of fields; a message names the flag as it is typed."""
    try:
        saved.check(config)
    except UserError as error:
        field, _, reason = str(error).partition(" ")
        raise UserError(f"--{prefix}{field.replace('_', '-')} {reason}") from None


def _own_arguments() -> list[str]:
    """Returns the arguments of this program; those of a notebook's process are not for it."""
    return sys.argv[1:] if hasattr(sys.modules["__main__"], "__file__") else []


def _exit_after(command: Callable[[], None]) -> None:
    detached_output.reopen_closed()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    xla_flags.set_flags(os.environ)
    compiled_programs.set_default(os.environ)
    # XLA's warnings of slow compilations and the like; what ends a program is shown all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A notebook's cell hands down its own, which this environment may lack. Pictures here go to files only.
    os.environ.pop("MPLBACKEND", None)
    with detached_output.detached():
        try:
            command()
        except (UserError, OSError, MemoryError, ImportError, KeyboardInterrupt) as error:
            code = report(error)
            if code is None:
                raise
            sys.exit(code)
        except Exception as error:
            code = report(error)  # of a thread for which there is no memory
            if code is not None:
                sys.exit(code)
            reason = _why_jax_cannot_start()
            if reason is None:
                raise
            sys.exit(report(UserError(reason)))


def _why_jax_cannot_start() -> str | None:
    """Returns what is wrong if JAX_PLATFORMS names a platform that is not there, and None otherwise."""
    platforms, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    if not platforms or jax is None:
        return None
    try:
        jax.devices()
    except Exception as error:  # an AssertionError without a text, or a RuntimeError
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return (
            f"jax cannot start JAX_PLATFORMS={platforms} here{why}: unset JAX_PLATFORMS, or install the support for "
            "the device (pip install -e '.[cuda]' or '.[tpu]')."
        )
    return None


def parse(config: ExperimentConfig, argv: Sequence[str], *, module: ModuleType) -> tuple[str, Any]:
    """Returns the verb and the parsed flags of an experiment's command.

    Args:
        config: the experiment's defaults.
        argv: the arguments, e.g. ["evaluate", "--split", "test"].
        module: the experiment's module. If it has POINTS, those are the defaults for points in the plane. The last part
            of its name is the experiment whose presets there are.

    Raises:
        UserError: a verb, a preset or a flag does not exist, or a flag cannot take its value.
        SystemExit: a flag lacks its value; tyro prints what is wrong.
    """
    arguments = list(argv)
    name, description = _identity(module)
    if arguments and arguments[0] not in VERBS and not arguments[0].startswith("-"):
        raise UserError(f"there is no verb {arguments[0]!r}: use one of {', '.join(VERBS)}.")
    verb = arguments.pop(0) if arguments and arguments[0] in VERBS else "train"
    if arguments[:1] == ["--preset"] and verb == "train" and len(arguments) > 2 and arguments[2] in VERBS:
        verb = arguments.pop(2)
    workdir, own_data = Path("runs") / name.rpartition(".")[2], config.data.name
    config = _preset(workdir.name, arguments) or _for_the_data(config, module, arguments)
    if verb == "train":
        flags = train.flags(_with_chosen_sections(config, arguments), workdir, description, presets.of(workdir.name))
    elif verb == "evaluate":
        flags = evaluate.flags(type(config), workdir)
    elif verb == "sample":
        flags = sample.flags(type(config), workdir)
    else:
        plot = workdir.with_name(f"plan-{workdir.name}.png")
        flags = plan.flags(_with_chosen_sections(config, arguments), plot, presets.of(workdir.name))
    args = _parse(flags, f"python -m {name} {verb}", arguments)
    if verb == "train" and args.workdir is None:
        chosen = train.default_workdir(workdir, own_data, args.config.data.name)
        args = dataclasses.replace(args, workdir=chosen)
    return verb, args


def _dispatch(config: ExperimentConfig, module: ModuleType, argv: list[str]) -> None:
    verb, args = parse(config, argv, module=module)
    try:
        _run(config, module, verb, args)
    except Exception as error:
        explained = too_large(error, _SMALLER.get(verb, ""))
        if explained is None:
            raise
        raise explained from error


def _run(config: ExperimentConfig, module: ModuleType, verb: str, args: Any) -> None:
    name, _ = _identity(module)
    if verb == "train":
        train.train_run(name, args.config, args.workdir, args.cluster)
    elif verb == "evaluate":
        evaluate.evaluate_run(type(config), args)
    elif verb == "sample":
        sample.sample_run(type(config), args)
    else:
        plan.plan_run(name, args.config, args.plan)


def _parse(flags: Any, prog: str, argv: list[str]) -> Any:
    """Parses arguments into a dataclass instance like `flags`, which holds the defaults."""
    help_lines.join(flags)
    settings = {"default": flags, "prog": prog, "config": (tyro.conf.AvoidSubcommands,)}
    args = _expanded(_parsed(type(flags), argv, settings))
    for name in [name for name in ("config", "plan", "cluster") if hasattr(args, name)]:
        _check(getattr(args, name), prefix="cluster." if name == "cluster" else "")
    if not hasattr(args, "config"):
        _check(args)
    return args


def _parsed(flags_type: type, argv: Sequence[str], settings: Mapping[str, Any]) -> Any:
    """Parses arguments by tyro.

    Raises:
        UserError: a flag does not exist, for which the message suggests others, or it cannot take its value.
    """
    flag_values.check(argv, settings.get("default", flags_type))
    args, unknown = tyro.cli(flags_type, args=argv, return_unknown_args=True, **settings)
    if unknown:
        raise UserError(flag_suggestions.message(unknown, flag_suggestions.flags_of(args), settings["prog"]))
    return args


def _expanded(args: Any) -> Any:
    """Returns parsed arguments with home folders in place of ~ in every path, also in sections.

    Raises:
        UserError: there is no such home folder, or a path is the address of another machine.
    """
    changes = {}
    for name, value in vars(args).items():
        if dataclasses.is_dataclass(value):
            changes[name] = _expanded(value)
        elif isinstance(value, Path):
            found = address(value)
            if found is not None and name != "workdir":  # whose own message comes later
                raise UserError(f"{found} is not a path of this machine: write to one, and copy the files afterwards.")
            try:
                changes[name] = value.expanduser()
            except RuntimeError:
                raise UserError(f"{value} starts at a home folder that does not exist: give the whole path.") from None
    return dataclasses.replace(args, **changes) if changes else args


def _for_the_data(config: ExperimentConfig, module: ModuleType, argv: Sequence[str]) -> ExperimentConfig:
    """Returns the defaults that the experiment has for the kind of data that the arguments name."""
    points = getattr(module, "POINTS", None)
    names = _values("--data.name", argv)
    if points is None or not names:
        return config
    from gm_jax.data import toy  # numpy, which --help does without

    return points if names[-1].startswith(toy.PREFIX) else config


def _preset(experiment: str, argv: Sequence[str]) -> ExperimentConfig | None:
    """Returns the configuration of the preset that the arguments name; None if they name none.

    Raises:
        UserError: there is no such preset.
    """
    names = _values("--preset", argv)
    return presets.get(names[-1], experiment).config if names else None


def _values(flag: str, argv: Sequence[str]) -> list[str]:
    """Returns the values that the arguments give to a flag, in their order."""
    return [
        following if word == flag else word.removeprefix(f"{flag}=")
        for word, following in zip(argv, [*argv, ""][1:], strict=True)
        if word.partition("=")[0] == flag
    ]


def _with_chosen_sections(config: ExperimentConfig, argv: Sequence[str]) -> ExperimentConfig:
    """Returns the defaults with the sections that the arguments choose, e.g. by `--network mlp`.

    The flags of such a section exist only once it is chosen. Wrong names stay in the arguments, for tyro to refuse.
    """
    for field, sections in train.choices(type(config)).items():
        flag = f"--{field.replace('_', '-')}"
        for word, following in zip(argv, [*argv, ""][1:], strict=True):
            chosen = following if word == flag else word.removeprefix(f"{flag}=")
            if word.startswith(flag) and chosen in sections:
                config = dataclasses.replace(typing.cast(Any, config), **{field: sections[chosen]()})
        if getattr(config, field) is None and any(word.startswith(f"{flag}.") for word in argv):
            raise UserError(f"{flag}.* flags belong to one kind: add {flag} {' or '.join(sections)}.")
    return config


def _identity(module: ModuleType) -> tuple[str, str]:
    """Returns a module's name, as `python -m` takes it, and the first paragraph of its docstring."""
    if module.__spec__ is not None:
        name = module.__spec__.name
    else:  # a notebook has no file, and a program from standard input has one that is no path
        path = Path(getattr(module, "__file__", None) or "notebook").absolute()
        parts = path.relative_to(Path.cwd()).with_suffix("").parts if path.is_relative_to(Path.cwd()) else ()
        name = ".".join(parts) if all(map(str.isidentifier, parts)) and parts else path.stem.strip("<>")
    return name, (module.__doc__ or "").strip().partition("\n\n")[0]
