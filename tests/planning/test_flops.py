"""The arithmetic of programs: of a text written by hand, and of jax programs with known counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.planning import flops, hlo
from gm_jax.planning.flops import Work

# In the style of the TPU compiler: matrix products are convolutions without a window, operands have no types.
TPU = """\
HloModule tpu

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%fused (p.0: f32[128,64], p.1: f32[64,500]) -> f32[128,500] {
  %p.0 = f32[128,64]{1,0:T(8,128)} parameter(0)
  %p.1 = f32[64,500]{1,0:T(8,128)} parameter(1)
  %c = f32[128,500]{0,1:T(8,128)} convolution(%p.0, %p.1), dim_labels=bf_io->bf, metadata={op_name="a/dot_general"}
  ROOT %t = f32[128,500]{0,1:T(8,128)} tanh(%c)
}

%body (p: (s32[], f32[128,500])) -> (s32[], f32[128,500]) {
  %f = f32[128,500]{0,1:T(8,128)S(1)} fusion(%x, %y), kind=kOutput, calls=%fused
  ROOT %tuple = (s32[], f32[128,500]) tuple(%i, %f)
}

%cond (p: (s32[], f32[128,500])) -> pred[] {
  %n = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%small (p: f32[8]) -> f32[] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[] reduce(%p, %zero), dimensions={0}, to_apply=%add
}

%large (p: f32[8]) -> f32[] {
  %left = f32[9,8]{1,0:T(8,128)} parameter(0)
  ROOT %d = f32[9,4] dot(%left, f32[8,4]{1,0:T(8,128)} %right), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (p: f32[8]) -> f32[] {
  %p = f32[8]{0} parameter(0)
  %w = (s32[], f32[128,500]) while(%tuple), condition=%cond, body=%body
  %k = f32[] conditional(%q, %p, %p), branch_computations={%small, %large}
  %moved = f32[8]{0} copy(%p)
  %pooled = f32[4]{0} reduce-window(%p, %zero), window={size=2 stride=2}, to_apply=%add
  %put = f32[8]{0} scatter(%p, %where, f32[3]{0} %updates), to_apply=%add
  ROOT %all = f32[8]{0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
}
"""


def test_loops_count_once_per_iteration_and_conditionals_as_their_larger_branch():
    in_the_loop, in_the_branch = 2 * 128 * 64 * 500, 2 * 9 * 8 * 4
    pooled, scattered = 4 * 2, 3
    assert flops.count(hlo.parse(TPU)) == Work(7 * in_the_loop + in_the_branch, 7 * 128 * 500 + pooled + scattered)


def compiled(fn, *shapes, dtype=jnp.float32):
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return flops.count(hlo.parse(jax.jit(fn).lower(*arguments).compile().as_text()))


def test_a_batch_of_matrix_products_contracts_one_axis():
    work = compiled(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (3, 200, 100), (3, 100, 300))
    assert work.matrix_flops == 2 * 3 * 200 * 100 * 300


def test_a_scan_counts_once_per_iteration():
    def repeated(w, h):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), h, None, length=11)[0]

    work = compiled(repeated, (256, 256), (128, 256))
    assert work.matrix_flops == 11 * 2 * 128 * 256 * 256
    assert work.other_ops >= 11 * 128 * 256


@pytest.mark.parametrize(
    ("shape", "weights", "options"),
    [
        ((2, 9, 7, 3), (3, 3, 3, 5), {"padding": "SAME"}),
        ((2, 9, 7, 3), (3, 2, 3, 5), {"padding": "VALID", "window_strides": (2, 3)}),
        ((2, 9, 7, 3), (3, 2, 3, 5), {"padding": [(2, 0), (-1, 4)], "rhs_dilation": (2, 1)}),
        ((2, 9, 7, 3), (4, 4, 3, 5), {"padding": [(2, 2), (2, 2)], "lhs_dilation": (2, 2)}),  # transposed
        ((2, 9, 7, 6), (3, 3, 2, 9), {"padding": "SAME", "feature_group_count": 3}),
    ],
)
def test_a_convolution_counts_products_without_padding(shape, weights, options):
    # With ones as data and weights, the sum of all results is the number of products.
    def convolve(x, w):
        labels = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, **{"window_strides": (1, 1), **options}, dimension_numbers=labels)

    products = np.sum(convolve(jnp.ones(shape), jnp.ones(weights)))
    text = as_hlo(convolve, shape, weights)
    assert flops.count(hlo.parse(text)).matrix_flops == 2 * products


def as_hlo(fn, *shapes):
    """The HLO before the compiler replaces convolutions by calls of CPU libraries."""
    lowered = jax.jit(fn).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return lowered.compiler_ir("hlo").as_hlo_text()


@pytest.mark.parametrize("wrt", [0, 1])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(wrt):
    # Without padding each product of an input and a weight occurs once in the result and in each gradient.
    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def gradient(x, w, g):
        return jax.vjp(convolve, x, w)[1](g)[wrt]

    x, w, out = (4, 12, 10, 3), (3, 5, 3, 8), (4, 10, 6, 8)
    text = as_hlo(gradient, x, w, out)
    assert flops.count(hlo.parse(text)).matrix_flops == 2 * np.prod(out) * 3 * 5 * 3
