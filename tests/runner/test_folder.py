"""The files of a run's folder."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import types

import pytest

from experiments import vae
from gm_jax import hashing, runner
from gm_jax.errors import UserError
from gm_jax.evaluation import results
from gm_jax.evaluation.results import Record
from gm_jax.runner import measure
from gm_jax.runner.folder import Folder
from tools import compare

REPO = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_no_command_writes_through_a_link(command, finished, tiny, tmp_path):
    """Whoever can put links into a folder must not overwrite files elsewhere by the hands of whoever uses the run."""
    elsewhere, before = tmp_path / "elsewhere", {}
    elsewhere.mkdir()
    files = [path for path in finished.rglob("*") if path.suffix in (".json", ".jsonl", ".png")]
    written = [path for path in files if "checkpoints" not in path.parts]
    assert len(written) > 8
    for index, path in enumerate(written):
        moved = path.replace(elsewhere / f"{index}-{path.name}")
        before[moved] = moved.read_bytes()
        path.symlink_to(moved)
        path.with_name(path.name + ".tmp").symlink_to(moved)
    Folder(finished).results.unlink()
    for arguments in ((*tiny,), ("evaluate", "--seed", "3"), ("sample", "--num", "4")):
        ended = command(*arguments, "--workdir", finished)
        assert ended.code == 0, ended.err
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before
    root = [path for path in written if path.parent == finished]
    assert [path.name for path in root if path.is_symlink()] == []


@pytest.mark.parametrize("name", ["samples", "tensorboard", "processes"])
def test_a_folder_in_a_run_that_is_a_link_is_refused_and_not_followed(name, command, tiny, tmp_path):
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / name).symlink_to(elsewhere)
    with pytest.raises(UserError, match=rf"{name} is a link: remove it"):
        Folder(run).create()
    (run / "config.json").unlink()
    ended = command("--workdir", run, *tiny)
    assert ended.code == 2
    assert len(ended.err.splitlines()) <= 3
    assert list(elsewhere.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_by_the_next_start(tmp_path):
    folder = Folder(tmp_path)
    for name in (".config.json.00.tmp", ".versions.json.00.tmp", ".metrics.jsonl.00.tmp", ".mine.tmp", "notes"):
        (tmp_path / name).touch()
    with folder.locked():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "notes"]


def test_writers_of_results_at_once_lose_no_record(finished):
    """Each reads, merges and writes: without a lock the last writer would drop what others wrote meanwhile."""
    run, failed = types.SimpleNamespace(folder=Folder(finished)), []

    def write(writer: int) -> None:
        try:
            for number in range(10):
                settings = {"writer": writer, "number": number}
                measure.write_results(run, [Record("n", 1.0, "nats", "exact", "d", "binary", "test", 1, settings)])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(record.name == "n" for record in results.read(finished / "results.json")) == 60


def test_an_evaluation_whose_reader_has_gone_is_written(finished, monkeypatch):
    (finished / "results.json").unlink()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        runner.main(vae.CONFIG, ["evaluate", "--workdir", str(finished)], module=vae)
    assert (finished / "results.json").exists()


def test_an_evaluation_that_cannot_be_written_is_shown(finished, command, monkeypatch):
    def refuse(path, records):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(results, "write", refuse)
    ended = command("evaluate", "--workdir", finished)
    assert ended.code == 2
    assert ended.err == f"error: Permission denied: {finished / 'results.json'}\n"
    assert "nll" in ended.out


def test_a_comparison_does_not_replace_the_results_of_a_run(finished):
    before = (finished / "results.json").read_bytes()
    with pytest.raises(UserError, match="holds a run, whose results"):
        compare.compare(compare.Config(workdir=finished))
    assert (finished / "results.json").read_bytes() == before


PICTURE = """
import dataclasses
from gm_jax import runner

@dataclasses.dataclass(frozen=True)
class Config:
    \"\"\"Draws.\"\"\"

def draw(config):
    from matplotlib.figure import Figure
    return Figure().subplots()

runner.program(Config, draw)
"""


def test_a_notebook_s_backend_of_matplotlib_is_left_out(tmp_path):
    (tmp_path / "picture.py").write_text(PICTURE)
    environment = os.environ | {"MPLBACKEND": "module://of_a_notebook.backend_inline", "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, tmp_path / "picture.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["gs://bucket/run", "s3://bucket/run", "gs:/bucket"])
def test_an_address_is_not_taken_for_a_folder(name, command, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for verb in ([*tiny], ["evaluate"], ["sample"]):
        ended = command(*verb, "--workdir", name)
        assert ended.code == 2
        assert ended.err.startswith(f"error: {name.replace(':/b', '://b')} is not a folder of this machine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "flag"), [("sample", "--output"), ("evaluate", "--weights"), ("plan", "--json"), ("plan", "--plot")]
)
def test_an_address_is_not_taken_for_a_path(verb, flag, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command(verb, flag, "gs://bucket/x.png")
    assert (ended.code, ended.err.splitlines()) == (
        2,
        ["error: gs://bucket/x.png is not a path of this machine: write to one, and copy the files afterwards."],
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a[b]", "a*", "what?", "a\\b", "a.__lock", "a.__lock/b", "not-utf8-\udcff"])
def test_a_folder_whose_checkpoints_could_not_be_read_back_is_refused(name, command, tiny, tmp_path):
    ended = command("--workdir", tmp_path / name, *tiny)
    assert ended.code == 2
    assert ended.err.startswith("error: cannot keep checkpoints in ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "100%", "a#b", "..a", "é", "x:y", "{a}", "~"])
def test_other_odd_names_are_taken(name, tmp_path):
    folder = Folder(tmp_path / name)
    folder.create()
    assert folder.root.is_dir()


def test_a_path_through_another_folder_or_a_link_is_that_of_the_folder(finished, command, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(finished)
    for path in (tmp_path / "x" / ".." / finished.name, tmp_path / "link"):
        assert Folder(path).root == finished
        ended = command("sample", "--num", "4", "--workdir", path)
        assert ended.code == 0, ended.err


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused_and_named(finished, command, tiny, tmp_path):
    """A run with another seed has checkpoints of the same shapes and, by the fingerprint, on the same data."""
    other = tmp_path / "other"
    stop = ("--train.steps", "20", "--train.seed", "1")
    assert command("--workdir", other, *tiny, *stop).code == 0
    shutil.rmtree(other / "checkpoints" / "20")
    (other / "results.json").unlink()
    shutil.copytree(finished / "checkpoints" / "60", other / "checkpoints" / "60")
    for arguments in ((*tiny, *stop), ("evaluate",), ("sample", "--checkpoint", "latest")):
        ended = command(*arguments, "--workdir", other)
        assert ended.code == 2
        assert f"checkpoint 60 in {other / 'checkpoints'} belongs to another run" in ended.err
        assert "move it away" in ended.err
        assert len(ended.err.splitlines()) == 3
    shutil.rmtree(other / "checkpoints" / "60")
    ended = command("--workdir", other, *tiny, *stop)
    assert ended.code == 0, ended.err
    assert "resuming from step 10 of 20" in ended.out


@pytest.mark.slow
def test_a_run_keeps_its_identity_and_a_run_of_an_earlier_version_needs_none(finished, command, tiny, state_hash):
    config = finished / "config.json"
    identity = json.loads(config.read_text())["identity"]
    assert len(identity) == 32
    shutil.rmtree(finished / "checkpoints" / "60")
    assert command("--workdir", finished, *tiny).code == 0
    assert json.loads(config.read_text())["identity"] == identity
    for manifest in (finished / "checkpoints").glob("*/manifest/metadata"):
        document = json.loads(manifest.read_text())
        assert document["manifest"].pop("run") == identity
        document["sha256"] = hashing.json_digest(document["manifest"])
        manifest.write_text(json.dumps(document))
    saved = json.loads(config.read_text())
    del saved["identity"]
    config.write_text(json.dumps(saved))
    before = state_hash(finished)
    shutil.rmtree(finished / "checkpoints" / "60")
    for arguments in (tiny, ["evaluate"]):
        ended = command(*arguments, "--workdir", finished)
        assert ended.code == 0, ended.err
    assert state_hash(finished) == before
    assert json.loads(config.read_text())["identity"] == ""


@pytest.mark.slow
def test_a_folder_without_a_checkpoint_protects_nothing(command, tiny, tmp_path):
    folder = tmp_path / "run"
    short = (*tiny, "--train.steps", "20")
    ended = command("--workdir", folder, *short, "--optimizer.learning-rate", "1e30")
    assert ended.code == 1
    assert f"No checkpoint was saved before it: train in {folder} again, with a smaller learning rate" in ended.err
    ended = command("--workdir", folder, *short)
    assert ended.code == 0, ended.err
    assert f"{folder} holds a run without a checkpoint, which is started again" in ended.out
    assert "resuming" not in ended.out


def test_checkpoints_on_a_disk_that_is_not_there_still_protect_their_run(finished, command, tiny, tmp_path):
    (finished / "checkpoints").rename(tmp_path / "disk")
    (finished / "checkpoints").symlink_to(tmp_path / "gone")
    before = (finished / "metrics.jsonl").read_bytes()
    ended = command("--workdir", finished, *tiny, "--train.seed", "5")
    assert ended.code == 2
    assert "checkpoints is a link to " in ended.err
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_constructor_never_makes_a_folder(tmp_path):
    with pytest.raises(UserError):
        Folder(tmp_path / "a[b]").create()
    Folder(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
