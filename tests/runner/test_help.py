"""The help of every command: each flag is described, and only flags that have an effect are offered."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import beta_vae, iwae, vae
from gm_jax.runner import evaluate, sample

EXPERIMENTS = (vae, beta_vae, iwae)
REPO = Path(__file__).resolve().parents[2]

HELP = """
import contextlib, io, runpy, sys
verbs = [["--help"], ["train", "--help"], ["evaluate", "--help"], ["sample", "--help"]]
for sys.argv[1:] in verbs:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        assert exit_.code == 0, exit_.code
    assert "--workdir" in text.getvalue(), text.getvalue()
heavy = {"jax", "numpy", "flax", "optax", "orbax", "tensorflow_datasets", "sklearn", "matplotlib", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_help_of_every_verb_imports_nothing_heavy(experiment):
    code = f"import sys; sys.argv = [{experiment.__name__!r}]\n{HELP}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "experiment", "args"),
    [
        *(([], experiment, experiment.CONFIG) for experiment in EXPERIMENTS),
        (["evaluate"], vae, evaluate.EvaluateArgs(workdir=Path("."))),
        (["sample"], vae, sample.SampleArgs(workdir=Path("."))),
    ],
)
def test_every_flag_is_described(arguments, experiment, args, command):
    text = " ".join(re.sub(r"[│|]", " ", command(*arguments, "--help", experiment=experiment).out).split())
    for flag in flags(args):
        described = re.split(f"{flag}[ ,]", text, maxsplit=1)[1].split("(default")[0]
        words = [word for word in described.split() if re.fullmatch("[a-z]+[.,:;]?", word)]
        assert words, (flag, described)


def flags(config: object, prefix: str = "--") -> list[str]:
    found = []
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        found += flags(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return found


def test_the_experiments_docstring_heads_its_help(command):
    assert "The variational autoencoder (Kingma & Welling" in command("--help").out


def test_evaluate_has_flags_for_the_fields_that_only_measure(command):
    train_help, evaluate_help = (
        " ".join(re.sub(r"[│|]", " ", command(verb, "--help").out).split()) for verb in ("train", "evaluate")
    )
    text = re.search("--importance-samples .*?(K of .*?[.])", train_help)[1]
    assert text in evaluate_help
    assert "default is None, take the value of the run" in evaluate_help
    for flag in ("--latent-dim", "--validation-samples", "--train.steps"):
        assert flag in train_help
        assert flag not in evaluate_help


def test_an_experiment_has_no_flag_for_what_its_objective_lacks(command):
    assert "--beta" in command("--help", experiment=beta_vae).out
    assert "--beta" not in command("--help", experiment=iwae).out
