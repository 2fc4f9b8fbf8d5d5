"""The pages of README.md and docs/, and the commands in them, for the tests of both."""

import importlib
import re
import shlex
from pathlib import Path

import tyro

from benchmarks import command as benchmark_command
from benchmarks.accelerator import __main__ as accelerator
from gm_jax.runner import cli

REPO = Path(__file__).parents[1]
PAGES = [
    REPO / "README.md",
    REPO / "CONTRIBUTING.md",
    REPO / "benchmarks/README.md",
    *sorted(REPO.glob("docs/**/*.md")),
]
WITH_CODE = [page for page in PAGES if page.parent != REPO and "```python" in page.read_text(encoding="utf-8")]
# What a loop of the shell, or a word for the reader to fill in, stands for.
SAMPLE_VALUES = {"$name": "vae", "$seed": "0", "$id": "0", "experiments.NAME": "experiments.vae", "NAME": "digits-cnn"}


def name_of(page):
    return page.relative_to(REPO).as_posix()


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands_of(text):
    """The commands `python -m MODULE ...` in a text, a list of words each: of sh blocks, and between backticks."""
    scripts = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    scripts += [" ".join(span.split()) for span in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose)]
    for script in scripts:
        for line in script.replace("\\\n", " ").splitlines():
            if "python -m" in line:
                yield from commands_in(line)


def commands_in(line):
    """The commands `python -m MODULE ...` in a line of a script."""
    for value, sample in SAMPLE_VALUES.items():
        line = line.replace(value, sample)
    words = shlex.split(line.replace(";", " ; ").replace("`", " ; "), comments=True)
    ends = [i for i, word in enumerate(words) if word in (";", "&", "&&", "done", "|")] + [len(words)]
    for start in (i for i, word in enumerate(words) if re.fullmatch(r"(.*/)?python3?", word)):
        command = words[start : min(end for end in ends if end >= start)]
        if command[1:2] == ["-m"] and re.fullmatch(r"(experiments|tools|benchmarks)\.\w[\w.]*", command[2]):
            yield command[2:]


def parse(command):
    """Parses a command as the program would: SystemExit or UserError if it does not."""
    module = importlib.import_module(command[0])
    if command[0].startswith("experiments."):
        cli.parse(module.CONFIG, command[1:], module=module)
    elif command[0].startswith("benchmarks.accelerator"):
        getattr(module, "parse", accelerator.parse)(command[1:])
    elif command[0].startswith("benchmarks."):
        tyro.cli(getattr(module, "Args", benchmark_command.Args), args=command[1:])
    elif hasattr(module, "Config") and command[1:]:  # without flags, a page names the command
        tyro.cli(module.Config, args=command[1:])
