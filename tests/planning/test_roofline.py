"""The roofline by hand, and a small step compiled for TPUs that are absent."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from gm_jax.errors import UserError
from gm_jax.planning import hlo, roofline
from gm_jax.planning.tpus import parse_slice
from gm_jax.training import optimizers, parallel, state
from gm_jax.training.step import make_train_step
from gm_jax.types import Mean, Model, Objective

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def make_cost(**values):
    memory = roofline.Memory(arguments=100, outputs=90, aliased=80, temporaries=30, program=7)
    settled = {"donated": True, "operations": 0, "conditionals": 0, "inner_loops": (), "compile_seconds": 1.0}
    work = {"matrix_flops": 0.0, "other_ops": 0.0, "hbm_bytes": 0.0, "cycles": 0.0, "collectives": {}}
    return roofline.Cost(**{"memory": memory, **work, **settled, **values})


def test_memory_counts_overwritten_arguments_once():
    assert make_cost().memory.total == 100 + 90 - 80 + 30 + 7


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-reduce", 2 * 3 / 4 * 1000),
        ("all-gather", 3 / 4 * 1000),
        ("all-to-all", 3 / 4 * 1000),
        ("reduce-scatter", 3 * 1000),
        ("collective-permute", 1000),
    ],
)
def test_bytes_sent_equal_those_of_a_ring(kind, sent):
    assert roofline.bytes_sent(kind, 1000, num_chips=4) == pytest.approx(sent)
    assert roofline.bytes_sent(kind, 1000, num_chips=1) == 0


def test_reduce_scatter_and_all_gather_send_as_much_as_all_reduce():
    apart = roofline.bytes_sent("reduce-scatter", 1000 / 8, 8) + roofline.bytes_sent("all-gather", 1000, 8)
    assert apart == pytest.approx(roofline.bytes_sent("all-reduce", 1000, 8))


@pytest.mark.parametrize(
    ("values", "bound", "seconds"),
    [
        ({"matrix_flops": 197e12}, "compute", 1.0),
        ({"hbm_bytes": 819e9 / 2}, "memory", 0.5),
        ({"collectives": {"all-reduce": hlo.Traffic(1, 200e9)}}, "interconnect", 2 * 255 / 256),
        ({"matrix_flops": 197e9, "hbm_bytes": 819e6 * 3}, "memory", 3e-3),
    ],
)
def test_the_slowest_of_the_three_bounds_a_step(values, bound, seconds):
    bounds = roofline.roofline(make_cost(**values), parse_slice("v5e:16x16"))
    assert bounds.bound == bound
    assert bounds.seconds == pytest.approx(seconds)


def test_a_single_chip_sends_nothing():
    cost = make_cost(matrix_flops=1.0, collectives={"all-reduce": hlo.Traffic(1, 1e9)})
    assert roofline.roofline(cost, parse_slice("v5e:1x1")).interconnect == 0


def test_without_libtpu_one_line_names_the_package_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'") as caught:
        roofline.topology_devices(parse_slice("v5e:2x2"))
    assert len(str(caught.value).splitlines()) == 1


@needs_libtpu
@pytest.mark.parametrize(
    "topology", ["v4:2x2x1", "v5e:1x1", "v5e:2x4", "v5e:16x16", "v5p:8x8x8", "v6e:4x4", "v4:16x16x16"]
)
def test_a_chip_is_one_device(topology):
    wanted = parse_slice(topology)
    assert len(roofline.topology_devices(wanted)) == wanted.num_chips


@needs_libtpu
def test_a_slice_that_is_not_made_of_whole_hosts_is_refused():
    with pytest.raises(UserError, match="not divisible"):
        roofline.topology_devices(parse_slice("v5e:3x3"))


def mlp(*, inner_steps):
    """A model whose step contains a loop."""

    def init(key, batch):
        return {"net": {"w": 0.1 * jax.random.normal(key, (256, 256)), "b": jnp.zeros((256,))}}, {"mean": jnp.zeros(())}

    def loss(params, model_state, key, batch):
        def body(h, _):
            return jnp.tanh(h @ params["net"]["w"] + params["net"]["b"][None]), None

        h, _ = jax.lax.scan(body, batch["x"], None, length=inner_steps)
        return jnp.mean(h**2), ({"mean": 0.9 * model_state["mean"] + 0.1 * jnp.mean(h)}, {"size": jnp.mean(jnp.abs(h))})

    return Model(init, (Objective("net", loss),), sample=None, sync={"mean": Mean()})


def compile_mlp(topology, *, steps=1, inner_steps=1, batch_size=512, strategy=parallel.pmap):
    model = mlp(inner_steps=inner_steps)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-3))}
    x = jax.ShapeDtypeStruct((batch_size, 256), jnp.float32)
    shapes = jax.eval_shape(lambda x: state.create(model, txs, jax.random.key(0), {"x": x}, ema=True), x)
    cost = roofline.compile_step(
        lambda strategy: make_train_step(
            model, txs, seed=0, ema_decay=0.9, axis_name=strategy.axis_name, spread=strategy.spread
        ),
        strategy(roofline.topology_devices(parse_slice(topology))),
        shapes,
        {"x": jax.ShapeDtypeStruct((steps, *x.shape), x.dtype)},
    )
    return cost, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def one_product(batch_size):
    """FLOPs of the model's only matrix product, on each of four chips."""
    return 2 * (batch_size // 4) * 256 * 256


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("strategy", [parallel.pmap, parallel.jit])
def test_gradients_metrics_and_model_state_travel_in_one_all_reduce(strategy):
    cost, state_bytes = compile_mlp("v5e:2x2", strategy=strategy)
    assert set(cost.collectives) == {"all-reduce"}
    scalars = 4 * 4  # the loss, the metric, the model's state, and whether it has changed
    assert cost.collectives["all-reduce"].count == 1
    assert 4 * (256 * 256 + 256) < cost.collectives["all-reduce"].num_bytes <= 4 * (256 * 256 + 256) + scalars
    assert cost.donated
    assert state_bytes <= cost.memory.aliased < 1.1 * state_bytes  # layouts pad to tiles


@pytest.mark.slow
@needs_libtpu
def test_each_of_several_steps_in_a_call_costs_as_much_as_one():
    one, _ = compile_mlp("v5e:2x2")
    many, _ = compile_mlp("v5e:2x2", steps=8)
    assert many.collectives["all-reduce"].count == one.collectives["all-reduce"].count == 1
    assert many.matrix_flops == one.matrix_flops == 3 * one_product(512) - one_product(512)  # none for the data
    assert many.other_ops == pytest.approx(one.other_ops, rel=0.01)
    assert many.inner_loops == one.inner_loops == ()


@pytest.mark.slow
@needs_libtpu
def test_arithmetic_in_a_loop_within_a_step_counts_once_per_iteration():
    cost, _ = compile_mlp("v5e:2x2", steps=3, inner_steps=20)
    assert set(cost.inner_loops) == {20}
    # In a loop the first iteration also computes the gradient of its input, which is not used.
    assert cost.matrix_flops == 20 * 3 * one_product(512)
    assert cost.collectives["all-reduce"].count == 1


@pytest.mark.slow
@needs_libtpu
def test_a_program_that_does_not_fit_raises_the_message_of_the_compiler():
    # 20 GB per chip, more than the 16 GiB of v5e.
    with pytest.raises(roofline.OutOfMemory, match="HBM"):
        compile_mlp("v5e:2x2", batch_size=4 * 20_000_000)
