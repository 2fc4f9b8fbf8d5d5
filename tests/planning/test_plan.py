"""`plan`: what every experiment would cost on TPUs, and how a user's mistakes end."""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import fvsbn, vae
from gm_jax.errors import UserError
from gm_jax.planning import hlo, plan, roofline, tpus
from gm_jax.runner import plan as verb
from gm_jax.runner.run import abstract_batch, assemble

REPO = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(
    path.stem for path in (REPO / "experiments").glob("*.py") if "runner.main(CONFIG)" in path.read_text()
)

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def planned(module, *, topology="v5e:2x2", batch_per_chip, parallel="pmap", **changes):
    config = dataclasses.replace(module.CONFIG, **changes)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, parallel=parallel))
    wanted = tpus.parse_slice(topology)
    run = assemble(config, pathlib.Path())
    made = verb.make_plan(run, wanted, roofline.topology_devices(wanted), batch_per_chip * wanted.num_chips)
    return made, run


def changed_state(run, objective):
    """The leaves of the model state that a player's loss does not hand back as they were, from its jaxpr."""
    shapes, key = run.abstract_state(), jax.eval_shape(lambda: jax.random.key(0))
    batch = abstract_batch(run.spec, run.config.train.batch_size)

    def moved(model_state, params, key, batch):
        return objective.loss(params, model_state, key, batch)[1][0]

    jaxpr = jax.make_jaxpr(moved)(shapes.model_state, shapes.params, key, batch).jaxpr
    return [out.aval for out, before in zip(jaxpr.outvars, jaxpr.invars, strict=False) if out is not before]


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_sends_its_gradients_at_once_and_gives_its_state_away(name):
    # Two of the techniques are of the images of all chips: what they send for that is in README's table.
    techniques = {"minibatch_discrimination": False, "feature_matching": False}
    changes = techniques if name == "improved_gan" else {}
    made, run = planned(importlib.import_module(f"experiments.{name}"), batch_per_chip=32, **changes)
    assert made.fits
    # One for each player that moves: each sees those before it already moved.
    assert set(made.cost.collectives) == {"all-reduce"}, "parameters are gathered, or more"
    # Of the model state what a move changes is averaged. Integers, as counts are, cannot travel with floats; those of
    # all players go together, for they wait for nobody's move.
    changed = [changed_state(run, objective) for objective in run.experiment.model.objectives]
    integers = any(leaf.dtype == jnp.int32 for leaves in changed for leaf in leaves)
    assert made.cost.collectives["all-reduce"].count == len(changed) + integers
    num_bytes = 4 * (made.num_params + sum(leaf.size for leaves in changed for leaf in leaves))
    assert made.cost.collectives["all-reduce"].num_bytes == pytest.approx(num_bytes, rel=0.02)
    assert made.cost.donated
    # In bytes on the chip, where layouts pad to tiles: all of the state, and nothing new but the metrics.
    assert made.cost.memory.aliased >= made.state_bytes
    assert made.cost.memory.outputs - made.cost.memory.aliased < 8192
    assert made.roofline.seconds > 0


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("batch", [128, 512])
@pytest.mark.parametrize("parallel", ["pmap", "jit"])
def test_the_matrix_products_of_the_vae_are_those_counted_by_hand(parallel, batch):
    made, _ = planned(vae, batch_per_chip=batch, parallel=parallel, hidden=(500, 500), latent_dim=50)
    encoder, decoder = (64 * 500, 500 * 500, 500 * 100), (50 * 500, 500 * 500, 500 * 64)
    forward = 2 * batch * sum(encoder + decoder)
    # Backward, each product comes twice, once for its weights and once for its input; the data need no gradient.
    by_hand = 3 * forward - 2 * batch * encoder[0]
    # The compiler puts them together with what is done before and after, but none twice and none away.
    assert made.cost.matrix_flops == by_hand
    assert 0 < made.cost.other_ops < 0.1 * by_hand
    assert made.cost.inner_loops == ()


@pytest.mark.slow
@needs_libtpu
def test_the_readmes_table_is_the_commands(command, tmp_path):
    flags = ("--markdown", "--train.parallel", "pmap", "--batch-per-chip", "128", "--plot", tmp_path / "plan.png")
    ended = command("plan", "--topology", "v5e:16x16", "v5p:8x8x8", *flags, experiment=fvsbn)
    assert ended.code == 0, ended.err
    lines = (REPO / "README.md").read_text().splitlines()
    printed = ended.out.splitlines()
    assert len(printed) == 4
    for line in printed:
        assert line in lines


@pytest.mark.slow
@needs_libtpu
def test_the_command_plans_for_several_slices_without_making_a_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ("--hidden", "16", "--latent-dim", "2", "--train.parallel", "pmap", "--train.steps-per-call", "1")
    written = ("--json", "deep/plan.json", "--plot", "deep/plan.png")
    ended = command("plan", "--topology", "v5e:2x2", "v5p:2x2x2", "--batch-per-chip", "8", *written, *tiny)
    assert ended.code == 0, ended.err
    head = next(line for line in ended.out.splitlines() if "v5e:2x2" in line)
    assert head.split() == ["v5e:2x2", "v5p:2x2x2"]
    rows = {line[:20].strip(): line[20:].split() for line in ended.out.splitlines()}
    assert rows["chips"] == ["4", "8"]
    assert rows["batch, all chips"] == ["32", "64"]
    assert rows["batch, a chip"] == ["8", "8"]
    for quantity in ("fits, share of HBM", "matrix products", "all-reduce", "bound by", "step", "examples/s"):
        assert quantity in rows, ended.out
    for chip in ("v5e", "v5p"):
        assert f"https://docs.cloud.google.com/tpu/docs/{chip}" in ended.out
    assert (tmp_path / "deep/plan.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "deep/plan.json").read_text())
    assert report["experiment"] == "experiments.vae"
    assert report["config"]["hidden"] == [16]
    assert [each["chips"] for each in report["plans"]] == [4, 8]
    for each in report["plans"]:
        assert each["fits"]
        assert each["donated"]
        assert each["seconds"]["step"] == max(each["seconds"].values())
        assert each["examples_per_second"] == pytest.approx(each["batch_size"] / each["seconds"]["step"])
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "give --topology"),
        (("--topology", "v9:2x2"), "is no topology"),
        (("--topology", "v5e:16x16"), "multiple of 256"),
        (("--topology", "v5e:2x2", "--batch-per-chip", "0"), "at least 1"),
        (("--topology", "v5e:2x2", "--json", "."), "is a folder"),
    ],
)
def test_a_mistake_ends_in_a_few_lines_before_anything_is_compiled(flags, said, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(roofline, "compile_step", lambda *_: pytest.fail("it compiled"))
    ended = command("plan", *flags)
    assert ended.code == 2
    assert said in ended.err
    assert len(ended.err.splitlines()) <= 3
    assert ended.out == ""
    assert not (tmp_path / "runs/vae").exists()


def test_the_configurations_batch_is_shared_out_where_none_is_given():
    wanted = tpus.parse_slice("v5e:4x4")
    assert plan.global_batch(128, None, wanted) == 128
    assert plan.global_batch(100, 32, wanted) == 512
    with pytest.raises(UserError, match="multiple of 16"):
        plan.global_batch(100, None, wanted)


def handmade(topology, *, bytes_accessed=819e6, refusal=None, inner_loops=()):
    cost = roofline.Cost(
        memory=roofline.Memory(2_000_000, 1_500_000, 1_400_000, 300_000, 50_000),
        matrix_flops=197e9,
        other_ops=2e6,
        bytes_accessed=bytes_accessed,
        collectives={"all-reduce": hlo.Traffic(1, 1e6)},
        donated=not inner_loops,
        inner_loops=inner_loops,
        compile_seconds=2.5,
    )
    sizes = {
        "strategy": "pmap",
        "batch_size": 1024,
        "steps_per_call": 1,
        "num_params": 12_345,
        "state_bytes": 1_400_000,
    }
    return plan.Plan(slice=tpus.parse_slice(topology), cost=None if refusal else cost, refusal=refusal, **sizes)


def test_speed_and_share_of_peak_follow_from_the_roofline():
    made = handmade("v5e:16x16")
    assert made.roofline.bound == "compute"
    assert made.roofline.seconds == pytest.approx(1e-3)
    assert made.examples_per_second == pytest.approx(1024e3)
    assert made.share_of_peak == pytest.approx(1.0)
    assert handmade("v5e:16x16", bytes_accessed=819e6 * 4).share_of_peak == pytest.approx(0.25)


def test_the_table_has_a_column_for_each_slice_and_dashes_for_what_is_not_known():
    text = plan.table([handmade("v5e:4x4"), handmade("v5e:2x2", refusal="needs 26G of 15.75G")])
    lines = {line[:22].strip(): line[22:].split() for line in text.splitlines()}
    assert lines["chips"] == ["16", "4"]
    assert lines["all-reduce"] == ["1", "of", "1", "MB", "-"]
    assert lines["fits, share of HBM"] == ["yes,", "0.0%", "-"]
    assert len({len(line.rstrip()) for line in text.splitlines()}) == 1


def test_what_loops_make_too_small_or_too_large_says_so():
    looping, plain = handmade("v5e:4x4", inner_loops=(28,)), handmade("v5e:4x4")
    text = plan.table([looping])
    lines = {line[:20].strip(): line[20:].strip() for line in text.splitlines()}
    assert lines["matrix products"] == "197 GFLOP"
    assert lines["bytes accessed"] == "at least 819 MB"
    assert lines["step"] == "at least 1 ms"
    assert lines["examples/s"].startswith("at most ")
    assert "at " not in plan.table([plain])


def test_markdown_is_a_row_for_each_slice():
    fit, refused = handmade("v5e:16x16"), handmade("v5e:2x2", refusal="too much")
    head, rule, first, second = plan.markdown("experiments.vae", [fit, refused]).splitlines()
    assert head.startswith("| experiment | topology | chips | memory |")
    assert set(rule) == set("| -")
    assert first == (
        "| `vae` | v5e:16x16 | 256 | 2.45 MB | 197 GFLOP | 2 Mop | 1 of 1 MB | none | 1 ms, compute | 100.0% |"
    )
    assert second.startswith("| `vae` | v5e:2x2 | 4 | does not fit | ")
    assert len({line.count("|") for line in (head, rule, first, second)}) == 1


def test_the_notes_say_what_the_numbers_leave_out():
    plain = "\n".join(plan.notes([handmade("v5e:4x4")], num_examples=5000))
    for said in ("does not fit", "Loops", "not donated", "refuses"):
        assert said not in plain
    refused = handmade("v5e:2x2", refusal="needs 26G of 15.75G")
    odd = "\n".join(plan.notes([refused, handmade("v5e:4x4", inner_loops=(28, None, 28))], num_examples=1000))
    for said in (
        "v5e:2x2 does not fit: needs 26G",
        "2 of 28 turns, 1 of ? turns",
        "not donated",
        "refuses a batch of 1,024",
    ):
        assert said in odd


def test_a_plan_that_does_not_fit_is_reported_and_drawn_too(tmp_path):
    plans = [handmade("v5e:1x1"), handmade("v5e:2x2", refusal="too much"), handmade("v5e:4x4"), handmade("v4:2x2x1")]
    report = json.loads(json.dumps(plan.as_json("experiments.vae", {"hidden": 3}, plans), allow_nan=False))
    assert [each["fits"] for each in report["plans"]] == [True, False, True, True]
    assert report["plans"][1]["refusal"] == "too much"
    plan.draw(tmp_path / "plan.png", plans)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (508_691_360, "FLOP", "508.7 MFLOP"),
        (999.96, "B", "1 kB"),
        (0, "B", "0 B"),
        (16e9, "B", "16 GB"),
        (2.5e-6, "s", "2.5 us"),
        (0.0125, "s", "12.5 ms"),
        (61, "s", "61 s"),
    ],
)
def test_numbers_are_written_in_powers_of_a_thousand(value, unit, text):
    assert plan._si(value, unit) == text


def test_help_answers_without_importing_jax():
    code = (
        "import runpy, sys; sys.argv = ['experiments.vae', 'plan', '--help']\n"
        "try: runpy.run_module('experiments.vae', run_name='__main__', alter_sys=True)\n"
        "finally: assert not {'jax', 'numpy', 'libtpu', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 0, done.stderr
    for flag in ("--topology", "--batch-per-chip", "--json", "--plot", "--train.parallel"):
        assert flag in done.stdout
