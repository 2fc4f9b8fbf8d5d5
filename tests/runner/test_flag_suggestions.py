"""A flag that does not exist: the message names the right one."""

import importlib
import itertools
import re
from pathlib import Path

import pytest

from gm_jax.runner import cli, evaluate, flag_suggestions, plan, sample, train
from gm_jax.runner.flag_suggestions import message, suggestions

REPO = Path(__file__).resolve().parents[2]
EXPERIMENTS = [path.stem for path in (REPO / "experiments").glob("[a-z]*.py")]
TRAIN = [
    *("--data.name", "--data.dir", "--data.size", "--train.steps", "--train.batch-size", "--train.seed", "--workdir"),
    *("--train.parallel", "--train.steps-per-call", "--optimizer.learning-rate", "--optimizer.warmup-steps"),
    *("--optimizer.eps", "--optimizer.accumulate-steps", "--latent-dim", "--train.log-every", "--hidden"),
]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("--lr", ["--optimizer.learning-rate"]),
        ("--learning_rate", ["--optimizer.learning-rate"]),
        ("--optimizer.lr", ["--optimizer.learning-rate"]),
        ("--epochs", ["--train.steps"]),
        ("--steps", ["--train.steps"]),
        ("--batch-size", ["--train.batch-size"]),
        ("--batch_size", ["--train.batch-size"]),
        ("-b", ["--train.batch-size"]),
        ("--seed", ["--train.seed"]),
        ("--device", ["--train.parallel"]),
        ("--gpu", ["--train.parallel"]),
        ("--output", ["--workdir"]),
        ("--logdir", ["--workdir"]),
        ("--work-dir", ["--workdir"]),
        ("--dataset", ["--data.name"]),
        ("--data-dir", ["--data.dir"]),
        ("--Z_Dim", ["--latent-dim"]),
        ("--trian.steps", ["--train.steps"]),
        ("--train.step", ["--train.steps"]),
        ("--train.stpes-per-call", ["--train.steps-per-call"]),
        ("--hiden", ["--hidden"]),
        ("--leraning-rate", ["--optimizer.learning-rate"]),
        ("--model.latent-dim", ["--latent-dim"]),
        ("--zzz", []),
    ],
)
def test_the_right_flag_is_suggested_first(typed, found):
    assert suggestions(typed, TRAIN)[0][:1] == found


def test_every_player_of_a_gan_has_a_learning_rate():
    flags = ["--discriminator.learning-rate", "--generator.learning-rate", "--train.steps"]
    assert suggestions("--lr", flags)[0] == flags[:2]
    assert suggestions("--generator.lr", flags)[0][0] == "--generator.learning-rate"


def test_the_message_is_one_line_with_all_that_is_wrong():
    text = message(["--lr", "0.1", "--epochs=3", "--lr", "-2"], TRAIN, "python -m experiments.vae train")
    assert text == (
        "there is no flag --lr: did you mean --optimizer.learning-rate? there is no flag --epochs: did you mean "
        "--train.steps? (an epoch is the training examples / batch size steps). "
        "python -m experiments.vae train --help lists all flags."
    )
    assert message(["--num-workers", "3"], TRAIN, "p").startswith(
        "there is no flag --num-workers: the process reads its batches by itself: leave the flag out."
    )
    assert message(["-0.5"], TRAIN, "p") == (
        "p takes no argument '-0.5': leave it out, or write the flag that it belongs to."
    )


@pytest.fixture(scope="module")
def every_flag():
    """The flags of all verbs of all experiments."""
    found = set()
    for name in EXPERIMENTS:
        config = importlib.import_module(f"experiments.{name}").CONFIG
        where = Path("runs")
        for flags in (
            train.flags(config, where, ""),
            evaluate.flags(type(config), where),
            sample.flags(type(config), where),
            plan.flags(config, where),
        ):
            found |= set(flag_suggestions.flags_of(flags))
    return found


def test_flags_after_two_dashes_are_not_said_to_be_unknown(command):
    for dashes in (["--"], ["--hidden", "8", "--"]):
        ended = command(*dashes, "--train.steps", "20", "--workdir", "x")
        assert ended.code == 2
        assert ended.err.endswith("takes no -- before --train.steps: leave the -- out.\n")


def test_every_name_of_other_projects_leads_to_a_flag_that_exists(every_flag):
    for typed, known in flag_suggestions.NAMES.items():
        assert known.flags or known.note, typed
        for end in known.flags:
            assert any(flag == f"--{end}" or flag.endswith(f".{end}") for flag in every_flag), (typed, end)


@pytest.mark.parametrize("verb", ["train", "evaluate", "sample", "plan"])
def test_the_flags_that_are_known_are_those_of_the_help(verb, command):
    name = "ddpm_conditional"
    experiment = importlib.import_module(f"experiments.{name}")
    chosen = ["--network", "mlp"] if verb in ("train", "plan") else []
    text = command(verb, *chosen, "--help", experiment=experiment).out
    shown = set(re.findall(r"^[│| ] (?:-h, )?(--[a-z][\w.-]*)", text, flags=re.MULTILINE)) - {"--help"}
    _, args = cli.parse(experiment.CONFIG, [verb, *chosen], module=experiment)
    assert set(flag_suggestions.flags_of(args)) == shown


def test_a_wrong_flag_ends_every_command_with_code_2(command):
    for arguments, text in (
        (["--lr", "0.1"], "no flag --lr: did you mean --optimizer.learning-rate?"),
        (["evaluate", "--ckpt", "latest"], "no flag --ckpt: did you mean --checkpoint"),
        (["sample", "--num-samples", "3"], "no flag --num-samples: did you mean --num?"),
        (["plan", "--batch-size", "3"], "no flag --batch-size: did you mean --train.batch-size?"),
    ):
        ended = command(*arguments)
        assert ended.code == 2
        assert ended.err.startswith("error: there is ")
        assert text in ended.err
        assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["vae", "ddpm_conditional", "gan"])
def test_the_help_has_no_line_breaks_of_the_source(name, command):
    experiment = importlib.import_module(f"experiments.{name}")
    text = command("--help", experiment=experiment).out
    lines = [line.strip(" │|") for line in text.splitlines()]
    short = [
        (line, following)
        for line, following in itertools.pairwise(lines)
        if line and following and line[0] != "-" and line[-1].isalpha() and following[0].islower() and len(line) < 30
    ]
    assert short == []
