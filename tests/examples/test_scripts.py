"""The scripts of examples/: each runs as it is, in an empty folder, and does what its first line says."""

import ast
import re
import runpy
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.stem for path in (REPO / "examples").glob("*.py") if not path.stem[0].isdigit())
MOST_LINES = 70  # as docs/examples.md says


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """(name, *arguments) -> (its variables, what it printed): runs a script in an empty folder, as a newcomer does."""

    def execute(name, *arguments):
        script = str(REPO / "examples" / f"{name}.py")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with jax.numpy_rank_promotion("allow"):  # the strictness of our own tests is not theirs
            found = runpy.run_path(script, run_name="__main__")
        return found, capsys.readouterr().out

    return execute


def test_there_are_nine_scripts_with_a_command_each():
    assert len(SCRIPTS) == 9
    for name in SCRIPTS:
        text = (REPO / "examples" / f"{name}.py").read_text(encoding="utf-8")
        assert f"\npython examples/{name}.py" in ast.get_docstring(ast.parse(text))
        assert len(text.splitlines()) <= MOST_LINES, name


def test_the_readme_and_the_site_list_every_script():
    page = (REPO / "docs" / "examples.md").read_text(encoding="utf-8")
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    for name in SCRIPTS:
        assert f"examples/{name}.py" in readme, name
        assert f"<!-- code: examples/{name}.py -->" in page, name


@pytest.mark.slow
def test_a_vae_of_own_networks_learns_own_images(run):
    found, out = run("own_vae")
    assert (found["bound"].kind, found["bound"].measure) == ("lower_bound", "256 levels")
    assert 1.0 < found["bits"] < 7.0  # 8 bits are uniform levels
    assert re.search(r"test -log p <= \d\.\d\d bits/dim \(256 levels", out)


@pytest.mark.slow
def test_a_flow_of_mixed_layers_has_an_exact_density(run):
    found, _ = run("mixed_flow")
    assert (found["found"].kind, found["found"].measure) == ("exact", "continuous")
    family, current = found["family"], found["current"]
    again = family.log_density(current.params, current.model_state, found["drawn"])
    np.testing.assert_allclose(again, found["log_density"], atol=1e-3)
    entropy_of_noise = 1.5 * np.log(2 * np.pi * np.e * 0.1**2)
    assert entropy_of_noise < -float(found["found"].log_prob.mean()) < 2.0


@pytest.mark.slow
def test_guidance_and_the_chain_are_drawn(run, tmp_path):
    found, _ = run("guided_diffusion")
    rows = np.stack(found["rows"])
    assert rows.shape == (3, 10, 8, 8, 1)
    assert (rows[0] != rows[2]).any()
    np.testing.assert_array_equal(found["frames"][-1], rows[1])
    with Image.open(tmp_path / "runs" / "guided_diffusion" / "chain.gif") as chain:
        assert chain.n_frames == 21
    assert (tmp_path / "runs" / "guided_diffusion" / "guided.png").is_file()


@pytest.mark.slow
def test_mirrored_digits_are_farther_from_digits_than_other_digits(run):
    _, out = run("frechet_distance")
    near, far = (float(value) for value in re.findall(r"frechet +([\d.]+) squared feature distance", out))
    assert 0.0 < near < 0.2 * far


@pytest.mark.slow
def test_the_bits_of_a_pixelcnn_are_exact(run):
    found, out = run("pixelcnn_bits")
    assert (found["found"].kind, found["found"].measure) == ("exact", "17 levels")
    assert 1.0 < found["bits"].mean() < np.log2(17)
    np.testing.assert_array_equal(found["completed"][:, :4], found["test"][:8, :4])
    assert "bits/dim (exact, 17 levels)" in out


@pytest.mark.slow
def test_both_players_of_a_vae_gan_learn(run):
    found, _ = run("vae_gan")
    assert 0.0 < float(found["losses"]["discriminator"]) < 2 * np.log(2)  # of a blind discriminator
    assert 10.0 < float(found["losses"]["vae"]) < 35.0  # 64 log 2 = 44 is a blind decoder's


def test_a_run_opens_from_its_folder_alone(run, tmp_path):
    shutil.copytree(REPO / "tests" / "runner" / "data" / "legacy_vae", tmp_path / "runs" / "vae")
    found, out = run("open_run")
    assert found["x"].shape == (16, 8, 8, 1)
    assert found["line"].shape == (4, 10, 8, 8, 1)
    assert "nll: " in out
    assert dict(found["bound"].settings)["K"] == 100
    again, _ = run("open_run", tmp_path / "runs" / "vae")
    np.testing.assert_array_equal(found["x"], again["x"])


@pytest.mark.slow
def test_a_file_and_a_folder_train_the_same_experiment(run):
    _, out = run("own_data")
    rows = dict(re.findall(r"^(\w+) +\(16, 16, 1\), 2 classes: -log p <= ([\d.]+) nats$", out, flags=re.MULTILINE))
    assert list(rows) == ["npz", "folder"]
    assert all(100.0 < float(nats) < 256 * np.log(2) for nats in rows.values())


@pytest.mark.slow
def test_seeds_and_rates_are_one_table(run, tmp_path):
    _, out = run("seeds")
    rows = re.findall(r"^ +(0\.0\d+) +([\d.]+) \+- ([\d.]+) nats$", out, flags=re.MULTILINE)
    assert [rate for rate, _, _ in rows] == ["0.001", "0.01"]
    assert float(rows[1][1]) < float(rows[0][1])
    assert len(list((tmp_path / "runs" / "seeds").iterdir())) == 4
