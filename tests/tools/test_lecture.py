"""The lecture: what a page must hold, how a false one is found, and that the committed pages are those of the code.

`make lecture` runs every page again; here no page of the lecture is run.
"""

import re

import numpy as np
import pytest
from PIL import Image

from gm_jax.errors import UserError
from gm_jax.losses import vae
from gm_jax.plotting import images
from tools.lecture import __main__ as command
from tools.lecture import contents, page
from tools.lecture.page import Number, Page

PAGES = {page_fn.__name__: page_fn for page_fns in contents.CHAPTERS.values() for page_fn in page_fns}


def circles():
    """Circles in the plane.

    Not the title.
    """

    def draw(path):
        images.draw_grid(path, np.zeros((2, 2, 8, 8, 1)), 17)

    return Page(
        "\n    p = 1\n      q\n    ",
        (vae.elbo,),
        "One\n   line.\n\nTwo.",
        (Number("size, nats", 0.123, 0, 1, ".2f"),),
        draw,
    )


def test_a_page_has_its_formula_links_picture_text_and_numbers(tmp_path):
    assert page.write(circles, tmp_path) == tmp_path / "circles.md"
    assert (tmp_path / "circles.md").read_text() == (
        "# Circles in the plane\n\n```text\np = 1\n  q\n```\n\n"
        "Implemented by [`losses.vae.elbo`](../../gm_jax/losses/vae.py#gm_jax.losses.vae.elbo).\n\n"
        "![Circles in the plane](circles.png)\n\nOne line.\n\nTwo.\n\n"
        "| measured by this page | value | the page is true from |\n|---|---|---|\n"
        "| size, nats | 0.12 | 0.00 to 1.00 |\n"
    )
    with Image.open(tmp_path / "circles.png") as picture:
        assert picture.mode == "P"
    assert page.differences(tmp_path / "circles.md", tmp_path / "circles.md") == []


@pytest.mark.parametrize("value", [1.2, -0.1, float("nan")])
def test_a_number_outside_of_its_range_is_an_error(value, tmp_path):
    def false():
        """A false page."""
        return circles()._replace(numbers=(Number("size, nats", value, 0, 1, ".2f"),))

    with pytest.raises(
        UserError, match=r"the page false is not true in this run: size, nats is .*, outside of 0.00 to"
    ):
        page.write(false, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_large_picture_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, size=(400, 400, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png has [\d,]+ bytes, more than 60,000: draw less in it"):
        page.shrink(tmp_path / "a.png")


def test_a_committed_page_may_differ_in_its_values_and_in_nothing_else(tmp_path):
    (new := tmp_path / "new").mkdir()
    page.write(circles, new)
    page.write(circles, tmp_path)
    written, committed = new / "circles.md", tmp_path / "circles.md"
    text = committed.read_text()
    committed.write_text(text.replace("| 0.12 |", "| 0.90 |"))
    assert page.differences(written, committed) == []
    committed.write_text(text.replace("| 0.12 |", "| 1.90 |"))
    assert page.differences(written, committed) == ["circles.md: size, nats is 1.90, outside of its range"]
    committed.write_text(text.replace("One line.", "One other line."))
    assert page.differences(written, committed) == ["circles.md has another text than its code"]
    committed.write_text(text)
    (tmp_path / "circles.png").unlink()
    assert page.differences(written, committed) == ["circles.png is missing or left over"]
    committed.unlink()
    assert page.differences(written, committed) == ["circles.md is missing"]


def test_the_command_refuses_a_page_that_does_not_exist():
    with pytest.raises(UserError, match="there is no page 'latent_plain': there are latent_plane, "):
        command.write(command.Config(pages=("latent_plain",)))


def test_the_command_checks_a_page_without_writing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contents, "CHAPTERS", {"Shapes": (circles,)})
    monkeypatch.setattr(command, "LECTURE", tmp_path)
    assert command.write(command.Config()).startswith("1 pages in ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circles.md", "circles.png", "index.md"]
    assert "1. [Circles in the plane](circles.md)" in (tmp_path / "index.md").read_text()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert command.write(command.Config(check=True)).startswith("1 pages in ")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "circles.md").write_text("# Squares\n")
    (tmp_path / "index.md").write_text("# Squares\n")
    with pytest.raises(
        UserError, match=r"(?s)circles.md has another text.*index.md has another text.*look at the pict"
    ):
        command.write(command.Config(check=True))
    assert "circles: " in capsys.readouterr().out


def test_the_committed_pages_are_those_of_the_contents():
    found = {path.name for path in command.LECTURE.iterdir()}
    pictures = {f"{name}.png" for name in PAGES if f"({name}.png)" in (command.LECTURE / f"{name}.md").read_text()}
    assert found == {"index.md", *(f"{name}.md" for name in PAGES)} | pictures
    assert (command.LECTURE / "index.md").read_text() == contents.index()


@pytest.mark.parametrize("name", PAGES)
def test_a_committed_page_has_its_title_and_numbers_in_their_ranges(name):
    path = command.LECTURE / f"{name}.md"
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.title_of(PAGES[name])}\n\n```text\n")
    assert page.differences(path, path) == []
    *_, numbers = text.strip().split("\n\n")
    assert numbers.startswith("| measured by this page | value | the page is true from |\n|---|---|---|\n")
    for row in numbers.splitlines()[2:]:
        assert re.fullmatch(r"\| [^|]+ \| [-\d.e+]+ \| [-\d.e+]+ to [-\d.e+]+ \|", row), row
    picture = path.with_suffix(".png")
    assert not picture.exists() or picture.stat().st_size <= page.MOST_BYTES


def test_the_taxonomy_is_that_of_all_families(tmp_path):
    # It trains nothing; a new family asks for `python -m tools.lecture --pages taxonomy`.
    written = page.write(PAGES["taxonomy"], tmp_path)
    assert page.differences(written, command.LECTURE / "taxonomy.md") == []
