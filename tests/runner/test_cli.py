"""The command line: fast help, and for every mistake a few lines, exit code 2 and no file."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from experiments import ddpm, iwae, latent_diffusion, realnvp, vae
from gm_jax import signals
from gm_jax.config.saved import updated
from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.recipes.configs import DiTConfig, MLPConfig, SpatialAutoencoderConfig, UNetConfig
from gm_jax.runner import cli, evaluate, plan, sample, train

REPO = Path(__file__).resolve().parents[2]

ERRORS = [
    # flags and types
    (["--train.steps", "x"], "--train.steps takes a whole number, and 'x' is not one"),
    (["--trian.steps", "5"], "--train.steps"),
    (["--decoder", "gaussian"], "--decoder has no choice 'gaussian': it takes"),
    (["evalute"], "evalute"),
    (["evaluate", "--split", "all"], "--split has no choice 'all': it takes"),
    (["--hidden", "a"], "--hidden takes whole numbers, and 'a' is not one"),
    # numbers
    (["--train.steps", "0"], "train.steps must be at least 1, got 0"),
    (["--train.batch-size", "-8"], "train.batch-size must be at least 1"),
    (["--train.log-every", "0"], "train.log-every must be at least 1"),
    (["--train.seed", "-1"], "train.seed must be at least 0"),
    (["--optimizer.learning-rate", "-0.1"], "optimizer.learning-rate must be more than 0"),
    (["--optimizer.accumulate-steps", "0"], "optimizer.accumulate-steps must be at least 1"),
    (["--optimizer.schedule", "cosine", "--optimizer.warmup-steps", "60"], "the warm-up takes 60 of 60 updates"),
    (["--train.batch-size", "101"], "multiple of 2"),
    (["--train.batch-size", "101", "--train.parallel", "pmap"], "multiple of 2"),
    (["--train.batch-size", "1438"], "more than the 1437 examples"),
    (["--hidden"], "hidden must be at least one number, got ()"),
    (["--hidden", "16", "-8"], "hidden must be at least 1, got -8"),
    (["--latent-dim", "0"], "latent-dim must be at least 1, got 0"),
    (["--importance-samples", "0"], "importance-samples must be at least 1"),
    (["--beta", "nan"], "beta must be at least 0, got nan"),
    (["evaluate", "--importance-samples", "0"], "importance-samples must be at least 1, got 0"),
    # data
    (["--data.name", "mnits"], "Did you mean 'mnist'"),
    (["--data.name", "toy:two_moon"], "two_moons"),
    (["--data.name", "digit"], "Did you mean 'digits'"),
    (["--data.name", "mnist", "--data.dir", "/nowhere"], "not prepared in /nowhere"),
    (["--data.name", ""], "no data set"),
    # paths
    (["--workdir", "/tmp/" + "a" * 300], "File name too long: /tmp/aaa"),
    (["--data.name", "mnist", "--data.dir", "/tmp/" + "a" * 300], "aaa"),
    (["--workdir", "~nobody-of-this-name/run"], "starts at a home folder that does not exist: give the whole path"),
    (["evaluate", "--workdir", "/tmp/" + "a" * 300], "File name too long: /tmp/aaa"),
    # contradictions
    (["--data.name", "toy:pinwheel", "--decoder", "bernoulli"], "--decoder normal"),
    (["--binarization", "static"], "static is for binary data"),
    (
        ["--binarization", "threshold", "--data.name", "toy:pinwheel"],
        "--binarization has no effect on the normal decoder of toy:pinwheel: leave it out, or use --decoder bernoulli",
    ),
    (
        ["--log-var", "0"],
        "--log-var has no effect on the bernoulli decoder of digits: leave it out, or use",
    ),
    (["--network", "conv", "--hidden", "8", "8", "8", "8"], "8x8"),
    (["--network", "conv", "--data.name", "toy:pinwheel", "--decoder", "normal"], "images"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[" ".join(arguments) for arguments, _ in ERRORS])
def test_a_mistake_is_a_short_error_and_writes_nothing(arguments, message, command, tiny, tmp_path):
    verb = arguments[:1] if arguments[0] == "evaluate" else []
    rest = arguments[len(verb) :]
    ended = command(*verb, *(tiny if not verb else ()), "--workdir", tmp_path / "run", *rest)
    assert_mistake(ended, message)
    assert list(tmp_path.iterdir()) == []


def assert_mistake(ended, message: str) -> None:
    assert ended.code == 2, ended
    shown = " ".join(re.sub(r"[│|]", " ", ended.err).split())
    assert message in shown
    assert "Traceback" not in ended.err
    if "For full helptext" not in ended.err:  # what tyro prints is longer
        assert len(ended.err.splitlines()) <= 3
        assert ended.err.startswith("error: ")


def test_images_that_do_not_fit_the_network_are_refused_before_anything_is_written(
    command, tiny, tmp_path, monkeypatch
):
    def odd(name, data_dir=None, size=None):
        splits = {split: {"x": np.zeros((64, 30, 30, 1), np.uint8)} for split in ("train", "validation", "test")}
        return sources.Source(sources.Spec(name, (30, 30, 1), 256, None, "0" * 64), splits)

    monkeypatch.setattr(sources, "load", odd)
    ended = command(*tiny, "--workdir", tmp_path / "run", "--network", "conv", "--hidden", "8", "8")
    assert_mistake(ended, "images of 30x30 do not fit a convolutional network of 2 stages")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["evaluate", "sample"])
def test_a_missing_folder_an_empty_one_and_a_file_hold_no_run(verb, command, tmp_path):
    (tmp_path / "file").write_text("")
    for name in (".", "none", "none/deeper", "file"):
        assert_mistake(command(verb, "--workdir", tmp_path / name), "holds no run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["{", "[]", '{"experiment": "experiments.vae", "config": {}, "data": {}}'])
def test_a_damaged_configuration_is_a_mistake_for_every_verb(text, command, tiny, tmp_path):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    for arguments in (["evaluate"], ["sample"], [*tiny]):
        assert_mistake(command(*arguments, "--workdir", tmp_path), "configuration")
    assert (tmp_path / "config.json").read_text() == text


def test_a_run_without_a_checkpoint_has_nothing_to_evaluate(finished, command):
    for checkpoint in (finished / "checkpoints").iterdir():
        checkpoint.rename(finished / checkpoint.name)
    assert_mistake(command("evaluate", "--workdir", finished), "holds no checkpoint yet")


def test_a_folder_of_another_experiment_is_refused_by_every_verb(finished, command, tiny, contents):
    before = contents(finished)
    for arguments in (["evaluate"], ["sample"], [*tiny]):
        ended = command(*arguments, "--workdir", finished, experiment=iwae)
        assert_mistake(ended, "experiments.vae" if arguments == [*tiny] else "another experiment")
    assert contents(finished) == before


def test_defaults_of_a_chosen_section_need_no_argument_and_its_flags_need_the_choice():
    assert cli._with_chosen_sections(ddpm.CONFIG, []).network is None
    assert isinstance(cli._with_chosen_sections(ddpm.CONFIG, ["--network", "mlp"]).network, MLPConfig)
    with pytest.raises(UserError, match="add --network unet or mlp"):
        cli._with_chosen_sections(ddpm.CONFIG, ["--network.features", "8"])


def test_both_stages_of_latent_diffusion_are_chosen_by_flags():
    def parsed(*argv):
        return cli.parse(latent_diffusion.CONFIG, argv, module=latent_diffusion)[1].config

    assert parsed() == latent_diffusion.CONFIG
    config = parsed(
        "--autoencoder", "spatial", "--autoencoder.channels", "8", "--network=unet", "--network.blocks", "2"
    )
    assert config.autoencoder == SpatialAutoencoderConfig(channels=8)
    assert config.network == UNetConfig(blocks=2)
    assert config.optimizer == latent_diffusion.CONFIG.optimizer
    assert parsed("--network", "dit").network == DiTConfig()
    # The flags of a kind are those of the chosen one, and of the default if none is chosen.
    assert parsed("--autoencoder.latent-dim", "4").autoencoder.latent_dim == 4
    for argv, message in (
        (["--autoencoder.channels", "8"], "--autoencoder.channels"),
        (["--autoencoder", "spatial", "--autoencoder.latent-dim", "8"], "--autoencoder.latent-dim"),
        (["--autoencoder", "spacial"], "spacial"),
    ):
        with pytest.raises((UserError, SystemExit), match=message):
            parsed(*argv)


def test_a_folder_that_holds_something_else_is_refused(command, tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    assert_mistake(command(*tiny, "--workdir", tmp_path), "holds thesis.tex, but no run: choose another --workdir")
    assert_mistake(command(*tiny, "--workdir", tmp_path / "thesis.tex"), "holds thesis.tex, but no run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    for name in "abc":
        (tmp_path / name).touch()
    assert_mistake(command(*tiny, "--workdir", tmp_path), "holds a, b, c and 1 more, but no run")


def test_a_folder_that_cannot_be_made_or_written_is_refused(command, tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert_mistake(command(*tiny, "--workdir", tmp_path / "file" / "run"), "cannot write to")
    # Root may write anywhere: this is the answer for other users.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_mistake(command(*tiny, "--workdir", tmp_path / "run"), "Permission denied")


def test_a_path_that_tensorstore_cannot_write_to_is_refused(command, tiny, tmp_path):
    assert_mistake(command(*tiny, "--workdir", tmp_path / "a\\b"), "backslash")
    assert list(tmp_path.iterdir()) == []


def test_damaged_records_are_named(finished, command, tiny):
    (finished / "versions.json").write_text("[")
    assert_mistake(command(*tiny, "--workdir", finished), "versions.json is damaged")
    (finished / "results.json").write_text("[1]")
    ended = command("evaluate", "--workdir", finished)
    assert_mistake(ended, "results.json is damaged")
    assert "nll" in ended.out  # the table is printed all the same


def test_numbers_of_evaluate_and_sample_are_checked_against_their_ranges(command, tmp_path):
    for arguments, message in (
        (["sample", "--num", "0"], "num must be at least 1, got 0"),
        (["sample", "--seed", "-1"], "seed must be at least 0"),
        (["evaluate", "--batch-size", "0"], "batch-size must be at least 1"),
        (["evaluate", "--seed", str(2**32)], "seed must be at least 0 and less than"),
    ):
        assert_mistake(command(*arguments, "--workdir", tmp_path), message)


def test_two_processes_cannot_train_in_one_folder(finished, command, tiny):
    from gm_jax.runner.folder import Folder

    with Folder(finished).locked():
        assert_mistake(command(*tiny, "--workdir", finished), "another process is training")
    with contextlib.suppress(UserError), Folder(finished).locked():
        return
    pytest.fail("the lock outlived its process")


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UserError("a\nb\nc\nd"), 2, "error: a\nb\nc\n"),
        (OSError(28, "No space left on device", "/x"), 2, "error: No space left on device: /x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_of_a_verb_becomes_an_exit_code(error, code, shown, command, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(train, "train_run", fail)
    ended = command("--workdir", tmp_path)
    assert (ended.code, ended.err) == (code, shown)


@pytest.mark.parametrize(("error", "why"), [(AssertionError(), ""), (RuntimeError("no chip\nx"), " (no chip)")])
def test_a_platform_that_is_not_there_is_a_mistake(error, why, command, monkeypatch, tmp_path):
    def fail(*args):
        raise error

    monkeypatch.setattr(train, "train_run", fail)
    monkeypatch.setattr("jax.devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert_mistake(command("--workdir", tmp_path), f"jax cannot start JAX_PLATFORMS=cuda here{why}: unset")
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(type(error)):
        cli.main(vae.CONFIG, ["--workdir", str(tmp_path)], module=vae)


@pytest.mark.parametrize(
    ("verb", "flag"),
    [("train", "workdir"), ("evaluate", "workdir"), ("evaluate", "weights"), ("sample", "output"), ("plan", "plot")],
)
def test_a_tilde_is_the_home_folder_in_every_path(verb, flag, command, monkeypatch, tmp_path):
    seen = []
    module = {"train": train, "evaluate": evaluate, "sample": sample, "plan": plan}[verb]
    monkeypatch.setattr(module, f"{verb}_run", lambda *args: seen.append(args))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command(verb, f"--{flag}", "~/x").code == 0
    given = seen[0][2] if verb == "train" else getattr(seen[0][-1], flag)
    assert given == tmp_path / "x"


def test_a_tilde_is_the_home_folder_in_the_paths_of_other_programs(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setenv("HOME", str(tmp_path))
    cli.program(evaluate.EvaluateArgs, seen.append, ["--workdir", "~/x"])
    assert seen[0].workdir == tmp_path / "x"


def test_a_defect_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(*args):
        raise FileNotFoundError(2, "a defect", "/x")

    monkeypatch.setattr(train, "train_run", fail)
    with pytest.raises(FileNotFoundError):
        cli.main(vae.CONFIG, ["--workdir", str(tmp_path)], module=vae)


def test_an_unknown_verb_is_named(command):
    ended = command("evalute")
    assert ended.code == 2
    assert "there is no verb 'evalute': use one of train, evaluate, sample, plan" in ended.err


def test_the_verb_train_may_be_named_or_not(command, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train, "train_run", lambda *args: seen.append(args[:3]))
    for verb in ([], ["train"]):
        assert command(*verb, "--workdir", tmp_path, "--train.steps", "7").code == 0
    assert seen[0] == seen[1]
    assert seen[0][0] == "experiments.vae"
    assert seen[0][1] == updated(vae.CONFIG, {"train": {"steps": 7}})
    assert json.dumps(str(seen[0][2])) == json.dumps(str(tmp_path))


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No flags."""


class Interrupted:
    """Receives a signal where Python discards every exception."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_program_that_is_no_experiment_with_one_line(number, capsys, hangups_count):
    done = []

    def run(config):
        Interrupted(number)
        done.append("what it was at")
        signals.check()
        done.append("what came after")

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as exit_:
        cli.program(Nothing, run, [])
    assert (exit_.value.code, *capsys.readouterr()) == (130, "", "interrupted\n")
    assert done == ["what it was at"]
    assert signal.getsignal(number) is before


def test_points_have_defaults_of_their_own_and_flags_go_before_them():
    def parsed(*arguments):
        return cli.parse(realnvp.CONFIG, arguments, module=realnvp)[1]

    for name in ("--data.name=toy:pinwheel", "--data.name toy:pinwheel", "--data.name digits --data.name toy:pinwheel"):
        args = parsed(*name.split(), "--train.batch-size", "100")
        steps = realnvp.POINTS.train.steps
        assert (args.config.data.name, args.config.train.steps, args.config.train.batch_size) == (
            "toy:pinwheel",
            steps,
            100,
        )
        assert args.workdir == Path("runs/realnvp-pinwheel")
    assert parsed("--data.name", "mnist").config == updated(realnvp.CONFIG, {"data": {"name": "mnist"}})
    assert parsed().config == realnvp.CONFIG
    assert parsed().workdir == Path("runs/realnvp")


def test_the_list_of_experiments_outlives_its_reader():
    listing = f"{sys.executable} -m experiments"
    for command, shown in ((f"set -o pipefail; {listing} | head -1", 1), (f"{listing} >&-", 0)):
        done = subprocess.run(["bash", "-c", command], cwd=REPO, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", shown)


@pytest.mark.parametrize(
    ("file", "folder", "name"),
    [
        (REPO / "experiments" / "vae.py", REPO, "experiments.vae"),
        (REPO / "experiments" / "vae.py", REPO / "experiments", "vae"),
        (REPO / "experiments" / "vae.py", REPO / "tests", "vae"),
        (REPO / "my-runs" / "mine.py", REPO, "mine"),
        ("<stdin>", REPO, "stdin"),
        (None, REPO, "notebook"),
    ],
    ids=str,
)
def test_a_program_that_is_given_as_a_file_shows_the_command_that_starts_it_here(
    file, folder, name, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    program = types.ModuleType("__main__", "A model.")
    if file is not None:
        program.__file__ = str(file)
    with pytest.raises(SystemExit):
        cli.parse(vae.CONFIG, ["--help"], module=program)
    assert capsys.readouterr().out.startswith(f"usage: python -m {name} train ")
