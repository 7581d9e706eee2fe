"""What XLA's list of a GPU program says of it: how many kernels, launches and waits a step takes.

XLA writes `*.thunk_sequence_after_thunk_passes.txt` into its dump: what the host does, in order. A
line is an operation, and what is indented below it belongs to it: the operations of a graph
(`kCommandBuffer`), of a loop's condition and body (`kWhile`), of branches (`kConditional`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LISTING = "*.thunk_sequence_after_thunk_passes.txt"
_OPERATION = re.compile(r"( *)\d+: k(\w+)")
# Parts of an operation stand two spaces further right than it does; a condition at the margin.
_PART = re.compile(r"( *)(condition|body|\w+_branch|branch\w* ?\d*):$")
GRAPH, LOOP, CHOICE, SEQUENCE = "CommandBuffer", "While", "Conditional", "Sequential"


class Counts(NamedTuple):
    """What some operations take.

    Attributes:
      kernels: what runs on the device: kernels, copies, and calls of libraries, one for each call.
      launches: what the host starts: a graph is one, whatever it holds.
      waits: how often the host waits for the device: a loop outside of graphs asks it before each
        turn whether it goes on, unless XLA knows how many turns there are; a choice which branch is
        taken.
    """

    kernels: int = 0
    launches: int = 0
    waits: int = 0

    def plus(self, *others: Counts) -> Counts:
        """Returns the sum of all."""
        return Counts(*map(sum, zip(self, *others, strict=True)))

    def times(self, number: int) -> Counts:
        """Returns what it takes so many times."""
        return Counts(*(number * count for count in self))


@dataclasses.dataclass
class Operation:
    """An operation of the host, and those that belong to it.

    Attributes:
      kind: as XLA names it, without its `k`.
      indent: how far right it stands.
      parts: what belongs to it, by the part's name; empty for those of a graph.
      turns: how many turns a loop takes, where XLA knows it.
    """

    kind: str
    indent: int
    parts: dict[str, list[Operation]] = dataclasses.field(default_factory=dict)
    turns: int | None = None

    def counts(self) -> Counts:
        """Returns what it takes; a loop counts as one turn of it where nobody knows how many.

        Of branches that which takes most counts, each number by itself.
        """
        if self.kind == LOOP:
            # Of a known number the host counts the turns, and the condition is never computed.
            return self.turn().times(1 if self.turns is None else self.turns)
        if self.kind == CHOICE:
            branches = [total(part) for part in self.parts.values()]
            return Counts(*map(max, zip(*branches, strict=True))).plus(Counts(waits=1))
        if self.kind == GRAPH:
            inner = total(self.parts.get("", ()))
            return Counts(inner.kernels, 1, 0)
        if self.kind == SEQUENCE:
            return total(self.parts.get("", ()))
        return Counts(1, 1, 0)

    def turn(self) -> Counts:
        """Returns what one turn of a loop takes."""
        body = total(self.parts["body"])
        if self.turns is not None:
            return body
        return Counts(waits=1).plus(body, total(self.parts["condition"]))


def total(operations: Iterable[Operation]) -> Counts:
    """Returns what all of them take together."""
    return Counts().plus(*(one.counts() for one in operations))


def parse(text: str, program: str | None = None) -> list[Operation]:
    """Returns the operations of a list.

    Args:
      text: the list.
      program: the same program as XLA writes it, which knows how many turns some loops take.

    Raises:
      ValueError: the list is none that XLA writes for GPUs, or not of this program.
    """
    top = Operation(SEQUENCE, -1)
    open_: list[tuple[Operation, str]] = [(top, "")]  # each with the part that lines now belong to
    for line in text.splitlines():
        if part := _PART.search(line):
            # A condition's mark is not indented: it is that of the loop in the line above.
            if part[2] != "condition":
                while open_[-1][0].indent + 2 > len(part[1]):
                    open_.pop()
            owner, _ = open_.pop()
            owner.parts[part[2]] = []
            open_.append((owner, part[2]))
        elif match := _OPERATION.match(line):
            while open_[-1][0].indent >= len(match[1]):
                open_.pop()
            owner, name = open_[-1]
            made = Operation(match[2], len(match[1]))
            owner.parts.setdefault(name, []).append(made)
            open_.append((made, ""))
    if not top.parts:
        raise ValueError("XLA's list of thunks holds no operation that is understood")
    if program is not None:
        found, known = list(_all_loops(top)), turns_known(program)
        if len(found) != len(known):
            raise ValueError(f"{len(found)} loops are listed, and the program has {len(known)}")
        for loop, number in zip(found, known, strict=True):
            loop.turns = number
    return top.parts[""]


def _all_loops(operation: Operation) -> Iterator[Operation]:
    """Yields the loops of an operation, each before those within it."""
    for part in operation.parts.values():
        for one in part:
            if one.kind == LOOP:
                yield one
            yield from _all_loops(one)


_COMPUTATION = re.compile(r"(ENTRY )?%(\S+) \(.*\{$")
_CALLED = re.compile(
    r"(?:body|to_apply|\w+_computation)=%([^\s,}]+)|branch_computations=\{([^}]*)\}"
)
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def turns_known(program: str) -> list[int | None]:
    """Returns how many turns each loop takes, None where it is not known; outer before inner ones.

    Args:
      program: as XLA writes it when it is compiled, an operation a line, in the order of the host.
    """
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    entry = ""
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            lines = computations[match[2]] = []
            entry = match[2] if match[1] else entry
        elif re.search(r" (while|conditional|call)\(", line):
            lines.append(line)

    def of(name: str) -> Iterator[int | None]:
        for line in computations[name]:
            if " while(" in line:
                known = _KNOWN.search(line)
                yield int(known[1]) if known else None
            for one, several in _CALLED.findall(line):
                for called in (one, *re.findall(r"%([^\s,]+)", several)):
                    if called:
                        yield from of(called)

    return list(of(entry))


def listings(folder: Path) -> list[str]:
    """Returns the lists of operations that XLA dumped into a folder, one for each program."""
    return [file.read_text() for file in sorted(folder.glob(LISTING))]


def loops(operations: Iterable[Operation]) -> list[Operation]:
    """Returns the loops among operations, but not those within other loops."""
    found = []
    for one in operations:
        if one.kind == LOOP:
            found.append(one)
        else:
            found += [loop for part in one.parts.values() for loop in loops(part)]
    return found


def turns(operations: Iterable[Operation], *, within: int) -> list[Counts]:
    """Returns what one turn takes of each loop that stands in `within` other loops."""
    found = loops(operations)
    for _ in range(within):
        found = [inner for loop in found for inner in loops(loop.parts["body"])]
    return [loop.turn() for loop in found]
