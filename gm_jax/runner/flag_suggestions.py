"""What to type instead of a flag that does not exist: a near name, or what other projects call it.

A suggestion is only a message. No flag has two names, so that a command means the same to everybody who reads it.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_MOST = 3  # suggestions for one flag


class Known(NamedTuple):
    """What a name of other projects is called here.

    Attributes:
        flags: the ends of the flags, e.g. "train.steps" or, for every section's, "learning-rate".
        note: what else the user needs to know.
    """

    flags: tuple[str, ...] = ()
    note: str = ""


_DEVICES = (
    "the environment chooses devices: JAX_PLATFORMS=cpu or cuda, CUDA_VISIBLE_DEVICES=0; all that are visible are used"
)

# Names that other projects use, in lower case with - for _; what they are called here; a note.
_ROWS = (
    ("lr learning-rate rate step-size", "learning-rate", ""),
    ("epochs num-epochs n-epochs max-epochs", "train.steps", "an epoch is the training examples / batch size steps"),
    ("steps num-steps max-steps total-steps train-steps num-train-steps", "train.steps", ""),
    ("iterations iters num-iterations n-iter niter max-iters", "train.steps", ""),
    ("bs b batch batchsize train-batch-size", "batch-size", ""),
    ("random-seed manual-seed rng", "seed", ""),
    ("device devices gpu gpus num-gpus gpu-id gpu-ids cuda no-cuda tpu cpu", "train.parallel", _DEVICES),
    ("accelerator platform world-size", "train.parallel", _DEVICES),
    ("output out o outdir output-dir out-dir logdir log-dir save-dir savedir", "workdir", ""),
    ("exp-dir run-dir results-dir ckpt-dir checkpoint-dir dir save-path model-dir", "workdir", ""),
    ("name exp-name experiment-name run-name", "workdir", ""),
    ("data dataset ds dataset-name", "data.name", ""),
    ("data-dir data-path data-root dataroot dataset-path root datadir", "data.dir data-dir", ""),
    ("images image-dir image-folder", "data.name", "a folder of pictures is --data.name folder:PATH"),
    ("image-size img-size resolution imagesize", "data.size", ""),
    ("resume continue resume-from restart", "workdir", "the same command resumes the run in its folder"),
    ("ckpt load model-path checkpoint-path", "checkpoint workdir", ""),
    ("eval evaluate test test-only eval-only", "", "write the verb evaluate before the flags"),
    ("sample generate sample-only", "", "write the verb sample before the flags"),
    ("num-workers workers j n-workers pin-memory", "", "the process reads its batches by itself: leave the flag out"),
    ("fp16 bf16 amp precision mixed-precision half", "dtype", ""),
    ("ema ema-rate ema-beta use-ema", "ema-decay", ""),
    ("grad-clip clip clip-grad max-norm max-grad-norm gradient-clip", "clip-norm", ""),
    ("wd decay", "weight-decay", ""),
    ("warmup warm-up lr-warmup num-warmup-steps", "warmup-steps", ""),
    ("scheduler lr-schedule lr-scheduler", "schedule", ""),
    ("grad-accum accumulate gradient-accumulation-steps accum-iter", "accumulate-steps", ""),
    ("log-interval log-freq print-freq logging-steps log-steps", "log-every", ""),
    ("save-every save-interval save-freq save-steps eval-every eval-interval eval-freq", "checkpoint-every", ""),
    ("early-stopping early-stop", "patience", ""),
    ("wandb use-wandb mlflow tensorboard logger report-to", "tracker", ""),
    ("zdim z-dim nz z latent latent-size code-dim", "latent-dim", ""),
    ("hidden-dim hidden-size hidden-dims width h-dim", "hidden features", ""),
    ("k num-importance-samples iwae-samples n-importance", "importance-samples", ""),
    ("num-samples n-samples n nsamples", "num", ""),
    ("timesteps num-timesteps t n-timesteps noise-steps", "diffusion-steps", ""),
    ("cfg cfg-scale guidance-scale w", "guidance", "w here is the guidance scale of other libraries minus 1"),
    ("sampling-steps sample-steps ddim-steps num-inference-steps", "sampler.steps", ""),
    ("class y cls class-label", "label", ""),
    ("temp tau", "temperature", ""),
    ("arch model net backbone", "network", ""),
    ("kl-weight kl kl-beta", "beta", ""),
)
NAMES = {name: Known(tuple(flags.split()), note) for names, flags, note in _ROWS for name in names.split()}


def flags_of(args: Any) -> list[str]:
    """Returns the flags that tyro makes of a dataclass, or of an instance with the defaults, e.g. "--train.steps"."""
    return list(fields_of(args))


def fields_of(args: Any, prefix: str = "--") -> dict[str, tuple[Any, Any]]:
    """Returns the type of each flag, with its marks, and its default, which is None if it has none."""
    found = {}
    hints = typing.get_type_hints(args if isinstance(args, type) else type(args), include_extras=True)
    for field in dataclasses.fields(args):
        # `tyro.conf.arg(name=...)`; the empty name puts a section's flags beside the others.
        given = [mark.name for mark in getattr(hints[field.name], "__metadata__", ()) if hasattr(mark, "name")]
        named = [name for name in given if name is not None]
        name, value = named[0] if named else field.name.replace("_", "-"), getattr(args, field.name, None)
        if dataclasses.is_dataclass(value):
            found |= fields_of(value, f"{prefix}{name}." if name else prefix)
        else:
            found[f"{prefix}{name}"] = hints[field.name], value
    return found


def message(unknown: Sequence[str], flags: Iterable[str], program: str) -> str:
    """Returns what is wrong with arguments that a command does not know, and what to type instead.

    Args:
        unknown: the arguments, flags and their values.
        flags: the flags that the command has, e.g. "--train.steps".
        program: the command, e.g. "python -m experiments.vae train".
    """
    wrong = [word.partition("=")[0] for word in unknown if re.match(r"--?[^\W\d]", word)]
    if not wrong:
        return f"{program} takes no argument {unknown[0]!r}: leave it out, or write the flag that it belongs to."
    flags = sorted(set(flags))
    if wrong[0] in flags:  # the parser hands back everything after --
        return f"{program} takes no -- before {wrong[0]}: leave the -- out."
    parts = [_about(word, flags) for word in dict.fromkeys(wrong)]
    return " ".join([*parts, f"{program} --help lists all flags."])


def _about(word: str, flags: Sequence[str]) -> str:
    found, note = suggestions(word, flags)
    text = f"there is no flag {word}"
    if found:
        text += f": did you mean {' or '.join(found)}?"
    if note:
        text += f" ({note})" if found else f": {note}"
    return text if text.endswith("?") else f"{text}."


def suggestions(word: str, flags: Sequence[str]) -> tuple[list[str], str]:
    """Returns flags to use instead of one that does not exist, and a note; both may be empty.

    Args:
        word: what was typed, e.g. "--lr".
        flags: the flags that exist.
    """
    typed = word.lstrip("-").lower().replace("_", "-")
    last = typed.rpartition(".")[2]
    known = NAMES.get(typed) or NAMES.get(last) or Known()
    # The same section first: --optimizer.lr is of the optimiser.
    section = [flag for flag in flags if "." in typed and flag.startswith(f"--{typed.rpartition('.')[0]}.")]
    found = [flag for end in known.flags for flag in (*section, *flags) if _ends(flag, end)]
    found += [flag for flag in flags if _ends(flag, last)]
    if not found:
        found = _near(typed, last, flags)
    return list(dict.fromkeys(found))[:_MOST], known.note if found or not known.flags else ""


def _ends(flag: str, end: str) -> bool:
    return flag == f"--{end}" or flag.endswith(f".{end}")


def _near(typed: str, last: str, flags: Sequence[str]) -> list[str]:
    """Returns flags of a similar spelling, by their whole names and by their last parts."""
    names = {flag.lstrip("-"): flag for flag in flags}
    near = [names[name] for name in difflib.get_close_matches(typed, names, n=_MOST, cutoff=0.75)]
    ends: dict[str, list[str]] = {}
    for flag in flags:
        ends.setdefault(flag.lstrip("-").rpartition(".")[2], []).append(flag)
    for end in difflib.get_close_matches(last, ends, n=_MOST, cutoff=0.75):
        near += ends[end]
    # Words that another project puts around ours, e.g. --train-batch-size-per-device.
    near += [flag for end, found in ends.items() if "-" in end and end in last for flag in found]
    return near
