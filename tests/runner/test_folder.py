"""The files of a run's folder."""

from gm_jax.runner.folder import Folder


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


def test_what_a_killed_writer_left_is_removed_by_the_next_start(tmp_path):
    folder = Folder(tmp_path)
    for name in (".config.json.00.tmp", ".versions.json.00.tmp", ".metrics.jsonl.00.tmp", ".mine.tmp", "notes"):
        (tmp_path / name).touch()
    with folder.locked():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "notes"]
