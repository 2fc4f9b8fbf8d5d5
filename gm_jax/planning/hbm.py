"""Counts the bytes that a compiled program reads from a chip's memory (HBM) and writes to it, from its text.

jax reports the bytes that operations access, wherever these are, and counts the body of a loop once. The compiler of
TPUs keeps most intermediate results in the memory of the core, whose bandwidth is much larger: the operations of a
U-Net's step access more than four times the bytes that are read from HBM and written to it. The layout of an array says
where it is. S(1), or another number but 0, is not HBM:

    f32[64,32,32,128]{3,0,2,1:T(8,128)S(1)}

An operation reads those operands that are in HBM, and writes its result if that is, with the padding of their tiles.
If it slices an operand, it reads the slice; if it updates an array in place, it reads and writes the update. Loops
count once per iteration.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gm_jax.planning import hlo

_SLICES = {"dynamic-slice", "gather", "slice"}
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # and which operand is the update


class _Array(NamedTuple):
    """An array of a type: its bytes, with the padding of its tiles, and its memory space, 0 for HBM."""

    num_bytes: float
    space: int


def hbm_bytes(program: hlo.Program) -> float:
    """Counts the bytes that one run of a program reads from HBM and writes to it, on one chip.

    The body of a loop counts once if its number of iterations is unknown.
    """

    def measure(line: hlo.Instruction, types: Mapping[str, str]) -> dict[str, float]:
        return {"bytes": _moved(program, line, types)}

    return program.total(measure, whole_fusions=True)["bytes"]


def _moved(program: hlo.Program, line: hlo.Instruction, types: Mapping[str, str]) -> float:
    """Counts the bytes of one instruction, which is not inside a fusion."""
    if not line.is_work:
        return 0.0
    operands = [types[name] for name in _operand_names(line)]
    if line.op == "fusion":
        return _moved_by_fusion(program, line, operands)
    op, result = line.op.removesuffix("-start"), hlo.result_type(line)
    if op in _SLICES:
        return _part(result, of=operands[0]) + _in_hbm(result) + sum(map(_in_hbm, operands[1:]))
    if op in _UPDATES:
        update = operands[_UPDATES[op]]
        return sum(map(_in_hbm, operands[1:])) + _part(update, of=result)
    return sum(map(_in_hbm, operands)) + _in_hbm(result)


def _moved_by_fusion(program: hlo.Program, fusion: hlo.Instruction, operands: Sequence[str]) -> float:
    """Counts each operand and each result, or the parts that the fusion slices and updates."""
    inside = _Inside(program, fusion)
    if inside.calls("AsyncCollectiveDone"):
        return 0.0
    if inside.calls("AsyncCollectiveStart"):
        begun = next(line for line in inside.lines if line.op in hlo.KINDS)
        return sum(map(_in_hbm, operands)) + _in_hbm(begun.type)
    total = 0.0
    for operand, parameter in zip(operands, inside.parameters, strict=True):
        total += min(inside.read(parameter, operand), _in_hbm(operand))
    results = hlo.parts(fusion.type) if inside.root.op == "tuple" else [fusion.type]
    return total + sum(inside.written(*pair) for pair in zip(inside.sources(), results, strict=True))


class _Inside:
    """What a fusion contains.

    Attributes:
        lines: its instructions.
        by_name: name -> instruction.
        parameters: the names of its operands, in order.
        root: its result.
    """

    def __init__(self, program: hlo.Program, fusion: hlo.Instruction) -> None:
        (name,) = hlo.called(fusion)
        self._program = program
        self.lines = program.computations[name]
        self.by_name = {line.name: line for line in self.lines}
        numbers = {line.name: int(line.attributes.partition(")")[0]) for line in self.lines if line.op == "parameter"}
        self.parameters = sorted(numbers, key=numbers.__getitem__)
        self.root = next(line for line in self.lines if line.is_root)
        self._hands_on = "output_to_operand_aliasing=" in fusion.attributes

    def calls(self, target: str) -> bool:
        """Returns whether it has a custom call of this target."""
        return any(f'custom_call_target="{target}"' in line.attributes for line in self.lines)

    def sources(self) -> list[hlo.Instruction]:
        """Lists the instructions that make its results."""
        return [self.by_name[name] for name in _operand_names(self.root)] if self.root.op == "tuple" else [self.root]

    def read(self, name: str, of: str) -> float:
        """Counts the bytes that are read of an array of type `of`, which is called `name` here."""
        if self._behind_bitcasts(self.root).name == name:
            return _in_hbm(of)
        total = 0.0
        for line, position in self._readers(name):
            if line.op == "fusion":
                inner = _Inside(self._program, line)
                total += inner.read(inner.parameters[position], of)
            elif position == 0 and line.op in _SLICES:
                total += _part(line.type, of=of)
            elif position == 0 and line.op in _UPDATES and self._is_result(line):
                total += _part(self._update_type(line), of=of) if line.op == "scatter" else 0.0
            elif not line.repeats and not (line.is_root and line.op == "tuple" and self._hands_on):
                return _in_hbm(of)
        return total

    def written(self, source: hlo.Instruction, result: str) -> float:
        """Counts the bytes that `source` writes to a result of the fusion."""
        source = self._behind_bitcasts(source)
        if source.op == "fusion" and not source.type.startswith("("):
            inner = _Inside(self._program, source)
            return inner.written(inner.root, result)
        if source.repeats or (source.op == "parameter" and self._hands_on):
            return 0.0
        if source.op in _UPDATES and self._behind_bitcasts(self._operand(source, 0), in_place=True).op == "parameter":
            return _part(self._update_type(source), of=result)
        return _in_hbm(result)

    def _readers(self, name: str) -> Iterator[tuple[hlo.Instruction, int]]:
        """Yields what reads an array, or the array in another layout, and as which operand."""
        for line in self.lines:
            for position, operand in enumerate(_operand_names(line)):
                if operand == name and (line.op == "bitcast" or self._is_other_layout(line)):
                    yield from self._readers(line.name)
                elif operand == name:
                    yield line, position

    def _is_result(self, line: hlo.Instruction) -> bool:
        return line.name in {self._behind_bitcasts(source, in_place=True).name for source in self.sources()}

    def _operand(self, line: hlo.Instruction, position: int) -> hlo.Instruction:
        return self.by_name[_operand_names(line)[position]]

    def _update_type(self, line: hlo.Instruction) -> str:
        return self._operand(line, _UPDATES[line.op]).type

    def _behind_bitcasts(self, line: hlo.Instruction, *, in_place: bool = False) -> hlo.Instruction:
        while line.op == "bitcast" or (in_place and self._is_other_layout(line)):
            line = self._operand(line, 0)
        return line

    def _is_other_layout(self, line: hlo.Instruction) -> bool:
        """Returns whether a fusion inside this one is a copy in place: its operand's bytes, read in another layout."""
        if line.op != "fusion" or "output_to_operand_aliasing={{}: (0, {})}" not in line.attributes:
            return False
        return {inner.op for inner in _Inside(self._program, line).lines} <= {"parameter", "bitcast", "copy"}


def _operand_names(line: hlo.Instruction) -> list[str]:
    return [operand.rpartition(" ")[2].lstrip("%") for operand in hlo.operands(line)]


def _part(part: str, *, of: str) -> float:
    """Returns the bytes of a part of an array of type `of`; 0 if that is not in HBM."""
    is_in_hbm = any(array.space == 0 for array in _arrays(of))
    return sum(array.num_bytes for array in _arrays(part)) if is_in_hbm else 0.0


def _in_hbm(text: str) -> float:
    """Returns the bytes of those arrays of a type that are in HBM."""
    return sum(array.num_bytes for array in _arrays(text) if array.space == 0)


def _arrays(text: str) -> Iterator[_Array]:
    """Yields the arrays of a type."""
    for dtype, dims, layout in re.findall(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?", text):
        sizes = [int(dim) for dim in dims.split(",") if dim]
        order = [int(axis) for axis in layout.partition(":")[0].split(",") if axis]  # the fastest axis first
        tile = re.search(r"T\(([\d,]+)\)", layout)
        for axis, step in zip(order, [int(side) for side in tile[1].split(",")][::-1] if tile else [], strict=False):
            sizes[axis] = -(-sizes[axis] // step) * step
        space = re.search(r"S\((\d+)\)", layout)
        yield _Array(hlo.type_bytes(f"{dtype}[{','.join(map(str, sizes))}]"), int(space[1]) if space else 0)
