"""Reads the text of a compiled program: its collectives, loops and cycles, and which inputs it overwrites.

jax reports the memory of a compiled program. Its collectives and its numbers of loop iterations appear only in the text
of the optimised HLO, `jax.stages.Compiled.as_text()`, which lists one computation after another,

    %body (p: f32[8]) -> f32[8] {
      %p = f32[8]{0} parameter(0)
      ROOT %all-reduce.1 = f32[8]{0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
    }

The last one, `ENTRY`, calls the others: a loop calls its body, a fusion its contents, a conditional one of its
branches.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_CALLED = re.compile(r"(\w+)=(?:%?([\w.-]+)|\{([^}]*)\})")
_CALLING = {"calls", "called_computations", "to_apply"}
_CALLS, _FUSIONS = {"call", "async-start"}, {"fusion", "custom-call"}  # other operations call one for pairs of elements
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_BRANCHES = {"branch_computations", "true_computation", "false_computation"}
_NAMES = {"after-all", "add-dependency", "bitcast", "constant", "get-tuple-element", "opt-barrier", "parameter"}
_NAMES |= {"partition-id", "tuple"}
_RUNS_OTHERS = {"while", "conditional", "call", "async-start"}  # their computations count instead
_FREE_CALLS = {"AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "Sharding"}


class Traffic(NamedTuple):
    """Collectives of one kind.

    Attributes:
        count: number of runs.
        num_bytes: bytes of their results on one device, summed over all runs.
    """

    count: float
    num_bytes: float


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        is_root: whether it is the computation's result.
        name: name of the result.
        type: type of the result.
        op: the operation.
        attributes: the rest of the line, operands first, without metadata.
        called: attribute -> the computations that it names.
        trips: number of iterations of a loop, if the compiler has noted it.
        cycles: of the core, as the compiler estimates them; 0 if it does not.
        repeats: whether it goes on with a collective that a fusion before has begun; it is written once for each.
    """

    is_root: bool
    name: str
    type: str
    op: str
    attributes: str
    called: Mapping[str, tuple[str, ...]]
    trips: int | None
    cycles: int
    repeats: bool = False

    @property
    def is_work(self) -> bool:
        """Whether the core, or its engine for copies, executes it: it is not a name, nor the end of something begun."""
        target = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        free = self.op in _NAMES | _RUNS_OTHERS or self.op.endswith(("-done", "-update"))
        return not free and (target is None or target[1] not in _FREE_CALLS)


class Program(NamedTuple):
    """An HLO module.

    Attributes:
        computations: name -> its instructions.
        entry: name of the computation that is run.
        num_aliased: number of inputs that an output overwrites.
    """

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str
    num_aliased: int

    def total(
        self, measure: Callable[[Instruction, Mapping[str, str]], Mapping[Any, float]], *, whole_fusions: bool = False
    ) -> Counter:
        """Sums amounts over everything that one run of the program executes.

        The body of a loop counts once per iteration, or once if their number is unknown. A conditional counts as its
        larger branch. An asynchronous operation counts once, at its start.

        Args:
            measure: (instruction, types of the names in its computation) -> its own amounts, by name.
            whole_fusions: measures a fusion, or a custom call, as one instruction; if not, what it contains, too.

        Returns:
            Name of an amount -> its sum.
        """
        return self._total(self.entry, measure, _CALLS if whole_fusions else _CALLS | _FUSIONS)

    def collectives(self) -> dict[str, Traffic]:
        """Counts the collectives of one run, by kind."""
        amounts = self.total(_traffic)
        kinds = dict.fromkeys(kind for kind, _ in amounts)
        return {kind: Traffic(*(amounts[kind, field] for field in Traffic._fields)) for kind in kinds}

    def cycles(self) -> float:
        """Sums the compiler's estimates of the core's cycles."""
        return self.total(lambda instruction, _: {"cycles": instruction.cycles}, whole_fusions=True)["cycles"]

    def operations(self) -> int:
        """Counts what one run starts: fusions, the operations outside of them, copies and collectives."""
        return self.total(lambda instruction, _: {"run": int(instruction.is_work)}, whole_fusions=True)["run"]

    def conditionals(self) -> int:
        """Counts the conditionals in the text."""
        return sum(line.op == "conditional" for lines in self.computations.values() for line in lines)

    def loops(self) -> list[int | None]:
        """Lists the number of iterations of each loop, outer before inner; None if the text does not give it."""
        return list(self._loops(self.entry))

    def _total(self, name: str, measure: Callable, opened: Collection[str]) -> Counter:
        total = Counter()
        computation = self.computations.get(name, ())
        types = {instruction.name: instruction.type for instruction in computation}
        for instruction in computation:
            total.update(measure(instruction, types))
            if instruction.op == "while":
                for body in instruction.called["body"]:
                    trips = self._trips(instruction) or 1
                    total.update({key: trips * amount for key, amount in self._total(body, measure, opened).items()})
            elif instruction.op == "conditional":
                names = [name for key in _BRANCHES for name in instruction.called.get(key, ())]
                totals = (self._total(branch, measure, opened) for branch in names)
                total.update(max(totals, key=Counter.total, default={}))
            elif instruction.op in opened:
                for name in called(instruction):
                    total.update(self._total(name, measure, opened))
        return total

    def _loops(self, name: str) -> Iterator[int | None]:
        for instruction in self.computations.get(name, ()):
            if instruction.op == "while":
                yield self._trips(instruction)
            for name in called(instruction):
                yield from self._loops(name)

    def _trips(self, loop: Instruction) -> int | None:
        """Finds a loop's number of iterations: as noted, or N if the counter is compared with N, as in a jax scan."""
        if loop.trips is not None:
            return loop.trips
        condition = self.computations.get(loop.called["condition"][0], ())
        constants = {
            line.name: int(line.attributes.partition(")")[0])
            for line in condition
            if line.op == "constant" and re.fullmatch(r"\d+\).*", line.attributes)
        }
        for line in condition:
            if line.is_root and line.op == "compare" and "direction=LT" in line.attributes:
                compared = [operand.strip(" %") for operand in line.attributes.partition(")")[0].split(",")]
                return constants.get(compared[-1].split(" ")[-1].lstrip("%"))
        return None


def parse(text: str) -> Program:
    """Parses the text of an HLO module."""
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = "", "", []
    for line in re.sub(r"/\*index=\d+\*/", "", text).splitlines():
        if line.startswith("HloModule"):
            continue
        if header := _HEADER.match(line):
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name] = tuple(_with_repeats(lines))
        elif found := _INSTRUCTION.match(line):
            # Names in metadata and in the backend's settings are not calls.
            noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', found[5])
            cycles = re.search(r'"estimated_cycles":"(\d+)"', found[5])
            attributes = re.split(r", (?:metadata|backend_config)=", found[5], maxsplit=1)[0]
            lines.append(
                Instruction(
                    is_root=found[1] is not None,
                    name=found[2],
                    type=found[3],
                    op=found[4],
                    attributes=attributes,
                    called={
                        key: (one,) if one else tuple(part.strip(" %") for part in many.split(","))
                        for key, one, many in _CALLED.findall(attributes)
                        if key in _CALLING | _BRANCHES | {"body", "condition"}
                    },
                    trips=int(noted[1]) if noted else None,
                    cycles=int(cycles[1]) if cycles else 0,
                )
            )
    first = text.partition("\n")[0]
    return Program(computations, entry, len(re.findall(r"\b(?:may|must)-alias\b", first)))


def _with_repeats(lines: Sequence[Instruction]) -> list[Instruction]:
    """Marks the collectives of a chain of fusions, but for that of the fusion that begins it."""
    if any('custom_call_target="AsyncCollectiveStart"' in line.attributes for line in lines):
        return list(lines)
    return [line._replace(repeats=line.op in KINDS and "chain_id=" in line.attributes) for line in lines]


def called(instruction: Instruction) -> Iterator[str]:
    """Yields the computations that an instruction names, except the condition of a loop."""
    for key, names in instruction.called.items():
        if key != "condition":
            yield from names


def operands(instruction: Instruction) -> list[str]:
    """Splits off the operands of an instruction, each with its type in front if the text gives it there."""
    depth = 1
    for index, character in enumerate(instruction.attributes):
        depth += (character == "(") - (character == ")")
        if not depth:
            return [part for part in parts(f"({instruction.attributes[:index]})") if part]
    return []


def operand_type(operand: str, types: Mapping[str, str]) -> str:
    """Returns the type of an operand: the text in front of its name, or else its entry in `types`."""
    before, _, name = operand.rpartition(" ")
    return before or types.get(name.lstrip("%"), "")


def _traffic(instruction: Instruction, types: Mapping[str, str]) -> dict[tuple[str, str], float]:
    kind = instruction.op.removesuffix("-start")
    if kind not in KINDS or instruction.repeats:
        return {}
    return {(kind, "count"): 1, (kind, "num_bytes"): type_bytes(result_type(instruction))}


def result_type(instruction: Instruction) -> str:
    """Returns the type of an instruction's result; that of some starts also has operands (first) and flags (last)."""
    members = parts(instruction.type) if instruction.op.endswith("-start") and "(" in instruction.type[:1] else []
    if instruction.op == "copy-start":
        return members[0]
    if members and (members[0].startswith("(") or instruction.op in ("all-gather-start", "collective-permute-start")):
        return members[1]
    return instruction.type


def type_bytes(text: str) -> float:
    """Returns the bytes of an array or tuple type without the padding of its layout: 64 for "f32[8,2]{1,0}"."""
    total = 0.0
    for dtype, dims in _ARRAY.findall(text):
        # The first number in the name of a type is its bits: bf16, s4, f8e4m3fn.
        bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
        total += math.prod(int(dim) for dim in dims.split(",") if dim) * bits / 8
    return total


def parts(tuple_type: str) -> list[str]:
    """Splits a tuple type into its members."""
    members, depth, start = [], 0, 1
    for index, character in enumerate(tuple_type):
        depth += (character in "({[") - (character in ")}]")
        if (character == "," and depth == 1) or (index == len(tuple_type) - 1 and depth == 0):
            members.append(tuple_type[start:index].strip())
            start = index + 1
    return members
