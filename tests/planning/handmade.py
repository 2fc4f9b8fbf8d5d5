"""Plans with numbers written by hand."""

from gm_jax.planning import hlo, plan, roofline, tpus


def handmade(topology, *, hbm_bytes=819e6, refusal=None, inner_loops=(), conditionals=0):
    """The plan of a step that takes 1 ms on v5e."""
    cost = roofline.Cost(
        memory=roofline.Memory(2_000_000, 1_500_000, 1_400_000, 300_000, 50_000),
        matrix_flops=197e9,
        other_ops=2e6,
        hbm_bytes=hbm_bytes,
        cycles=3e6,
        collectives={"all-reduce": hlo.Traffic(1, 1e6)},
        donated=not inner_loops,
        operations=1234.0,
        conditionals=conditionals,
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
