"""Bytes of HBM of programs written by hand, and of programs that the compiler of TPUs makes."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from gm_jax.planning import hbm, hlo, roofline, tpus

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
KIB = 1024  # bytes of f32[256]


def of_entry(*lines, computations=""):
    text = "\n".join(("HloModule m", computations, "ENTRY %main (p: f32[256]) -> f32[256] {", *lines, "}", ""))
    return hbm.hbm_bytes(hlo.parse(text)) / KIB


P = "  %p = f32[256]{0:T(256)} parameter(0)"
Q = """\
  %q = f32[256]{0:T(256)S(1)} add(%p, %p)
  %u = f32[128]{0:T(128)} iota()
  %i = s32[]{:S(2)} constant(3)"""  # q and i are in memories of the core


@pytest.mark.parametrize(
    ("line", "kib"),
    [
        ("%r = f32[256]{0:T(256)} add(%p, %q)", 2),
        ("%r = f32[256]{0:T(256)S(1)} add(%q, %q)", 0),
        ("%r = (f32[256]{0:T(256)S(1)}, f32[256]{0:T(256)}, u32[]{:S(2)}) copy-start(%p)", 1),
        ("%r = (f32[256]{0:T(256)}, f32[256]{0:T(256)S(1)}, u32[]{:S(2)}) copy-start(%q)", 1),
        ("%r = f32[256]{0:T(256)S(1)} copy-done(%q)", 0),
        ("%r = ((f32[256]{0:T(256)}), f32[64]{0:T(256)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:64]}", 1),
        ("%r = f32[128]{0:T(128)} slice(%p), slice={[0:128]}", 0.5 + 0.5),
        ("%r = f32[128]{0:T(128)} dynamic-slice(%q, %i), dynamic_slice_sizes={128}", 0.5),
        ("%r = f32[256]{0:T(256)} dynamic-update-slice(%p, %u, %i)", 0.5 + 0.5),
        ("%r = f32[256]{0:T(256)} all-reduce(%p), to_apply=%add", 2),
        ("%r = (f32[256]{0:T(256)}, f32[512]{0:T(512)}) all-gather-start(%p), dimensions={0}", 3),
        ('%r = f32[256]{0:T(256)} custom-call(%p), custom_call_target="ConcatBitcast"', 0),
        ("%r = f32[256]{0:T(256)} add-dependency(%p, %q)", 0),
        ('%r = f32[256]{0:T(256)} custom-call(%p), custom_call_target="tpu_custom_call"', 2),
        ('%r = (f32[64]{0:T(64)}, s32[64]{0:T(64)}) custom-call(%p), custom_call_target="TopK"', 1 + 0.25 + 0.25),
        ("%r = ((f32[256]{0:T(256)}), f32[64]{0:T(64)}, u32[]{:S(2)}) reduce-scatter-start(%p)", 1 + 0.25),
        ("%r = f32[256]{0:T(256)} scatter(%p, %i, %u), to_apply=%add", 0.5 + 0.5),
        ("%r = f32[16,16]{1,0:T(8,128)} bitcast(%p)", 0),
        ("%r = f32[9,3]{1,0:T(8,128)} iota()", 16 * 128 * 4 / KIB),  # padded to whole tiles
        ("%r = bf16[3,9]{0,1:T(8,128)(2,1)} iota()", 16 * 128 * 2 / KIB),
        ("%r = f32[256]{0} iota()", 1),
    ],
)
def test_an_operation_moves_what_is_in_hbm(line, kib):
    assert of_entry(P, Q, "  ROOT " + line) - of_entry(P, Q) == pytest.approx(kib)
    assert of_entry(P, Q) == 2.5  # p twice, and u


LOOP = """
%body (t: (s32[], f32[256])) -> (s32[], f32[256]) {
  %x = f32[256]{0:T(256)} get-tuple-element(%t), index=1
  %y = f32[256]{0:T(256)} add(%x, %x)
  ROOT %n = (s32[], f32[256]) tuple(%i, %y)
}

%condition (t: (s32[], f32[256])) -> pred[] {
  %c = s32[] constant(5)
  ROOT %lt = pred[] compare(%g, %c), direction=LT
}

%many (x: f32[256]) -> f32[256] {
  %x = f32[256]{0:T(256)} parameter(0)
  ROOT %y = f32[256]{0:T(256)} negate(%x)
}

%few (x: f32[256]) -> f32[256] {
  ROOT %x = f32[256]{0:T(256)} parameter(0)
}
"""


def test_loops_count_once_per_iteration_and_conditionals_as_their_larger_branch():
    loop = "  ROOT %w = (s32[], f32[256]{0:T(256)}) while(%t), condition=%condition, body=%body"
    assert of_entry(P, loop, computations=LOOP) == 5 * 3
    choice = "  ROOT %k = f32[256]{0:T(256)} conditional(%b, %p, %p), branch_computations={%few, %many}"
    assert of_entry(P, choice, computations=LOOP) == 2


FUSIONS = """
%slicing (s: f32[8,256], i: s32[]) -> f32[256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  %flat = f32[2048]{0:T(256)} bitcast(%s)
  %row = f32[256]{0:T(256)} dynamic-slice(%flat, %i), dynamic_slice_sizes={256}
  ROOT %y = f32[256]{0:T(256)} negate(%row)
}

%reading (s: f32[8,256], i: s32[]) -> f32[256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[1,256]{1,0:T(1,256)} dynamic-slice(%s, %i, %z), dynamic_slice_sizes={1,256}
  %all = f32[256]{0:T(256)} reduce(%s, %z), dimensions={0}, to_apply=%add
  ROOT %y = f32[256]{0:T(256)} add(%all, %row)
}

%updating (s: f32[8,256], x: f32[256]) -> (f32[8,256], f32[256]) {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %row = f32[1,256]{1,0:T(1,256)} bitcast(%x)
  %new = f32[8,256]{1,0:T(8,128)} dynamic-update-slice(%s, %row, %i, %z)
  ROOT %both = (f32[8,256]{1,0:T(8,128)}, f32[256]{0:T(256)}) tuple(%new, %x)
}

%nesting (s: f32[8,256], i: s32[]) -> f32[256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  ROOT %inner = f32[256]{0:T(256)} fusion(%s, %i), kind=kLoop, calls=%slicing
}

%filling (x: f32[256]) -> f32[8,256] {
  %x = f32[256]{0:T(256)} parameter(0)
  %zero = f32[8,256]{1,0:T(8,128)} broadcast(%z), dimensions={}
  %row = f32[1,256]{1,0:T(1,256)} bitcast(%x)
  ROOT %new = f32[8,256]{1,0:T(8,128)} dynamic-update-slice(%zero, %row, %z, %z)
}

%adding (s: f32[8,256], x: f32[256], i: s32[]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %i = s32[] parameter(2)
  ROOT %new = f32[8,256]{1,0:T(8,128)} scatter(%s, %i, %x), to_apply=%add
}

%renaming (x: f32[256]) -> f32[2,128] {
  %x = f32[256]{0:T(256)} parameter(0)
  ROOT %y = f32[2,128]{1,0:T(2,128)} bitcast(%x)
}

%halves (s: f32[8,256]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %left = f32[8,256]{1,0:T(8,128)} slice(%s), slice={[0:8], [0:256]}
  %right = f32[8,256]{1,0:T(8,128)} slice(%s), slice={[0:8], [0:256]}
  ROOT %y = f32[8,256]{1,0:T(8,128)} add(%left, %right)
}

%writing (s: f32[8,256], x: f32[256]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %row = f32[1,256]{1,0:T(1,256)} bitcast(%x)
  ROOT %new = f32[8,256]{1,0:T(8,128)} dynamic-update-slice(%s, %row, %i, %z)
}

%wrapping (s: f32[8,256], x: f32[256]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  ROOT %inner = f32[8,256]{1,0:T(8,128)} fusion(%s, %x), kind=kLoop, calls=%writing
}

%retiling (r: f32[8,256]) -> f32[8,256] {
  %r = f32[8,256]{1,0:T(8,128)} parameter(0)
  ROOT %c = f32[8,256]{1,0:T(4,128)} copy(%r)
}

%reading_retiled (s: f32[8,256], i: s32[]) -> f32[256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  %t = f32[8,256]{1,0:T(4,128)} fusion(%s), output_to_operand_aliasing={{}: (0, {})}, calls=%retiling
  %row = f32[1,256]{1,0:T(1,256)} dynamic-slice(%t, %i, %z), dynamic_slice_sizes={1,256}
  ROOT %y = f32[256]{0:T(256)} bitcast(%row)
}

%writing_retiled (s: f32[8,256], x: f32[256]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %t = f32[8,256]{1,0:T(4,128)} fusion(%s), output_to_operand_aliasing={{}: (0, {})}, calls=%retiling
  %row = f32[1,256]{1,0:T(1,256)} bitcast(%x)
  ROOT %new = f32[8,256]{1,0:T(8,128)} dynamic-update-slice(%t, %row, %i, %z)
}

%copying (s: f32[8,256], x: f32[256]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %t = f32[8,256]{1,0:T(4,128)} fusion(%s), calls=%retiling
  %row = f32[1,256]{1,0:T(1,256)} bitcast(%x)
  ROOT %new = f32[8,256]{1,0:T(8,128)} dynamic-update-slice(%t, %row, %i, %z)
}

%midway (s: f32[8,256], x: f32[256]) -> f32[8,256] {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %row = f32[1,256]{1,0:T(1,256)} bitcast(%x)
  %new = f32[8,256]{1,0:T(8,128)} dynamic-update-slice(%s, %row, %i, %z)
  ROOT %y = f32[8,256]{1,0:T(8,128)} negate(%new)
}

%passing (s: f32[8,256], x: f32[256]) -> (f32[8,256], f32[256]) {
  %s = f32[8,256]{1,0:T(8,128)} parameter(0)
  %x = f32[256]{0:T(256)} parameter(1)
  %y = f32[256]{0:T(256)} negate(%x)
  ROOT %both = (f32[8,256]{1,0:T(8,128)}, f32[256]{0:T(256)}) tuple(%s, %y)
}

%counting () -> f32[256] {
  ROOT %i = f32[256]{0:T(256)} iota(), iota_dimension=0
}
"""
S = """\
  %s = f32[8,256]{1,0:T(8,128)} parameter(1)
  %c = f32[8,256]{1,0:T(8,128)S(1)} constant(0)
  %i = s32[]{:S(2)} constant(3)"""


@pytest.mark.parametrize(
    ("line", "kib"),
    [
        ("%f = f32[256]{0:T(256)S(1)} fusion(%s, %i), kind=kLoop, calls=%slicing", 1),
        ("%f = f32[256]{0:T(256)S(1)} fusion(%s, %i), kind=kLoop, calls=%reading", 8),
        ("%f = (f32[8,256]{1,0:T(8,128)}, f32[256]{0:T(256)}) fusion(%s, %p), calls=%updating", 1 + 1 + 1),
        ("%f = (f32[8,256]{1,0:T(8,128)S(1)}, f32[256]{0:T(256)}) fusion(%c, %p), calls=%updating", 1 + 1),
        ("%f = f32[256]{0:T(256)S(1)} fusion(%s, %i), kind=kOutput, calls=%nesting", 1),
        ("%f = f32[8,256]{1,0:T(8,128)} fusion(%p), kind=kLoop, calls=%filling", 1 + 8),
        ("%f = f32[2,128]{1,0:T(2,128)} fusion(%p), kind=kLoop, calls=%renaming", 1 + 1),
        ("%f = f32[8,256]{1,0:T(8,128)S(1)} fusion(%s), kind=kLoop, calls=%halves", 8),
        ("%f = f32[8,256]{1,0:T(8,128)} fusion(%s, %p), kind=kLoop, calls=%wrapping", 1 + 1),
        ("%f = f32[8,256]{1,0:T(8,128)} fusion(%s, %p, %i), kind=kLoop, calls=%adding", 1 + 1 + 1),
        ("%f = f32[256]{0:T(256)S(1)} fusion(%s, %i), kind=kLoop, calls=%reading_retiled", 1),
        ("%f = f32[8,256]{1,0:T(8,128)} fusion(%s, %p), kind=kLoop, calls=%writing_retiled", 1 + 1),
        ("%f = f32[8,256]{1,0:T(8,128)} fusion(%s, %p), kind=kLoop, calls=%copying", 8 + 1 + 8),
        ("%f = f32[256]{0:T(256)} fusion(), kind=kLoop, calls=%counting", 1),
        ("%f = f32[8,256]{1,0:T(8,128)} fusion(%s, %p), kind=kLoop, calls=%midway", 8 + 1 + 8),
        (
            "%f = (f32[8,256]{1,0:T(8,128)}, f32[256]{0:T(256)}) fusion(%s, %p), kind=kLoop, calls=%passing",
            8 + 1 + 8 + 1,
        ),
    ],
)
def test_a_fusion_moves_the_parts_that_it_slices_and_updates(line, kib):
    assert of_entry(P, S, "  ROOT " + line, computations=FUSIONS) == kib


SIX = """
%summing (a: f32[256], b: f32[256], c: f32[256], d: f32[256], e: f32[256], f: f32[256]) -> f32[256] {
  %a = f32[256] parameter(0)
  %b = f32[256] parameter(1)
  %c = f32[256] parameter(2)
  %d = f32[256] parameter(3)
  %e = f32[256] parameter(4)
  %f = f32[256] parameter(5)
  ROOT %s = f32[256] custom-call(%a, %b, %c, %d, %e, /*index=5*/%f), custom_call_target="x"
}
"""


def test_operands_behind_a_comment_count():
    line = "  ROOT %s = f32[256]{0:T(256)} fusion(%q, %q, %q, %q, %q, /*index=5*/%p), kind=kLoop, calls=%summing"
    assert of_entry(P, Q, line, computations=SIX) - of_entry(P, Q) == 2


CHAIN = """
%begin (p: f32[256]) -> (f32[256], f32[512]) {
  %x = f32[256]{0:T(256)} parameter(0)
  %g = f32[512]{0:T(512)} all-gather(%x), dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %start = (f32[256], f32[512], u32[]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%beside (x: f32[256], y: f32[512], q: f32[256]) -> (f32[256], f32[512], f32[256]) {
  %x = f32[256]{0:T(256)} parameter(0)
  %y = f32[512]{0:T(512)} parameter(1)
  %q = f32[256]{0:T(256)} parameter(2)
  %g = f32[512]{0:T(512)} all-gather(%x), dimensions={0}, frontend_attributes={chain_id="0"}
  %t = f32[256]{0:T(256)} tanh(%q)
  ROOT %all = (f32[256], f32[512], f32[256]) tuple(%x, %g, %t)
}

%end (x: f32[256], y: f32[512]) -> f32[512] {
  %x = f32[256]{0:T(256)} parameter(0)
  %y = f32[512]{0:T(512)} parameter(1)
  ROOT %done = f32[512] custom-call(%x, %y), custom_call_target="AsyncCollectiveDone"
}
"""
ASYNC = """\
  %s = (f32[256]{0:T(256)}, f32[512]{0:T(512)}, u32[]{:S(2)}) fusion(%p), calls=%begin
  %x = f32[256]{0:T(256)} get-tuple-element(%s), index=0
  %y = f32[512]{0:T(512)} get-tuple-element(%s), index=1
  %b = (f32[256]{0:T(256)}, f32[512]{0:T(512)}, f32[256]{0:T(256)}) fusion(%x, %y, %p), \
output_to_operand_aliasing={{0}: (0, {}), {1}: (1, {})}, calls=%beside
  ROOT %d = f32[512]{0:T(512)} fusion(%x, %y), calls=%end"""


def test_a_collective_that_goes_on_beside_other_fusions_counts_once():
    program = hlo.parse("\n".join(("HloModule m", CHAIN, "ENTRY %main (p: f32[256]) -> f32[512] {", P, ASYNC, "}")))
    gather, tanh = 1 + 2, 1 + 1
    assert hbm.hbm_bytes(program) / KIB == gather + tanh
    assert program.collectives() == {"all-gather": hlo.Traffic(1, 2 * KIB)}


def compiled_for_one_chip(function, *shapes):
    (device,) = roofline.topology_devices(tpus.parse_slice("v5e:1x1"))
    place = SingleDeviceSharding(device)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function, in_shardings=place, out_shardings=place).lower(*arrays).compile()


@pytest.mark.slow
@needs_libtpu
def test_large_arrays_of_a_compiled_program_move_and_small_ones_stay_on_the_chip():
    large, small = (16_384, 8_192), (512, 1_024)  # 512 MiB do not fit the core's memory; 2 MiB do

    def chained(x):
        for _ in range(3):
            x = jnp.tanh(x - jnp.mean(x, axis=1, keepdims=True))
        return x

    def moved(shape):
        compiled = compiled_for_one_chip(chained, shape)
        text, analysis = compiled.as_text(), compiled.cost_analysis()
        assert text is not None
        return hbm.hbm_bytes(hlo.parse(text)), analysis["bytes accessed"], 4 * shape[0] * shape[1]

    found, accessed, size = moved(large)
    assert found == pytest.approx(accessed, rel=0.01)
    assert found > 4 * size
    found, accessed, size = moved(small)
    assert found in (pytest.approx(2 * size, rel=0.01), pytest.approx(3 * size, rel=0.01))  # reads x, perhaps twice
    assert accessed > 2 * found
