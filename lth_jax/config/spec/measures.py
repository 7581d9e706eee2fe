"""What is measured of trained networks, and how results are judged and shown."""

from __future__ import annotations

import dataclasses

from lth_jax.config.fields import Duration, between, choice, field, is_duration
from lth_jax.config.spec.accepted import DURATIONS, LARGEST, MOST

PAIRS = ("siblings", "levels", "ticket_dense", "ticket_branch", "replicates")


@dataclasses.dataclass(frozen=True)
class AnalysisSpec:
    """By what results are judged."""

    margin: float | None = field(
        None,
        "By how much a network may stay behind the dense one and still match it, in the test "
        "metric's own unit; None is 0.2 points of accuracy, or what the metric brings.",
        accepted="a number above 0, or None for the metric's own",
        check=lambda value: 0 < value <= LARGEST,
        unit="points of accuracy, or the metric's unit",
    )
    confidence: float = field(
        0.95,
        "How sure each statement about matching is.",
        accepted="0.5 to below 1",
        check=lambda value: 0.5 <= value < 1,
    )


@dataclasses.dataclass(frozen=True)
class PathsSpec:
    """Which paths between trained networks are measured (Frankle et al. 2020)."""

    pairs: tuple[str, ...] = field(
        (),
        "Between which networks: the `siblings` of one branch; `levels`, a level's ticket and the "
        "one before; `ticket_dense`; `ticket_branch`, a ticket and the kept networks of branches; "
        "`replicates`.",
        accepted=f"some of {', '.join(PAIRS)}",
        check=lambda values: set(values) <= set(PAIRS) and len(set(values)) == len(values),
    )
    points: int = field(
        30, "At how many places of a path, its ends included.", **between(2, 10_000), unit="places"
    )
    statistics: str = choice(
        "interpolated",
        ("interpolated", "recomputed", "repaired"),
        "Whether batch statistics on a path lie between those of its ends, or are computed anew, "
        "or every hidden unit is `repaired` to the mean and deviation between its ends' (REPAIR).",
    )
    align: str = choice(
        "none",
        ("none", "weights", "activations"),
        "Whether each path is measured once more after the second network's hidden units are put "
        "into the order that brings its weights near to the first's, or its activations.",
    )
    examples: int = field(
        0,
        "On how many training examples; 0 is all. The test split is used whole.",
        **between(0, MOST, zero="all"),
        unit="examples",
    )

    @property
    def alignments(self) -> tuple[str, ...]:
        """Returns by what the networks of a pair are aligned, one path after the other."""
        return ("none",) if self.align == "none" else ("none", self.align)


@dataclasses.dataclass(frozen=True)
class CurvatureSpec:
    """When the largest eigenvalue of the training loss's Hessian is measured.

    It is that of the weights that are left, by Lanczos' iteration.
    """

    steps: tuple[Duration, ...] = field(
        (),
        "At which steps of every run, counted from initialization, those before its start left "
        "out; () is none.",
        accepted=f"{DURATIONS}, each once",
        check=lambda values: len(values) == len(set(values)) and all(map(is_duration, values)),
    )
    examples: int = field(
        1000,
        "Of how many training examples the loss is, in whole batches of training.",
        **between(1, MOST),
        unit="examples",
    )
    iterations: int = field(
        20,
        "How many products of the Hessian and a vector it takes.",
        **between(1, 1000),
        unit="products",
    )


@dataclasses.dataclass(frozen=True)
class ReportSpec:
    """How results are shown."""

    bars: str = choice(
        "interval",
        ("interval", "range"),
        "What bars show: the 95% interval of the mean over replicates, or minimum and maximum.",
    )
    methods: bool = field(
        False,
        "Whether the branches of a level are ranked against one another as methods, with what each "
        "costs.",
    )
