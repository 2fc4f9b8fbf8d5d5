"""The files of a run's folder.

config.json       the recipe, the configuration and the Spec of the data
versions.json     versions, git commit, devices and fingerprint of the data, one entry per start
metrics.jsonl     one line of metrics per logging interval
results.json      every number that was measured, with its unit, kind, data, split and number of examples
evaluated.json    which state was evaluated, with which settings, so that a finished run shows its results at once
checkpoints/      Orbax checkpoints, one folder per step
samples/          grids of samples over time
*.png, *.gif      the pictures of the last evaluation
tensorboard/      the same scalars and sample grids as events
processes/        heartbeats, if several processes train together
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from gm_jax.errors import UserError
from gm_jax.files import address, is_temporary, make_folder, read_json, write_text
from gm_jax.runner import hardware

# What the environment can set (JAX_ENABLE_X64, ...) and changes numbers.
_JAX_SETTINGS = (
    *("jax_default_matmul_precision", "jax_default_prng_impl", "jax_enable_x64", "jax_numpy_dtype_promotion"),
    *("jax_random_seed_offset", "jax_threefry_partitionable"),
)

_LOG = logging.getLogger(__name__)

_PACKAGES = ("gm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


class Folder:
    """The paths of one run."""

    def __init__(self, root: Path):
        """Names the paths of the run in a folder, which need not exist.

        Raises:
            UserError: checkpoints there could not be read back.
        """
        _refuse_address(root)
        self.root = Path(os.path.realpath(root))  # TensorStore takes no ".." in a path
        _refuse_unreadable(self.root)
        self.config = self.root / "config.json"
        self.versions = self.root / "versions.json"
        self.metrics = self.root / "metrics.jsonl"
        self.results = self.root / "results.json"
        self.evaluated = self.root / "evaluated.json"
        self.checkpoints = self.root / "checkpoints"
        self.samples = self.root / "samples"
        self.tensorboard = self.root / "tensorboard"
        self.processes = self.root / "processes"

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()

    def holds_checkpoint(self) -> bool:
        """Whether a run has saved something here, be it damaged now."""
        if self.checkpoints.is_symlink() and not self.checkpoints.exists():
            raise UserError(f"{self.checkpoints} is a link to {os.readlink(self.checkpoints)}, which is not there.")
        if not self.checkpoints.is_dir():
            return False
        names = (path.name for path in self.checkpoints.iterdir())
        return any((name.isascii() and name.isdecimal()) or name.startswith("damaged-") for name in names)

    def foreign_files(self) -> list[str]:
        """Returns the names of what a folder without a run holds, sorted; of the folder itself if it is a file."""
        if self.holds_run() or not self.root.exists():
            return []
        if not self.root.is_dir():
            return [self.root.name]
        # A run that was killed while it wrote its first file has left only that.
        return sorted(path.name for path in self.root.iterdir() if not is_temporary(path, of=self.config))

    def create(self) -> None:
        """Makes the folder.

        Raises:
            UserError: the folder cannot be made or written to, or a folder in it is a link.
        """
        if any(character in str(self.root) for character in "*?["):
            raise UserError(
                f"cannot keep checkpoints in {self.root}, because Orbax takes *, ? and [ for a pattern: choose "
                "another --workdir."
            )
        try:
            make_folder(self.root)
            for folder in (self.samples, self.tensorboard, self.processes):
                if folder.is_symlink():  # files of the run would appear, and vanish, where it leads
                    raise UserError(f"{folder} is a link: remove it, or choose another --workdir.")
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise UserError(f"cannot write to {self.root}: {error.strerror}. Choose another --workdir.") from None

    def remove_remains(self) -> None:
        """Removes what a run without a checkpoint has left and a new run would show as its own: pictures and events."""
        for folder in (self.samples, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        self.metrics.unlink(missing_ok=True)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Explains the errors of a block that works in the folder, if they come from its removal.

        Raises:
            UserError: the folder was removed or moved away.
        """
        try:
            yield
        except OSError:
            self.refuse_removed()
            raise

    def refuse_removed(self) -> None:
        """Refuses to go on without the folder, before anything makes half of it again.

        Raises:
            UserError: the folder was removed or moved away.
        """
        if not self.holds_run():
            raise UserError(
                f"{self.root} was removed or moved away while it was in use: nothing more can be saved there.\n"
                "Put it back and repeat the command to resume, or remove what is left of it to start again."
            )

    @contextlib.contextmanager
    def results_locked(self) -> Iterator[None]:
        """Waits until no other process reads, merges and writes results.json, and keeps others waiting."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks
                # Not the root, which training locks, nor results.json, which every write replaces.
                descriptor = os.open(self.checkpoints, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training here at the same time. The lock ends with the process, however it ends.

        What killed processes have left of the files that only training writes is removed.

        Raises:
            UserError: another process trains here.
        """
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(f"another process is training in {self.root}: choose another --workdir.") from None
            for path in list(self.root.iterdir()):
                if any(is_temporary(path, of=written) for written in (self.config, self.versions, self.metrics)):
                    path.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)


def _refuse_address(root: Path) -> None:
    found = address(root)
    if found is not None:
        raise UserError(
            f"{found} is not a folder of this machine: choose a --workdir here, and copy the folder when the run has "
            "ended."
        )


def _refuse_unreadable(root: Path) -> None:
    text = str(root)
    if "\\" in text:
        why = "TensorStore takes no backslash in a path"
    elif any(part.endswith(".__lock") for part in root.parts):
        why = "TensorStore takes no folder whose name ends with .__lock"
    elif text.encode(errors="replace") != os.fsencode(root):
        why = "TensorStore takes only names that are UTF-8"
    else:
        return
    raise UserError(f"cannot keep checkpoints in {ascii(text)[1:-1]}, because {why}: choose another --workdir.")


def record_versions(path: Path, facts: dict[str, Any]) -> None:
    """Appends one entry to versions.json: what this start of the run uses, and `facts`.

    Raises:
        UserError: the file is damaged.
    """
    try:
        entries = read_json(path) if path.exists() else []
        if not isinstance(entries, list):
            raise ValueError("not a list")
    except ValueError:
        raise UserError(f"{path} is damaged: move it away and repeat the command.") from None
    entry = {
        "python": platform.python_version(),
        "jax_settings": {name: getattr(jax.config, name) for name in _JAX_SETTINGS},
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git_commit(),
        "machine": platform.platform(),
        "hardware": hardware.facts(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        **facts,
    }
    for change in changes_of_settings(entries[-1], entry) if entries else []:
        _LOG.warning("%s: the result can differ from that of a run without this change", change)
    write_text(path, json.dumps([*entries, entry], indent=1) + "\n")


def changes_of_settings(before: Any, now: dict[str, Any]) -> list[str]:
    """Returns which settings and which hardware that change numbers differ between two entries of versions.json.

    Args:
        before: an entry, perhaps of a version that did not record them.
        now: an entry of this version.

    Returns:
        Lines such as "jax_enable_x64 was False at the last start and is True".
    """
    old, new = _flat_settings(before), _flat_settings(now)
    return [
        f"{name} was {old[name]!r} at the last start and is {new[name]!r}"
        for name in new
        if name in old and old[name] != new[name]
    ]


def _flat_settings(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("jax_settings"), dict):
        return {}
    flat = {**entry["jax_settings"], "xla_flags": entry.get("xla_flags")}
    if isinstance(entry.get("hardware"), dict):
        flat |= entry["hardware"]
    if isinstance(entry.get("packages"), dict):
        flat["jaxlib"] = entry["packages"].get("jaxlib")
    return flat


def made_by(path: Path) -> str:
    """Returns which version started a run last, by its versions.json; empty if the file does not say so."""
    try:
        entry = read_json(path)[-1]
        commit, package = entry.get("git"), entry["packages"].get("gm_jax")
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return ""
    version = f"gm_jax {package}" if isinstance(package, str) else ""
    if not isinstance(commit, str):
        return version
    changed = " and changes that are not in it" if commit.endswith("+changes") else ""
    return f"commit {commit.removesuffix('+changes')}{changed}" + (f" ({version})" if version else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "-C", here, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
