"""The parser of compiled programs, on texts written by hand and on a program that jax compiles here."""

import jax
import jax.numpy as jnp
import pytest

from gm_jax.planning import hlo
from gm_jax.planning.hlo import Traffic

FUSED = """\
HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), {1}: (1, {}, must-alias) }, x={}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.2 = f32[]{:T(128)} add(%a, %b)
}

ENTRY %main.9 (p.0: f32[500], p.1: bf16[50,500]) -> (f32[500], bf16[50,500]) {
  %p.0 = f32[500]{0:T(512)} parameter(0)
  %p.1 = bf16[50,500]{1,0:T(8,128)(2,1)} parameter(1)
  %all-reduce.16 = (f32[500]{0:T(512)S(1)}, bf16[50,500]{1,0:T(8,128)(2,1)}, /*index=2*/f32[]{:T(128)}) \
all-reduce(%p.0, %p.1, %c), replica_groups={{0,1}}, to_apply=%add.1, metadata={op_name="x/all-gather(y)" calls=%add.1}
  %get.1 = f32[500]{0:T(512)S(1)} get-tuple-element(%all-reduce.16), index=0
  ROOT %tuple.2 = (f32[500]{0}, bf16[50,500]{1,0}) tuple(%get.1, %all-reduce.16)
}
"""

NESTED = """\
HloModule nested

add (a: f32[], b: f32[]) -> f32[] {
  ROOT s = f32[] add(a, b)
}

%inside.1 (p: f32[8]) -> f32[8] {
  ROOT %r = f32[8]{0} all-reduce(%p), to_apply=%add
}

%inner.body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %f = f32[8]{0} fusion(%x), kind=kCustom, calls=%inside.1
  ROOT %t = (s32[], f32[8]) tuple(%i, %f)
}

%inner.cond (p: (s32[], f32[8])) -> pred[] {
  %c = s32[]{:T(128)} constant(7), metadata={op_name="jit"}
  %g = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%g, %c), direction=LT, metadata={op_name="cond/lt"}
}

%often (p: f32[8]) -> f32[8] {
  %one = f32[8]{0} collective-permute(%p), source_target_pairs={{0,1}}
  ROOT %two = f32[4]{0} reduce-scatter(%one), to_apply=%add
}

%seldom (p: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} parameter(0)
}

%outer.body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w = (s32[], f32[8]{0}) while(%p), condition=%inner.cond, body=%inner.body
  ROOT %k = f32[8]{0} conditional(%q, %p, %p), branch_computations={%seldom, %often}, metadata={op_name="cond"}
}

%outer.cond (p: (s32[], f32[8])) -> pred[] {
  %c = s32[] constant(10)
  ROOT %lt = pred[] compare(s32[] %g, s32[] %c), direction=LT
}

%unknown.cond (p: (s32[], f32[8])) -> pred[] {
  ROOT %go = pred[] custom-call(%p), custom_call_target="wait"
}

%gathering (p: f32[8]) -> f32[16] {
  ROOT %g = f32[16]{0} all-gather(%p), dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%p), condition=%outer.cond, body=%outer.body, backend_config={"a":"body=%gathering"}
  %v = (s32[], f32[8]{0}) while(%p), condition=%unknown.cond, body=%inner.body
  %start = ((f32[8]{0}), f32[16]{0}, u32[]) async-start(%p), calls=%gathering
  %done = f32[16]{0} async-done(%start), calls=%gathering
  %ags = (f32[8]{0}, f32[16]{0}) all-gather-start(%p), dimensions={0}
  %agd = f32[16]{0} all-gather-done(%ags)
  %ars = f32[8]{0} all-reduce-start(%p), to_apply=%add
  ROOT %ard = f32[8]{0} all-reduce-done(%ars)
}
"""


def test_a_fused_all_reduce_counts_once_with_the_bytes_of_all_members():
    program = hlo.parse(FUSED)
    assert program.collectives() == {"all-reduce": Traffic(1, 500 * 4 + 50 * 500 * 2 + 4)}
    assert program.loops() == []


def test_operations_count_once_per_iteration_and_names_never():
    program = hlo.parse(NESTED)
    # Ten times the inner loop of seven fusions and the larger branch, one more fusion, and three collectives.
    assert program.operations() == 10 * (7 + 2) + 1 + 3
    assert program.conditionals() == 1
    assert (hlo.parse(FUSED).operations(), hlo.parse(FUSED).conditionals()) == (1, 0)


def test_aliased_inputs_are_counted():
    assert hlo.parse(FUSED).num_aliased == 2
    assert hlo.parse(NESTED).num_aliased == 0


def test_collectives_count_once_per_iteration_and_asynchronous_ones_once():
    program = hlo.parse(NESTED)
    assert program.loops() == [10, 7, None]
    assert program.collectives() == {
        "all-reduce": Traffic(10 * 7 + 1 + 1, (10 * 7 + 1 + 1) * 32),
        "collective-permute": Traffic(10, 10 * 32),  # the larger branch
        "reduce-scatter": Traffic(10, 10 * 16),
        "all-gather": Traffic(2, 2 * 64),
    }


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("f32[]", 4),
        ("f32[8,2]{1,0:T(8,128)S(1)}", 64),
        ("bf16[3]{0}", 6),
        ("(s32[2]{0}, pred[5]{0}, /*index=2*/u8[4])", 17),
        ("s4[6]{0}", 3),
        ("f8e4m3fn[7]", 7),
        ("f32[0,4]", 0),
        ("token[]", 0),
    ],
)
def test_bytes_of_types(text, num_bytes):
    assert hlo.type_bytes(text) == num_bytes


def test_a_program_that_jax_compiles_here_is_parsed():
    def step(carry, x):
        return carry + jax.lax.psum(x, "batch"), ()

    mapped = jax.pmap(lambda c, x: jax.lax.scan(step, c, x)[0], "batch", in_axes=(None, 0), donate_argnums=0)
    shape = jax.ShapeDtypeStruct((16,), jnp.float32)
    text = mapped.lower(shape, jax.ShapeDtypeStruct((2, 5, 16), jnp.float32)).compile().as_text()
    program = hlo.parse(text)
    assert program.loops() == [5]
    assert program.collectives() == {"all-reduce": Traffic(5, 5 * 64)}
