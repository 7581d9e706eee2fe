"""What XLA's list of a GPU program says of it: how many kernels, launches and waits a step takes.

XLA writes `*.thunk_sequence_after_thunk_passes.txt` into its dump: what the host does, in order. A
line is an operation, and what is indented below it belongs to it: the operations of a graph
(`kCommandBuffer`), of a loop's condition and body (`kWhile`), of branches (`kConditional`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
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
        turn whether it goes on, a choice which branch is taken.
    """

    kernels: int = 0
    launches: int = 0
    waits: int = 0

    def plus(self, *others: Counts) -> Counts:
        """Returns the sum of all."""
        return Counts(*map(sum, zip(self, *others, strict=True)))


@dataclasses.dataclass
class Operation:
    """An operation of the host, and those that belong to it.

    Attributes:
      kind: as XLA names it, without its `k`.
      indent: how far right it stands.
      parts: what belongs to it, by the part's name; empty for those of a graph.
    """

    kind: str
    indent: int
    parts: dict[str, list[Operation]] = dataclasses.field(default_factory=dict)

    def counts(self) -> Counts:
        """Returns what it takes; a loop that is part of something counts as one turn of it.

        Of branches that which takes most counts, each number by itself.
        """
        if self.kind == LOOP:
            return Counts(waits=1).plus(*map(total, self.parts.values()))
        if self.kind == CHOICE:
            branches = [total(part) for part in self.parts.values()]
            return Counts(*map(max, zip(*branches, strict=True))).plus(Counts(waits=1))
        if self.kind == GRAPH:
            inner = total(self.parts.get("", ()))
            return Counts(inner.kernels, 1, 0)
        if self.kind == SEQUENCE:
            return total(self.parts.get("", ()))
        return Counts(1, 1, 0)


def total(operations: Iterable[Operation]) -> Counts:
    """Returns what all of them take together."""
    return Counts().plus(*(one.counts() for one in operations))


def parse(text: str) -> list[Operation]:
    """Returns the operations of a list.

    Raises:
      ValueError: it is none that XLA writes for GPUs.
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
    return top.parts[""]


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
    return [loop.counts() for loop in found]
