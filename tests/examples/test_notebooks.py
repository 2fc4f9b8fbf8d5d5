"""The notebooks of examples/: each is a pair of .py and .ipynb with the same cells, runs, and shows its outputs.

jupytext writes and executes an .ipynb (CONTRIBUTING.md has the command); the tests need neither it nor Jupyter.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPO / "examples").glob("[0-9]*.py"))
MOST_BYTES = 300_000


def cells_of_script(path):
    """[(kind, text)] of a script in jupytext's percent format, without its header."""
    text = path.read_text(encoding="utf-8").partition("# ---\n")[2].partition("# ---\n")[2]
    found = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        mark, _, body = part.partition("\n")
        body = body.strip("\n")
        if mark.strip() == "[markdown]":
            found.append(("markdown", "\n".join(line[2:] for line in body.splitlines())))
        else:
            found.append(("code", body))
    return found


def notebook(path):
    return json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))


def pictures(content):
    """The PNGs among the outputs."""
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", ())]
    return [
        base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]


def test_there_are_four_notebooks_and_each_has_both_files():
    assert len(NOTEBOOKS) == 4
    assert [path.stem for path in sorted((REPO / "examples").glob("*.ipynb"))] == [path.stem for path in NOTEBOOKS]
    page = (REPO / "docs" / "examples.md").read_text(encoding="utf-8")
    assert all(f"examples/{path.stem}.ipynb" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_files_of_a_notebook_have_the_same_cells(path):
    content = notebook(path)
    found = [(cell["cell_type"], "".join(cell["source"]).strip("\n")) for cell in content["cells"]]
    assert found == cells_of_script(path), f"write {path.stem}.ipynb again, as CONTRIBUTING.md says"
    assert content["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_executed_and_small(path):
    content = notebook(path)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert path.with_suffix(".ipynb").stat().st_size < MOST_BYTES
    for data in pictures(content):
        with Image.open(io.BytesIO(data)) as picture:
            assert 300 <= picture.width <= 1_000
    assert len(pictures(content)) == {"01": 1, "02": 3, "03": 3, "04": 0}[path.stem[:2]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_of_code_installs_what_is_missing_and_nothing_here(path, monkeypatch):
    first = next(text for kind, text in cells_of_script(path) if kind == "code")
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    exec(first, {})
    assert calls == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="write its address above, as ADDRESS, and run this cell again") as stopped:
        exec(first, {})
    assert (len(str(stopped.value).splitlines()), calls) == (1, [])
    exec(first.replace('ADDRESS = ""', 'ADDRESS = "https://a.b/gm_jax.git"'), {})
    ((_, *command),) = calls
    assert command == ["-m", "pip", "install", "-q", "git+https://a.b/gm_jax.git"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
