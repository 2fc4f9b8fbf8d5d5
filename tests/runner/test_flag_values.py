"""A value that a flag cannot take: one line names the flag, the value and what the flag takes."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import pytest

from experiments import ddpm, jem
from gm_jax.config import Count, Rate, Widths
from gm_jax.errors import UserError
from gm_jax.runner import flag_values


@dataclasses.dataclass(frozen=True)
class Section:
    rate: Rate = 0.1
    warmup_steps: Count | None = None
    clip_norm: Rate | None = 1.0


@dataclasses.dataclass(frozen=True)
class Flags:
    path: Path
    steps: Count = 100
    widths: Widths = (8, 8)
    hidden: Widths | None = None
    factors: tuple[Rate, ...] = ()
    method: Annotated[Literal["ddim", "heun", "euler"], "a mark"] = "heun"
    preset: Literal["mnist"] | None = None
    text: str | None = None
    flip: bool = False
    section: Section = Section()


REFUSED = [
    (["--steps", "abc"], "--steps takes a whole number, and 'abc' is not one: for example --steps 100."),
    (["--steps=1e3"], "--steps takes a whole number, and '1e3' is not one: for example --steps 100."),
    (
        ["--section.rate", "fast"],
        "--section.rate takes a number, and 'fast' is not one: for example --section.rate 0.1.",
    ),
    (
        ["--section.warmup-steps", "few"],
        "--section.warmup-steps takes a whole number, and 'few' is not one: leave the flag out for its default.",
    ),
    (
        ["--section.warmup_steps", "few"],
        "--section.warmup-steps takes a whole number, and 'few' is not one: leave the flag out for its default.",
    ),
    (
        ["--section.clip-norm", "x"],
        "--section.clip-norm takes a number or None, and 'x' is neither: for example --section.clip-norm 1.0.",
    ),
    (["--hidden", "x"], "--hidden takes whole numbers, and 'x' is not one: leave the flag out for its default."),
    (
        ["--widths", "4", "wide", "--flip"],
        "--widths takes whole numbers, and 'wide' is not one: for example --widths 8 8.",
    ),
    (["--factors", "1.0", "0,1"], "--factors takes numbers, and '0,1' is not one."),
    (["--method", "ddmi"], "--method has no choice 'ddmi': did you mean ddim? It takes ddim, heun or euler."),
    (["--method", "x"], "--method has no choice 'x': it takes ddim, heun or euler."),
    (["--preset", "minst"], "--preset has no choice 'minst': did you mean mnist? It takes mnist or None."),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(one) for one, _ in REFUSED])
def test_a_value_of_another_kind_is_refused_with_what_the_flag_takes(arguments, message):
    with pytest.raises(UserError) as error:
        flag_values.check(arguments, Flags)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "5", "--section.rate", "1e-3", "--section.warmup-steps", "None", "--widths", "4", "4", "-8"],
        ["--section.rate", "-1", "--factors", "--method", "euler", "--preset=None", "--text", "abc", "--no-flip"],
        ["--hidden", "None", "--section.clip-norm", "None", "--steps", "3"],
        ["--hidden=None"],
        ["--steps"],
        ["--steps", "--flip"],
        ["--steps", "x", "--help"],
        ["--unknown", "x"],
        ["--", "--steps", "x"],
        ["--path", "x", "--flip", "x"],
    ],
)
def test_what_the_parser_reads_or_refuses_by_itself_is_left_to_it(arguments):
    flag_values.check(arguments, Flags)
    flag_values.check(arguments, Flags(Path()))


@pytest.mark.parametrize(
    ("experiment", "arguments", "message"),
    [
        (jem, ["sample", "--label", "seven"], "--label takes a whole number, and 'seven' is not one"),
        (ddpm, ["--train.batch-size", "many"], "--train.batch-size takes a whole number, and 'many' is not one"),
        (ddpm, ["--sampler.method", "ddmi"], "--sampler.method has no choice 'ddmi': did you mean ddim? It takes"),
        (ddpm, ["--network", "unet", "--network.features", "a"], "--network.features takes whole numbers"),
        (ddpm, ["evaluate", "--split", "all"], "--split has no choice 'all': it takes"),
        (ddpm, ["plan", "--train.steps", "x"], "--train.steps takes a whole number, and 'x' is not one"),
    ],
)
def test_every_verb_answers_in_one_line_and_with_code_2(experiment, arguments, message, command):
    ended = command(*arguments, experiment=experiment)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {message}")
    assert len(ended.err.splitlines()) == 1
