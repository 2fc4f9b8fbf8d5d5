"""Counts the arithmetic of a compiled program from its text, matrix products apart from the rest.

jax reports one number, which counts the body of a loop once and adds elementwise work to matrix products, although a
TPU's documented peak holds for matrix products alone. Here the two are separate and a loop counts once per iteration:

    matrix product, [M, K] times [K, N]                 2 M N K
    convolution                                         2 for each product of an input and a weight; 0 for padding
    elementwise operation, on floats or integers        1 per element of the result
    reduction                                           1 per element of the operand, or of each window

Data movement, sorting and custom calls (such as matrix decompositions) count as 0. The compiler decides what is a
matrix product: it may run one elementwise and sum afterwards.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gm_jax.planning import hlo

_SIMPLE = {"abs", "add", "clamp", "compare", "divide", "maximum", "minimum", "multiply", "negate", "select", "subtract"}
_ROUNDING = {"ceil", "floor", "remainder", "round-nearest-afz", "round-nearest-even", "sign"}
_BITS = {"and", "not", "or", "popcnt", "shift-left", "shift-right-arithmetic", "shift-right-logical", "xor"}
_POWERS = {"cbrt", "exponential", "exponential-minus-one", "log", "log-plus-one", "power", "rsqrt", "sqrt"}
_CURVES = {"atan2", "cosine", "erf", "logistic", "sine", "tan", "tanh"}
_ELEMENTWISE = _SIMPLE | _ROUNDING | _BITS | _POWERS | _CURVES
_OTHER = {"dot", "convolution", "reduce", "reduce-window", "select-and-scatter", "scatter"}


class Work(NamedTuple):
    """The arithmetic of one run of a program on one device.

    Attributes:
        matrix_flops: FLOPs of matrix products and convolutions.
        other_ops: operations of all other kinds.
    """

    matrix_flops: float
    other_ops: float


def count(program: hlo.Program) -> Work:
    """Counts the work of one run. The body of a loop counts once if its number of iterations is unknown."""
    amounts = program.total(_work)
    return Work(*(amounts.get(name, 0.0) for name in Work._fields))


def _work(instruction: hlo.Instruction, types: Mapping[str, str]) -> dict[str, float]:
    op = instruction.op
    if op in _ELEMENTWISE:
        return {"other_ops": _size(instruction.type)}
    if op not in _OTHER:
        return {}
    operands = [_dims(hlo.operand_type(operand, types)) for operand in hlo.operands(instruction)]
    if op == "dot":
        return {"matrix_flops": _dot(instruction, operands[0])}
    if op == "convolution":
        return {"matrix_flops": _convolution(instruction, *operands)}
    if op == "reduce-window":
        return {"other_ops": _size(instruction.type) * math.prod(_window(instruction).get("size", (1,)))}
    # A scatter adds its updates, which come last; the others run over their first operand.
    return {"other_ops": math.prod(operands[-1 if op == "scatter" else 0])}


def _dot(instruction: hlo.Instruction, left: tuple[int, ...]) -> float:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    return 2.0 * _size(instruction.type) * math.prod(left[axis] for axis in axes)


def _convolution(instruction: hlo.Instruction, data: tuple[int, ...], weights: tuple[int, ...]) -> float:
    """Multiplies batch and features of the result, input features of a weight, and products along each axis."""
    labels = re.search(r"dim_labels=([\w?]+?)_([\w?]+)->([\w?]+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"the convolution {instruction.name} has no dim_labels")
    of_data, of_weights, of_result = (dict(zip(text, range(len(text)), strict=True)) for text in labels.groups())
    result, window = _dims(instruction.type), _window(instruction)
    flops = 2.0 * result[of_result["b"]] * result[of_result["f"]] * weights[of_weights["i"]]
    for axis in sorted(label for label in of_data if label.isdigit()):
        along = {name: values[int(axis)] for name, values in window.items()}
        flops *= _products(data[of_data[axis]], weights[of_weights[axis]], result[of_result[axis]], along)
    return flops


def _products(length: int, size: int, out: int, window: Mapping[str, int]) -> int:
    """Counts the pairs of a weight and an output position that meet an input, not padding, along one axis."""
    dilated = window.get("lhs_dilate", 1)
    weight = window.get("rhs_dilate", 1) * np.arange(size)[:, None]
    place = window.get("stride", 1) * np.arange(out)[None, :] - window.get("pad", 0) + weight
    return int(np.sum((place >= 0) & (place <= (length - 1) * dilated) & (place % dilated == 0)))


def _window(instruction: hlo.Instruction) -> dict[str, tuple[int, ...]]:
    """Parses an operation's window: one number per axis; for padding, the one at the low end."""
    found = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    entries = re.findall(r"(\w+)=(\S+)", found[1]) if found else []
    return {name: tuple(int(part.partition("_")[0]) for part in values.split("x")) for name, values in entries}


def _dims(text: str) -> tuple[int, ...]:
    """Parses the shape of an array type, such as "f32[8,2]{1,0}", or of the first member of a tuple type."""
    found = re.search(r"\[([\d,]*)\]", text)
    return tuple(int(dim) for dim in found[1].split(",") if dim) if found else ()


def _size(text: str) -> float:
    return float(math.prod(_dims(text)))
