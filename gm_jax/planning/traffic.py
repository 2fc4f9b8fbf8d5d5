"""Counts the bytes that a compiled program moves to and from a chip's memory (HBM), from its text.

jax reports the bytes that operations access, wherever these are. The compiler of TPUs keeps intermediate results in
the memory of the core, whose bandwidth is much larger, and copies others there ahead of their use: the step of a U-Net
accesses more than four times the bytes that HBM moves. The layout of an array says where it is. S(1), or another number
but 0, is not HBM:

    f32[64,32,32,128]{3,0,2,1:T(8,128)S(1)}

An operation moves those of its operands and results that are in HBM, with the padding of their tiles; of an operand
that it only slices, and of a result that it updates in place, it moves a part. Loops count once per iteration.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from gm_jax.planning import hlo

_NAMES = {"after-all", "bitcast", "constant", "get-tuple-element", "opt-barrier", "parameter", "partition-id", "tuple"}
_FREE = _NAMES | {"while", "conditional", "call", "async-start"}  # what these run counts
_SLICES = {"dynamic-slice", "gather", "slice", "slice-start"}
_UPDATE = "dynamic-update-slice"
_KERNEL = 'custom_call_target="tpu_custom_call"'  # other custom calls allocate arrays and give them names


def hbm_bytes(program: hlo.Program) -> float:
    """Counts the bytes that one run of a program reads from HBM and writes to it, on one chip.

    The body of a loop counts once if its number of iterations is unknown.
    """

    def measure(line: hlo.Instruction, types: Mapping[str, str]) -> dict[str, float]:
        return {"bytes": _moved(program, line, types)}

    return program.total(measure, of_fusions=True)["bytes"]


def _moved(program: hlo.Program, line: hlo.Instruction, types: Mapping[str, str]) -> float:
    if line.op in _FREE or line.op.endswith(("-done", "-update")):
        return 0.0
    if line.op == "custom-call" and _KERNEL not in line.attributes:
        return 0.0
    operands = [hlo.operand_type(operand, types) for operand in hlo.operands(line)]
    if line.op == "fusion":
        return _moved_by_fusion(program, line, operands)
    result = hlo.result_type(line)
    if line.op in _SLICES:
        return _part(result, of=operands[0]) + _in_hbm(result)
    if line.op == _UPDATE:
        return _in_hbm(operands[1]) + _part(operands[1], of=result)
    return sum(map(_in_hbm, operands)) + _in_hbm(result)


def _moved_by_fusion(program: hlo.Program, fusion: hlo.Instruction, operands: Sequence[str]) -> float:
    """Counts each operand and each result, or the parts that the fusion slices and updates."""
    (name,) = hlo.called(fusion)
    lines = program.computations[name]
    by_name = {line.name: line for line in lines}
    types = {line.name: line.type for line in lines}
    parameters = {int(line.attributes.partition(")")[0]): line.name for line in lines if line.op == "parameter"}
    total = 0.0
    for index, operand in enumerate(operands):
        readers = list(_readers(lines, parameters[index]))
        if readers and all(position == 0 and line.op in _SLICES | {_UPDATE} for line, position in readers):
            total += sum(_part(line.type, of=operand) for line, _ in readers if line.op in _SLICES)
        else:
            total += _in_hbm(operand)
    root = next(line for line in lines if line.is_root)
    is_tuple = root.op == "tuple"
    sources = [by_name.get(_name(operand), root) for operand in hlo.operands(root)] if is_tuple else [root]
    results = hlo.parts(fusion.type) if is_tuple else [fusion.type]
    for source, result in zip(sources, results, strict=True):
        source = _behind_bitcasts(source, by_name)
        if source.op == _UPDATE:
            total += _part(hlo.operand_type(hlo.operands(source)[1], types), of=result)
        else:
            total += _in_hbm(result)
    return total


def _readers(lines: Sequence[hlo.Instruction], name: str) -> Iterator[tuple[hlo.Instruction, int]]:
    """Yields what reads an array of a computation, through bitcasts, and as which operand."""
    for line in lines:
        for position, operand in enumerate(hlo.operands(line)):
            if _name(operand) == name and line.op == "bitcast":
                yield from _readers(lines, line.name)
            elif _name(operand) == name:
                yield line, position


def _behind_bitcasts(line: hlo.Instruction, by_name: Mapping[str, hlo.Instruction]) -> hlo.Instruction:
    while line.op == "bitcast":
        line = by_name[_name(hlo.operands(line)[0])]
    return line


def _name(operand: str) -> str:
    return operand.rpartition(" ")[2].lstrip("%")


def _part(part: str, *, of: str) -> float:
    """Returns the bytes of a part of an array, if the array is in HBM."""
    return sum(num_bytes for num_bytes, _ in _arrays(part)) if _in_hbm(of) else 0.0


def _in_hbm(text: str) -> float:
    """Returns the bytes of those arrays of a type that are in HBM."""
    return sum(num_bytes for num_bytes, space in _arrays(text) if space == 0)


def _arrays(text: str) -> Iterator[tuple[float, int]]:
    """Yields the bytes of each array of a type, with the padding of its tiles, and its memory space."""
    for dtype, dims, layout in re.findall(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?", text):
        sizes = [int(dim) for dim in dims.split(",") if dim]
        order = [int(axis) for axis in layout.partition(":")[0].split(",") if axis]  # the fastest axis first
        tile = re.search(r"T\(([\d,]+)\)", layout)
        for axis, step in zip(order, [int(side) for side in tile[1].split(",")][::-1] if tile else [], strict=False):
            sizes[axis] = -(-sizes[axis] // step) * step
        space = re.search(r"S\((\d+)\)", layout)
        yield hlo.type_bytes(f"{dtype}[{','.join(map(str, sizes))}]"), int(space[1]) if space else 0
