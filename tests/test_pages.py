"""The pages of README.md and docs/: examples run, commands parse, and links lead somewhere."""

import importlib
import json
import re
import shlex
import subprocess

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.runner import cli
from tests.page_commands import PAGES, REPO, WITH_CODE, blocks, commands_of, name_of, parse
from tools.site import check, docstrings, names, notebooks, pages

HELP = {("experiments.vae", "--help")}


@pytest.fixture
def ranks_may_differ():
    """A newcomer's jax: the strictness of our own tests is not theirs."""
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


# Python.


def run_page(page, folder, monkeypatch):
    """The names after all examples of a page, run in their order in an empty folder."""
    monkeypatch.chdir(folder)
    found = {"__name__": "page"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, example {number}", "exec"), found)
    return found


# These have tests of their own, below, which run them too.
WITH_TESTS = ("concepts.md", "adding-a-family.md")


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page.name not in WITH_TESTS], ids=name_of)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, ranks_may_differ):
    if page.name == "design.md":
        for block in blocks(page, "python"):  # excerpts of classes, some with "..." for a body
            compile(re.sub(r"^    init, objectives.*$", "    pass", block, flags=re.MULTILINE), page.name, "exec")
        return
    run_page(page, tmp_path, monkeypatch)


def test_the_family_of_the_guide_learns_the_frequencies_of_the_pixels(tmp_path, monkeypatch, ranks_may_differ):
    found = run_page(REPO / "docs" / "adding-a-family.md", tmp_path, monkeypatch)
    x = found["digits"].splits["train"]["x"].reshape(-1, 64).astype(np.float64)
    share = np.clip(x.mean(axis=0), 1e-3, 1 - 1e-3)
    test = found["digits"].splits["test"]["x"].reshape(-1, 64).astype(np.float64)
    best = -np.mean(np.sum(test * np.log(share) + (1 - test) * np.log1p(-share), axis=1))
    assert found["found"].kind == "exact"
    assert found["test_nll"] == pytest.approx(best, abs=0.5)  # pixels that are always black are at 1 %, not at 0.1 %
    drawn = found["family"].model.sample(found["current"].params, {}, found["jax"].random.key(3), 2_000)
    np.testing.assert_allclose(np.asarray(drawn, np.float64).reshape(-1, 64).mean(axis=0), share, atol=0.08)


def test_the_example_of_a_gan_has_two_players_that_move(tmp_path, monkeypatch, ranks_may_differ):
    import jax

    from gm_jax.training import state, step

    found = run_page(REPO / "docs" / "concepts.md", tmp_path, monkeypatch)
    model, optimizers = found["family"].model, found["optimizers"]
    batch = {"x": np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype(np.uint8)}
    first = state.create(model, optimizers, jax.random.key(0), batch)
    second, metrics = jax.jit(step.make_train_step(model, optimizers, seed=0))(first, batch)
    for player in ("discriminator", "generator"):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params[player], second.params[player])
        assert all(jax.tree.leaves(moved)), player
        assert float(metrics[f"{player}/grad_norm"]) > 0.0


# Commands.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_parses(page):
    for command in {tuple(command) for command in commands_of(page.read_text(encoding="utf-8"))} - HELP:
        parse(list(command))


def test_the_batch_of_every_command_for_several_hosts_can_be_divided_among_its_devices():
    text = (REPO / "docs" / "several-hosts.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        slurm = re.search(r"srun --nodes (\d+) --ntasks-per-node (\d+) .*python -m experiments\.(\w+) (.*)", line)
        pod = re.search(r"tpu_pod\.sh start NAME ZONE (\w+) ([^`]*)$", line)
        if slurm:
            found["slurm"] = (int(slurm[1]) * int(slurm[2]), slurm[3], slurm[4])
        elif pod:
            found["pod"] = (128, *pod.groups())  # a large slice
    assert sorted(found) == ["pod", "slurm"]
    for devices, name, flags in found.values():
        module = importlib.import_module(f"experiments.{name}")
        _, args = cli.parse(module.CONFIG, shlex.split(flags), module=module)
        assert args.config.train.batch_size % devices == 0, (devices, name, flags)


def test_a_wrong_flag_in_a_page_is_found():
    (command,) = commands_of("text\n```sh\nfor i in 1; do .venv/bin/python -m experiments.vae --hiden 3; done\n```\n")
    assert command == ["experiments.vae", "--hiden", "3"]
    with pytest.raises(UserError, match="did you mean --hidden"):
        parse(command)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=name_of)
def test_every_script_of_a_page_is_valid(page):
    for block in blocks(page, "sh"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, block + done.stderr


def test_every_target_of_make_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert set(named) <= targets, page


# Links and paths.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_and_link_of_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    for path in set(re.findall(r"`((?:gm_jax/)?(?:[a-z_]+/)+[a-z_]+\.py)`", text)):
        assert (REPO / path).exists() or (REPO / "gm_jax" / path).exists(), path
    for link in set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", text)):
        generated = link[0] == "api/index.md"  # `make docs` checks it
        assert generated or (page.parent / "".join(link)).exists(), link


def test_no_page_names_a_folder_outside_of_the_repository():
    for page in PAGES:
        assert not re.search(r"\.\./shared|<this repository>", page.read_text(encoding="utf-8")), page


def test_every_experiment_is_in_the_index():
    text = (REPO / "docs" / "finding-formulas.md").read_text(encoding="utf-8")
    for path in (REPO / "experiments").glob("[a-z]*.py"):
        assert path.name == "__init__.py" or f"experiments/{path.name}" in text, path.name


def test_every_page_of_docs_is_in_the_navigation_of_the_site():
    nav = (REPO / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = set(re.findall(r"[\w/-]+\.md", nav))
    written = {path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs").rglob("*.md")}
    assert named == written | set(pages.COPIES.values()) | {"api/index.md"}


def test_pictures_are_few_and_small():
    pictures = list((REPO / "docs").rglob("*.png"))
    assert sum(path.stat().st_size for path in pictures) < 2_000_000
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [path.name for path in pictures if path.name not in shown]


# The API reference.


def test_every_public_name_has_an_entry_in_the_reference():
    entries = set(re.findall(r"^::: (\S+)$", "".join(pages.api_pages().values()), flags=re.MULTILINE))
    assert entries == set(names.public_names())


@pytest.mark.parametrize(
    "room", ["ops", "losses", "networks", "samplers", "models", "evaluation", "training", "runner"]
)
def test_the_public_names_read_off_the_source_are_those_of_the_modules(room):
    public = set(names.public_names())
    for module in names.rooms()[room]:
        loaded = importlib.import_module(module.name)
        defined = {
            name
            for name, value in vars(loaded).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.name
        }
        assert defined <= set(module.names), module.name
        assert all(hasattr(loaded, name) for name in module.names), module.name
        exported = [getattr(loaded, name) for name in getattr(loaded, "__all__", ())]
        homes = {f"{one.__module__}.{one.__name__}" for one in exported if hasattr(one, "__module__")}
        assert homes <= public, module.name


def test_links_of_the_home_page_are_those_of_the_site():
    text = '[a](docs/concepts.md#runs) [b](CONTRIBUTING.md) <img src="docs/images/x.png"> [c](https://a.b/docs/c.md)'
    text += " [d](examples/own_vae.py) [e](examples/01_a_loss_by_hand.ipynb)"
    assert pages.with_links_of_the_site(text) == (
        '[a](concepts.md#runs) [b](contributing.md) <img src="images/x.png"> [c](https://a.b/docs/c.md)'
        " [d](examples.md#own-vae) [e](examples/01_a_loss_by_hand.md)"
    )
    assert pages.on_page_markdown("[d](../examples/own_vae.py)") == "[d](examples.md#own-vae)"
    assert pages.on_page_markdown("[c](../CONTRIBUTING.md)") == "[c](contributing.md)"
    link = "[`f`](../../gm_jax/losses/vae.py#gm_jax.losses.vae.elbo)"
    assert pages.on_page_markdown(link) == "[`f`](../api/losses.md#gm_jax.losses.vae.elbo)"


def test_the_site_shows_the_code_of_an_example():
    code = (REPO / "examples" / "seeds.py").read_text(encoding="utf-8")
    assert pages.on_page_markdown("a\n\n<!-- code: examples/seeds.py -->\n") == f"a\n\n```python\n{code}```\n"
    for path in (REPO / "docs").glob("*.md"):
        for name in re.findall(r"<!-- code: (\S+) -->", path.read_text(encoding="utf-8")):
            assert (REPO / name).is_file(), (path, name)


def test_the_site_shows_a_notebook_with_its_outputs(tmp_path):
    text = {"cell_type": "markdown", "source": ["# A\n", "See [b](../docs/b.md#c)."]}
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]},
        {"output_type": "execute_result", "data": {"text/plain": ["<image>"], "image/png": "aGk=\n"}},
        {"output_type": "execute_result", "data": {"text/plain": ["(3,)"]}},
    ]
    code = {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": outputs}
    (tmp_path / "01_a.ipynb").write_text(json.dumps({"cells": [text, code]}))
    first, where, *rest = notebooks.notebook_markdown(tmp_path / "01_a.ipynb").split("\n\n")
    assert (first, "`examples/01_a.ipynb`" in where) == ("# A\nSee [b](../b.md#c).", True)
    assert rest == [
        "```python\nx = 1\nx\n```",
        "```text\n1\n2\n```",
        '<img src="data:image/png;base64,aGk=" alt="the picture that the cell above shows">',
        "```text\n(3,)\n```\n",
    ]
    assert sorted(pages.notebook_pages()) == [
        f"examples/{path.stem}.md" for path in sorted((REPO / "examples").glob("*.ipynb"))
    ]


def test_docstrings_have_the_sections_that_the_reference_knows():
    docstring = (
        "Computes f of x_<i.\n\nArgs:\n    x: a `<b>`, or <c>.\nReturns:\n    f.\nSource: A, 2020,\n    eq. 2.\n"
    )
    docstring += "Example:\n    >>> 1 <a\n"
    assert docstrings.rewritten(docstring) == (
        "Computes f of x_&lt;i.\n\n\nArgs:\n    x: a `<b>`, or &lt;c>.\n\nReturns:\n    f.\n"
        "\n**Source:** A, 2020, eq. 2.\n\n\nExamples:\n    >>> 1 <a\n"
    )


def test_equations_and_tables_of_a_module_keep_their_columns():
    docstring = "Flows of x_<i.\n\nNotation.\n\n    p(x) = 1    (1)\n\n    a <b>\n\nMore\ntext.\n\nf.py    does f"
    assert docstrings.module_markdown(docstring) == (
        "Flows of x_&lt;i.\n\nNotation.\n\n```text\np(x) = 1    (1)\n\na <b>\n```\n\nMore\ntext.\n\n"
        "```text\nf.py    does f\n```"
    )


def test_the_index_of_a_room_is_tables_whose_functions_have_links():
    docstring = "Losses.\n\nvae: q of x_<i\n    elbo     -nll - |kl|    A 2014\n    a, b     two\n\n    x  = 1"
    assert docstrings.module_markdown(docstring, "gm_jax.losses", {"gm_jax.losses.vae.elbo"}) == (
        "Losses.\n\n| **vae** | q of x\\_&lt;i |  |\n| --- | --- | --- |\n"
        "| [`elbo`](#gm_jax.losses.vae.elbo) | -nll - \\|kl\\| | A 2014 |\n| `a`, `b` | two |  |\n\n"
        "```text\nx  = 1\n```"
    )
    losses = pages.api_pages()["api/losses.md"]
    assert "[`elbo`](#gm_jax.losses.vae.elbo) | evidence lower bound: -nll - kl | Kingma & Welling 2014 |" in losses


def test_the_check_of_the_site_finds_each_fault(tmp_path):
    (tmp_path / "api").mkdir()
    page = '<h2 id="gm_jax.a.f"></h2><a href="../index.html#here">x</a>'
    (tmp_path / "api" / "a.html").write_text(page)
    (tmp_path / "index.html").write_text(
        '<p id="here"><a href="api/a.html#gm_jax.a.f">f</a><a href="https://x.y">z</a>'
    )
    assert check.faults(tmp_path, ["gm_jax.a.f"]) == []
    (tmp_path / "api" / "a.html").write_text(page + '<a href="../b.html">b</a><img src="https://x.y/i.png"> <n> levels')
    (tmp_path / "index.html").write_text("<p>")
    assert check.faults(tmp_path, ["gm_jax.a.f", "gm_jax.a.g"]) == [
        "gm_jax.a.g has no entry in the API reference",
        "api/a.html has the element <n>: write &lt; in its text",
        "api/a.html loads https://x.y/i.png from outside",
        "api/a.html links to ../b.html, which does not exist",
        "api/a.html links to ../index.html#here, which does not exist",
    ]
