"""The commands in tools/: compare, convert_inception, pulled_plug, reference_scores, train_digit_classifier."""

import hashlib
import importlib.util
import pickle

import numpy as np
import pytest

from gm_jax import recipes, runner
from gm_jax.comparison import families, measure
from gm_jax.data import sources
from gm_jax.evaluation import features, results, sample_metrics
from tools import compare, convert_inception, pulled_plug, reference_scores, train_digit_classifier


def run(config_type, command, capsys, *argv):
    code = 0
    try:
        runner.program(config_type, command, list(map(str, argv)))
    except SystemExit as ended:
        code = ended.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(*args):
    code, _, err = run(*args)
    assert code == 2
    assert 1 <= len(err.strip().splitlines()) <= 3
    assert err.startswith("error: ")
    return err


def test_a_checkpoint_that_is_missing_or_not_public_is_refused(tmp_path, capsys):
    command = (convert_inception.Config, convert_inception.convert, capsys)
    assert "there is no checkpoint" in refused(*command, "--checkpoint", tmp_path / "none.pth")
    path = tmp_path / "other.pth"
    path.write_bytes(b"other")
    err = refused(*command, "--checkpoint", path, "--output", tmp_path / "x.safetensors")
    assert hashlib.sha256(b"other").hexdigest() in err
    assert features.INCEPTION_CHECKPOINT in err
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_pytorch_the_conversion_states_what_to_install(tmp_path, capsys):
    path = tmp_path / "other.pth"
    path.write_bytes(b"other")
    command = (convert_inception.Config, convert_inception.convert, capsys)
    assert "pip install torch" in refused(*command, "--checkpoint", path, "--any-checkpoint")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra benchmarks)")
def test_code_in_a_checkpoint_is_not_run_and_tensors_are_read(tmp_path, capsys, monkeypatch):
    import torch

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    path = tmp_path / "code.pth"
    path.write_bytes(pickle.dumps(Code()))
    command = (convert_inception.Config, convert_inception.convert, capsys)
    refused(*command, "--checkpoint", path, "--any-checkpoint")
    assert not (tmp_path / "was-run").exists()

    torch.save({"a.weight": torch.arange(4.0), "a.num_batches_tracked": torch.tensor(3)}, path)
    (name,), (tensor,) = zip(*convert_inception.read_checkpoint(path).items(), strict=True)
    assert name == "a.weight"
    np.testing.assert_array_equal(tensor, [0, 1, 2, 3])
    assert "is not the Inception v3" in refused(*command, "--checkpoint", path, "--any-checkpoint")


def test_an_unknown_family_is_refused_before_training(tmp_path, capsys):
    err = refused(compare.Config, compare.compare, capsys, "--families", "GPT", "--workdir", tmp_path / "x")
    assert "there is no family GPT" in err
    assert not (tmp_path / "x").exists()
    assert "seconds must be more than 0" in refused(compare.Config, compare.compare, capsys, "--seconds", "0")


def test_the_settings_of_every_row_exist_in_its_experiment():
    names = {"images": "binarized_digits", "points": "toy:two_moons", "small_world": "digits4x4"}
    rows = families.table()
    assert len({row.name for row in rows}) == len(rows)
    specs = {kind: sources.load(name).spec for kind, name in names.items()}
    for row in rows:
        for kind in row.settings:
            config = measure.configured(row, names[kind], seed=0)
            assert recipes.build(config, specs[kind]).model.objectives


def test_a_classifier_of_other_data_needs_an_output_file(capsys):
    assert "name a file with --output" in refused(
        train_digit_classifier.Config, train_digit_classifier.make, capsys, "--data.name", "kmnist"
    )


@pytest.mark.slow
def test_the_command_makes_a_file_like_the_committed_one(tmp_path, capsys):
    path = tmp_path / "short.safetensors"
    short = ("--train.steps", "30", "--train.batch-size", "32", "--optimizer.warmup-steps", "5", "--output", path)
    code, out, _ = run(train_digit_classifier.Config, train_digit_classifier.make, capsys, *short)
    assert code == 0
    assert "test accuracy" in out
    made, _ = features.read_weights(path)
    committed, _ = features.read_weights(features.WEIGHTS / "digits-cnn.safetensors")
    assert {name: tensor.shape for name, tensor in made.items()} == {
        name: tensor.shape for name, tensor in committed.items()
    }


def test_the_reference_scores_of_the_digits_form_a_table(capsys, monkeypatch):
    monkeypatch.setattr(sample_metrics, "_SUBSETS", 3)
    command = (reference_scores.Config, reference_scores.measure, capsys)
    code, out, _ = run(*command, "--num", "300")
    assert code == 0
    lines = out.splitlines()
    rows = {line.split("[")[0]: " ".join(lines[at : at + 3]) for at, line in enumerate(lines) if "[digits-cnn]" in line}
    assert set(rows) == {"frechet", "kernel_distance", "precision", "recall", "inception_score", "classes_covered"}
    assert all("num_generated=300" in row for row in rows.values())
    assert "num_real=300" in rows["frechet"]
    (kernels,) = (" ".join(lines[at:]).split() for at, line in enumerate(lines) if line.startswith("nll"))
    assert kernels[1] == "~"
    assert -33 < float(kernels[2]) < -24
    assert "centres=1000" in kernels
    assert "uint8" in refused(*command, "--data.name", "toy:pinwheel")
    assert "images of 28x28, got 8x8" in refused(*command, "--features", "mnist-cnn")
    assert "inception needs a file" in refused(*command, "--features", "inception")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_family_of_every_kind_is_measured_in_the_small_world_and_on_the_page(tmp_path, capsys):
    names = ("VAE", "GAN", "FVSBN", "NICE", "RBM")
    flags = ("--seconds", "0.1", "--data", "digits4x4", "--families", *names, "--workdir", tmp_path / "run")
    code, _, err = run(compare.Config, compare.compare, capsys, *flags)
    assert code == 0
    assert "Traceback" not in err
    page = (tmp_path / "run" / "report.html").read_text()
    for name in names:
        assert page.count(f"<tr data-family='{name}'>") == 1
    assert "failed:" not in page
    records = results.read(tmp_path / "run" / "results.json")
    assert {record.settings["family"] for record in records} == {"the data", *names}
    divergences = {record.settings["family"]: record.value for record in records if record.name == "kl_to_world"}
    assert set(divergences) == {"the data", *names} - {"GAN"}
    assert min(divergences.values()) >= 0.0


def test_pulling_the_plug_reads_where_a_command_started():
    first = pulled_plug._first_step
    assert first(b"resuming from step 40 of 600\nstep 60: loss 1\n", whole=False) == 40
    assert first(b"step 20: loss 1\n", whole=True) == 0
    assert first(b"", whole=False) is None
    assert first(b"quantity  value\n", whole=True) == 600


def test_pulling_the_plug_needs_root(capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "only root" in refused(pulled_plug.Config, pulled_plug.measure, capsys)
