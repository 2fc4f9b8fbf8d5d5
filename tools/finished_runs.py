"""Finished runs compared bit for bit, as they lie on the disk."""

from pathlib import Path

from gm_jax.files import read_json
from gm_jax.training import manifest, orbax_files


def same_end(whole: Path, end: Path) -> bool:
    """Compares two finished runs bit for bit: their numbers, and every array of their checkpoints."""
    for name in ("metrics.jsonl", "results.json"):
        if (whole / name).read_bytes() != (end / name).read_bytes():
            print(f"{name} of {end} is not that of the undisturbed run")
            return False
    there, here = digests(whole), digests(end)
    if there != here:
        print(f"the checkpoints of {end} are not those of the undisturbed run")
    return there == here


def digests(run: Path) -> dict[int, dict[str, str]]:
    """Returns step -> path -> SHA-256 of each array of the checkpoints, which are read from the disk.

    Raises:
        DamageError: what is on the disk is not what was saved.
    """
    found = {}
    for step in steps(run):
        folder = run / "checkpoints" / str(step)
        saved = manifest.unseal(read_json(folder / "manifest" / "metadata"))
        shapes = {path: leaf["shape"] for path, leaf in saved["leaves"].items()}
        manifest.check_leaves(saved, orbax_files.read_arrays(folder / "state", shapes))
        found[step] = {path: leaf["sha256"] for path, leaf in saved["leaves"].items()}
    return found


def steps(run: Path) -> list[int]:
    """Returns the steps of the checkpoints that a run's folder holds, ascending."""
    return sorted(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdecimal())
