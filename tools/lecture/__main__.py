"""Writes the lecture: the pages and pictures of docs/lecture/, from the functions of gm_jax.

    python -m tools.lecture                                      # all pages, again
    python -m tools.lecture --pages latent_plane mode_collapse   # some of them
    python -m tools.lecture --check                              # changes nothing: runs every page, checks its numbers

Each page states the range in which every number under its picture must lie; a number outside of it is an error.
`--check` also finds committed pages that differ from their code.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

from gm_jax import runner, signals
from gm_jax.errors import UserError
from gm_jax.files import write_text

REPO = Path(__file__).resolve().parents[2]
LECTURE = REPO / "docs" / "lecture"


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes the pages and pictures of docs/lecture/."""

    pages: tuple[str, ...] = ()
    """Names of the pages to write; all of them by default."""
    check: bool = False
    """Write into a temporary folder, and report how the committed pages differ from their code."""


def write(config: Config) -> str:
    """Writes or checks the pages, and returns what was done.

    Raises:
        UserError: a page does not exist, a number is outside of its range, or a committed page differs from its code.
    """
    from tools.lecture import contents, page  # here, not above, so that --help need not import jax

    known = {page_fn.__name__: page_fn for page_fns in contents.CHAPTERS.values() for page_fn in page_fns}
    unknown = [name for name in config.pages if name not in known]
    if unknown:
        raise UserError(f"there is no page {unknown[0]!r}: there are {', '.join(known)}.")
    faults, start = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if config.check else LECTURE
        for name in config.pages or known:
            signals.check()
            begin = time.perf_counter()
            written = page.write(known[name], folder)
            faults += page.differences(written, LECTURE / written.name) if config.check else []
            print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
    index = contents.index()
    if not config.check:
        write_text(LECTURE / "index.md", index)
    elif (LECTURE / "index.md").read_text(encoding="utf-8") != index:
        faults.append("index.md has another text than its code")
    if faults:
        raise UserError("\n".join([*faults, "run `python -m tools.lecture` and look at the pictures."]))
    return f"{len(config.pages or known)} pages in {time.perf_counter() - start:.0f} s"


if __name__ == "__main__":
    runner.program(Config, write)
