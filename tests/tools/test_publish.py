"""A run's result becomes a record, with where and how it was measured."""

import io
import json
import shutil
from pathlib import Path

import pytest

from experiments import vae
from gm_jax import runner
from gm_jax.config.saved import Saved, to_dict
from gm_jax.errors import UserError
from gm_jax.evaluation import results as run_results
from gm_jax.recipes.run_length import resolved
from tools import publish, publish_comparison, publish_plans, results

REPO = Path(__file__).parents[2]
# The flags of the run in tests/runner/data/legacy_vae.
COMMAND = (
    "python -m experiments.vae --train.steps 20 --train.batch-size 32 --train.steps-per-call 2 --train.log-every 10 "
    "--train.checkpoint-every 10 --train.keep-checkpoints 1 --train.patience 0 --optimizer.schedule constant "
    "--optimizer.warmup-steps 5 --hidden 4 --latent-dim 2 --importance-samples 3 --validation-samples 2"
)


@pytest.fixture
def places(tmp_path):
    """A run, and a folder of records with one row."""
    shutil.copytree(REPO / "tests" / "runner" / "data" / "legacy_vae", tmp_path / "run")
    columns = [{"title": "model", "field": "model"}, {"title": "NLL", "number": "nll", "unit": "nats", "digits": 2}]
    kept = {"id": "kept", "model": "another", "data": "digits", "numbers": []}
    (tmp_path / "vae.json").write_text(json.dumps({"columns": columns, "rows": [kept]}))
    return tmp_path


def run(places, capsys, *more, command=COMMAND):
    argv = [str(places / "run"), "--table", "vae", "--row", "tiny", "--model", "a tiny VAE", "--minutes", "0.5"]
    argv += ["--command", command, "--folder", str(places), *more]
    code = 0
    try:
        runner.program(publish.Config, publish.publish, argv)
    except SystemExit as ended:
        code = ended.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_record_holds_the_numbers_of_the_run_and_where_it_ran(places, capsys):
    code, out = run(places, capsys, "--busy", "--published", "21.5", "--source", "nobody (2020)")
    assert code == 0, out
    content = json.loads((places / "vae.json").read_text())
    kept, record = content["rows"]
    assert kept["id"] == "kept"
    measured = {(one.name, one.unit): one for one in run_results.read(places / "run" / "results.json")}
    nats = measured["nll", "nats"]
    (number, bits) = record["numbers"]
    assert number["value"] == nats.value
    assert number["standard_error"] == nats.settings["standard_error"]
    assert (number["kind"], number["measure"], number["split"], number["examples"]) == (
        "lower_bound",
        "binary",
        "test",
        180,
    )
    assert number["settings"]["K"] == 3
    assert bits["unit"] == "bits/dim"
    (start,) = json.loads((places / "run" / "versions.json").read_text())
    assert record["commit"] == start["git"] is not None
    assert record["versions"] == start["packages"]
    assert record["device"].endswith("cpu:0")
    assert (record["busy"], record["minutes"], record["command"]) == (True, 0.5, COMMAND)
    error = number["standard_error"]
    assert results.markdown(content).splitlines()[-1] == f"| a tiny VAE | <= {nats.value:.2f} ± {error:.2f} |"


def test_a_row_of_the_same_name_is_replaced_in_its_place(places, capsys):
    run(places, capsys)
    run(places, capsys, "--row", "kept")
    rows = json.loads((places / "vae.json").read_text())["rows"]
    assert [row["id"] for row in rows] == ["kept", "tiny"]
    assert rows[0]["model"] == "a tiny VAE"


def test_the_command_of_another_run_is_refused(places, capsys):
    before = (places / "vae.json").read_text()
    code, out = run(places, capsys, command=COMMAND.replace("--hidden 4", "--hidden 5"))
    assert code == 2
    assert "hidden: [4] (saved) != (5,)" in out
    code, out = run(places, capsys, command="python -m experiments.vae evaluate")
    assert code == 2
    assert "give the command that made the run" in out
    code, out = run(places, capsys, command="make demo")
    assert code == 2
    assert (places / "vae.json").read_text() == before


def test_several_results_of_one_name_need_a_choice(places, capsys):
    path = places / "run" / "results.json"
    records = run_results.read(path)
    more = [one._replace(value=40.0, settings={**one.settings, "K": 50}) for one in records if one.name == "nll"]
    run_results.write(path, records + more)
    code, out = run(places, capsys)
    assert code == 2
    assert "choose by --settings" in out
    code, out = run(places, capsys, "--settings", "K=50")
    assert code == 0, out
    assert json.loads((places / "vae.json").read_text())["rows"][1]["numbers"][0]["value"] == 40.0


def test_an_unknown_table_and_a_run_without_results_are_refused(places, capsys):
    code, out = run(places, capsys, "--table", "vea")
    assert code == 2
    assert "there is no table 'vea'" in out
    (places / "run" / "results.json").unlink()
    code, out = run(places, capsys)
    assert code == 2
    assert "evaluate the run first" in out


def test_plans_are_read_from_what_the_command_prints(tmp_path, capsys, monkeypatch):
    shutil.copy(results.RECORDS / "plans.json", tmp_path / "plans.json")
    before = results.read("plans", tmp_path)
    first = results.markdown(before).splitlines()[2]
    cells = first.split(" | ")
    changed = " | ".join([*cells[:-1], "99.9 k |"])  # cycles, the last column
    assert changed != first
    new = changed.replace("`vae`", "`new`")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"a line\n| experiment |\n{changed}\n{new}\n"))
    runner.program(publish_plans.Config, publish_plans.publish, ["--folder", str(tmp_path)])
    assert "2 plans" in capsys.readouterr().out
    after = results.read("plans", tmp_path)
    lines = results.markdown(after).splitlines()
    assert (lines[2], lines[-1]) == (changed, new)
    assert after["rows"][1:-1] == before["rows"][1:]


def test_a_command_with_the_default_warm_up_is_that_of_its_run():
    config = resolved(vae.CONFIG)
    assert config.optimizer.warmup_steps == 100
    publish.check_command("python -m experiments.vae", Saved(config.recipe, to_dict(config), {}))


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", "[" * 100_000, '[{"packages": NaN}]', '[{"packages": {}, "git": "x"}]']
)
def test_a_damaged_file_of_versions_is_named(damage, tmp_path):
    path = tmp_path / "versions.json"
    path.write_text(damage)
    with pytest.raises(UserError, match=r"versions.json is missing or damaged"):
        publish.where_it_ran(path, None)


@pytest.mark.parametrize("damage", ["", "[" * 100_000, '{"rows": NaN}', "\xff"])
def test_a_damaged_file_of_records_is_named(damage, tmp_path):
    (tmp_path / "vae.json").write_text(damage, encoding="latin-1")
    with pytest.raises(UserError, match=r"vae.json is damaged .*: restore it"):
        results.read("vae", tmp_path)


def test_a_row_that_is_replaced_keeps_the_facts_of_its_data(places, capsys):
    assert run(places, capsys)[0] == 0
    content = json.loads((places / "vae.json").read_text())
    entropy = {"name": "entropy", "value": 2.394, "unit": "nats", "split": None}
    stale = {**content["rows"][1]["numbers"][0], "name": "frechet", "value": 1.0}
    content["rows"][1]["numbers"] += [entropy, stale]
    (places / "vae.json").write_text(json.dumps(content))
    assert run(places, capsys)[0] == 0
    numbers = json.loads((places / "vae.json").read_text())["rows"][1]["numbers"]
    assert [number["name"] for number in numbers] == ["nll", "nll", "entropy"]
    assert numbers[-1] == entropy


def _score(family, name, value, data="binarized_digits", unit="nats", kind="lower_bound", measure="binary", **settings):
    return run_results.Record(name, value, unit, kind, data, measure, "test", 180, {"family": family, **settings})


def test_the_families_of_a_comparison_become_records(tmp_path, capsys):
    folder = tmp_path / "compare"
    folder.mkdir()
    records = [
        _score("the data", "recall[digits-cnn]", 0.92, unit="share", kind="score"),
        _score("latent diffusion", "nll", 20.5, K=100, standard_error=0.25),
        _score("latent diffusion", "nll", 0.46, unit="bits/dim"),
        _score("latent diffusion", "nll", 5.0, data="digits4x4"),
        _score("latent diffusion", "steps", 3520.0, unit="steps", kind="score"),
        _score("GAN", "nll", -11.5, kind="estimate", measure="continuous", space="[0,1]^64"),
    ]
    run_results.write(folder / "results.json", records)
    start = {"packages": {"jax": "0.10.2"}, "git": "abc", "devices": ["TFRT_CPU_0"]}
    (folder / "versions.json").write_text(json.dumps([start]))
    kept = {"id": "VAE", "model": "VAE", "data": "binarized_digits", "labels": {"measure": "binary"}, "numbers": []}
    old = {**kept, "id": "GAN", "model": "GAN"}
    columns = results.read("comparison")["columns"]
    (tmp_path / "comparison.json").write_text(json.dumps({"columns": columns, "rows": [kept, old]}))
    argv = [str(folder), "--minutes", "11.5", "--folder", str(tmp_path), "--device", "two cores"]
    runner.program(publish_comparison.Config, publish_comparison.publish, argv)
    assert "3 families" in capsys.readouterr().out
    content = results.read("comparison", tmp_path)
    assert content["minutes"] == 11.5
    rows = {row["id"]: row for row in content["rows"]}
    assert list(rows) == ["VAE", "GAN", "the-data", "latent-diffusion"]
    assert rows["VAE"] == kept
    shown = {
        column["title"]: results.cell({"command": None, **rows["latent-diffusion"]}, column)
        for column in content["columns"]
    }
    assert shown["family"] == "latent diffusion"
    assert shown["test NLL, nats"] == "<= 20.50 ± 0.25, K = 100"
    assert (shown["measure"], shown["steps"]) == ("binary", "3,520")
    assert rows["GAN"]["labels"] == {"measure": "density on [0,1]^64"}
    assert rows["the-data"]["model"] == "the data (180 held-out images)"
    assert (rows["GAN"]["device"], rows["GAN"]["commit"], rows["GAN"]["busy"]) == ("two cores", "abc", False)
    argv += ["--data", "toy:pinwheel"]
    with pytest.raises(SystemExit):
        runner.program(publish_comparison.Config, publish_comparison.publish, argv)
    assert "has no results on toy:pinwheel" in capsys.readouterr().err
