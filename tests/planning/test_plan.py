"""`plan`: the cost of every experiment on TPUs, and the messages for mistakes."""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import typing
from collections.abc import Mapping

import jax
import pytest

from experiments import fvsbn, nade, vae
from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.planning import plan, roofline, tpus
from gm_jax.recipes import presets
from gm_jax.recipes.configs import ChainsConfig, MLPConfig, SpatialAutoencoderConfig, TextEncoderConfig, UNetConfig
from gm_jax.runner.plan import known_source, make_plan
from gm_jax.runner.run import Given, abstract_batch, assemble
from gm_jax.training.model_state import local_view
from gm_jax.types import Mean, Rows
from tests.planning.handmade import handmade

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
    made = make_plan(run, wanted, roofline.topology_devices(wanted), batch_per_chip * wanted.num_chips)
    return made, run


# These compile as users compile them. What the tests of the others look at is the same in both programs.
IN_FULL = ("fvsbn", "improved_gan", "rbm", "vae")


@pytest.fixture
def quick_compiler(request):
    """Has XLA for TPUs leave out the passes that take longest, unless the experiment is one of IN_FULL."""
    before = jax.config.jax_exec_time_optimization_effort
    jax.config.update(
        "jax_exec_time_optimization_effort", before if request.getfixturevalue("name") in IN_FULL else -1.0
    )
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)


def averaged_state(run, objective):
    """The leaves of the model state that are averaged and that a player's loss does not return unchanged (jaxpr)."""
    shapes, key = run.abstract_state(), jax.eval_shape(lambda: jax.random.key(0))
    batch = abstract_batch(run.spec, run.config.train.batch_size)

    def next_state(model_state, params, key, batch):
        sync, size = run.experiment.model.sync, run.config.train.batch_size
        seen = local_view(model_state, sync, batch_size=size, axis_name=None)
        return objective.loss(params, seen, key, batch)[1][0]

    def declared(path):
        found = run.experiment.model.sync
        for key in path:
            found = found[key.key] if isinstance(found, Mapping) else found
        return found

    jaxpr = jax.make_jaxpr(next_state)(shapes.model_state, shapes.params, key, batch).jaxpr
    paths = [path for path, _ in jax.tree.leaves_with_path(shapes.model_state)]
    leaves = zip(paths, jaxpr.outvars, jaxpr.invars, strict=False)
    return [out.aval for path, out, before in leaves if out is not before and isinstance(declared(path), Mean)]


# One layer of each kind: the others are like it, and each compiles for some ten seconds.
SMALL = {
    "masked_diffusion": {"layers": 1},
    "transformer": {"layers": 1},
    "pixelcnn_pp": {"features": 8},
    "text_to_image": {
        "autoencoder": SpatialAutoencoderConfig(features=(8, 16)),
        "text": TextEncoderConfig(layers=1),
    },
}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@needs_libtpu
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_reduces_its_gradients_at_once_and_donates_its_state(name, quick_compiler):
    # Two of the techniques need the images of all chips: docs/planning.md has what they send.
    techniques = {"minibatch_discrimination": False, "feature_matching": False}
    chains = {"chains": ChainsConfig(persistent=3_200)}  # a multiple of both batches
    changes = {"improved_gan": techniques, "ebm": chains, "jem": chains, "rbm": {"chains": 128}} | SMALL
    changes = dict(changes.get(name, {}))
    module = importlib.import_module(f"experiments.{name}")
    takes_unet = "UNetConfig" in str(typing.get_type_hints(type(module.CONFIG)).get("network"))
    if takes_unet and not isinstance(getattr(module.CONFIG, "network", None), MLPConfig):
        # With a block of every kind, and small: those of the default compile for a minute each.
        changes["network"] = UNetConfig(features=(8, 16), attention=(1,))
    made, run = planned(module, batch_per_chip=32, **changes)
    assert made.fits
    # One for each player: each player sees the updates of those before it.
    keeps_rows = any(isinstance(declared, Rows) for declared in run.experiment.model.sync.values())
    keeps_rows = keeps_rows and "chains" in run.abstract_state().model_state
    expected = {"all-reduce", "all-gather"} if keeps_rows else {"all-reduce"}
    assert set(made.cost.collectives) == expected, "parameters are gathered, or more"
    averaged = [averaged_state(run, objective) for objective in run.experiment.model.objectives]
    assert made.cost.collectives["all-reduce"].count == len(averaged)
    num_bytes = 4 * (made.num_params + sum(leaf.size for leaves in averaged for leaf in leaves))
    assert made.cost.collectives["all-reduce"].num_bytes == pytest.approx(num_bytes, rel=0.02)
    assert made.cost.donated
    # In bytes on the chip, with layouts padded to tiles: the whole state, and nothing new except the metrics.
    assert made.cost.memory.aliased >= made.state_bytes
    assert made.cost.memory.outputs - made.cost.memory.aliased <= 12 * 1024  # a tile for each metric
    assert made.roofline.seconds > 0


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(("parallel", "batch"), [("pmap", 128), ("jit", 512)])
def test_the_matrix_products_of_the_vae_equal_a_count_by_hand(parallel, batch):
    made, _ = planned(vae, batch_per_chip=batch, parallel=parallel, hidden=(500, 500), latent_dim=50)
    encoder, decoder = (64 * 500, 500 * 500, 500 * 100), (50 * 500, 500 * 500, 500 * 64)
    forward = 2 * batch * sum(encoder + decoder)
    # Each product comes twice in the backward pass, for its weights and for its input; the data need no gradient.
    by_hand = 3 * forward - 2 * batch * encoder[0]
    # The compiler fuses them with other work, but repeats and removes none.
    assert made.cost.matrix_flops == by_hand
    assert 0 < made.cost.other_ops < 0.1 * by_hand
    assert made.cost.inner_loops == ()


@pytest.mark.slow
@needs_libtpu
def test_nade_computes_its_positions_in_blocks_on_tpus():
    spec = sources.Spec("images", (28, 28, 1), 2, None, "")
    run = assemble(nade.CONFIG, pathlib.Path(), given=Given(source=sources.Source(spec, {})))
    wanted = tpus.parse_slice("v5e:2x2")
    made = make_plan(run, wanted, roofline.topology_devices(wanted), 32 * wanted.num_chips)
    assert made.known_cost.inner_loops
    assert max(made.known_cost.inner_loops) == 7  # blocks of 112 positions
    # The sums of (4) are a product at least in the forward pass.
    assert made.known_cost.matrix_flops > 2 * 32 * 784 * 112 * nade.CONFIG.hidden


@pytest.mark.slow
@needs_libtpu
def test_the_page_has_the_rows_that_the_command_prints(command, tmp_path):
    flags = ("--markdown", "--train.parallel", "pmap", "--batch-per-chip", "128", "--plot", tmp_path / "plan.png")
    ended = command("plan", "--topology", "v5e:16x16", "v5p:8x8x8", *flags, experiment=fvsbn)
    assert ended.code == 0, ended.err
    lines = (REPO / "docs/planning.md").read_text().splitlines()
    printed = ended.out.splitlines()
    assert len(printed) == 4
    for line in printed:
        assert line in lines


@pytest.mark.slow
@needs_libtpu
def test_the_command_plans_for_several_slices_and_makes_no_run(command, tmp_path, monkeypatch):
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
    assert rows["batch, per chip"] == ["8", "8"]
    for quantity in (
        "fits, share of HBM",
        "matrix products",
        "all-reduce",
        "bound by",
        "step, at least",
        "examples/s, at most",
    ):
        assert quantity in rows, ended.out
    for chip in ("v5e", "v5p"):
        assert f"https://docs.cloud.google.com/tpu/docs/{chip}" in ended.out
    assert (tmp_path / "deep/plan.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((tmp_path / "deep/plan.json").read_text())
    assert saved["experiment"] == "experiments.vae"
    assert saved["config"]["hidden"] == [16]
    assert [each["chips"] for each in saved["plans"]] == [4, 8]
    for each in saved["plans"]:
        assert each["fits"]
        assert each["donated"]
        assert each["seconds"]["step"] == max(each["seconds"].values())
        assert each["examples_per_second"] == pytest.approx(each["batch_size"] / each["seconds"]["step"])
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_a_plan_of_a_preset_reads_no_data(name, monkeypatch):
    monkeypatch.setattr(sources, "load", lambda *_: pytest.fail("it read the data"))
    config = presets.PRESETS[name].config
    run = assemble(config, pathlib.Path(), given=Given(source=known_source(config)))
    assert run.spec.shape == presets.PRESETS[name].shape
    measures = {"binarized_mnist": "binary", "imagenet256_latents": "continuous"}
    assert run.spec.measure == measures.get(config.data.name, "256 levels")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@needs_libtpu
@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_the_step_of_every_preset_compiles_for_tpus(name, quick_compiler):
    preset = presets.PRESETS[name]
    config = preset.config
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, parallel="pmap"))
    run = assemble(config, pathlib.Path(), given=Given(source=known_source(config)))
    # At most eight examples a chip, which compile in less time than many; docs/presets.md has the preset's batch.
    wanted = tpus.parse_slice("v5e:2x4")
    batch_size = min(8, -(-config.train.batch_size // wanted.num_chips)) * wanted.num_chips
    made = make_plan(run, wanted, roofline.topology_devices(wanted), batch_size)
    assert made.fits
    assert set(made.known_cost.collectives) == {"all-reduce"}
    assert made.known_cost.donated
    # More than a forward pass, in which each parameter is used once for each example.
    assert made.known_cost.matrix_flops > 4 * preset.parameters * batch_size / wanted.num_chips


def test_a_known_set_is_planned_in_the_size_that_is_asked_for_and_others_are_read():
    data = dataclasses.replace(vae.CONFIG.data, name="cifar100", size=64)
    assert known_source(dataclasses.replace(vae.CONFIG, data=data)).spec.shape == (64, 64, 3)
    assert known_source(vae.CONFIG) is None


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "give --topology"),
        (("--topology", "v9:2x2"), "is not a topology"),
        (("--topology", "v5e:16x16"), "multiple of 256"),
        (("--topology", "v5e:2x2", "--batch-per-chip", "0"), "at least 1"),
        (("--topology", "v5e:2x2", "--json", "."), "is a folder"),
    ],
)
def test_a_mistake_is_reported_in_a_few_lines_before_compiling(flags, text, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(roofline, "compile_step", lambda *_: pytest.fail("it compiled"))
    ended = command("plan", *flags)
    assert ended.code == 2
    assert text in ended.err
    assert len(ended.err.splitlines()) <= 3
    assert ended.out == ""
    assert not (tmp_path / "runs/vae").exists()


def test_without_a_batch_per_chip_the_configured_batch_is_split():
    wanted = tpus.parse_slice("v5e:4x4")
    assert plan.global_batch(128, None, wanted) == 128
    assert plan.global_batch(100, 32, wanted) == 512
    with pytest.raises(UserError, match="multiple of 16"):
        plan.global_batch(100, None, wanted)


def test_speed_and_share_of_peak_follow_from_the_roofline():
    made = handmade("v5e:16x16")
    assert made.roofline.bound == "compute"
    assert made.roofline.seconds == pytest.approx(1e-3)
    assert made.examples_per_second == pytest.approx(1024e3)
    assert made.share_of_peak == pytest.approx(1.0)
    assert handmade("v5e:16x16", hbm_bytes=819e6 * 4).share_of_peak == pytest.approx(0.25)


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
