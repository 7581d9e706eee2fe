"""What a running experiment tells whoever watches it.

The experiment calls an `Observer`: a terminal, a report, a log, or a test. Nothing that an observer
does changes a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lth_jax.store.tables import ResultRow


@dataclasses.dataclass(frozen=True)
class ParameterRow:
    """One leaf of the parameters, as the header of an experiment shows it.

    Attributes:
      name: of the leaf, such as `fc1/kernel`.
      shape: of the leaf.
      count: the number of its elements.
      prunable: whether it may be pruned.
      rate: the share of its surviving weights that each level removes; 0 if it is not prunable.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    prunable: bool
    rate: float


@dataclasses.dataclass(frozen=True)
class ExperimentHeader:
    """What is said of an experiment before it trains.

    Attributes:
      name, identity: of the experiment.
      workdir: where its results go.
      device: what it trains on, one phrase.
      data: what it trains with, one phrase.
      parameters: a row for each leaf.
      total_steps: the updates of all its runs together.
      done_steps: those of finished runs.
    """

    name: str
    identity: str
    workdir: str
    device: str
    data: str
    parameters: Sequence[ParameterRow]
    total_steps: int
    done_steps: int


class Observer:
    """The events of one experiment, in the order in which they come. Override those of interest.

    `experiment_started`, then for each level that has work left `level_started`, any number of
    `advanced`, `level_finished`; then `experiment_finished`. `note` may come at any time, `close`
    comes last, after an error or an interruption too. Steps are counted over runs: one update of
    one run is one.
    """

    def experiment_started(self, header: ExperimentHeader) -> None:
        """The experiment is built, and training is about to begin."""

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """`runs` runs of `level` begin or go on: `done` of their `steps` in all are done."""

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """`steps` more are done; the trunk's latest loss and accuracy, None if nothing is new."""

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """All runs of `level` are done; `rows` are theirs, `seconds` is what the level took."""

    def note(self, message: str) -> None:
        """Something is worth one line, such as where a run was resumed from."""

    def experiment_finished(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Release the terminal or file; called exactly once, whatever happened before."""


class Observers(Observer):
    """Several observers as one: each is told of everything, in their order."""

    def __init__(self, *observers: Observer):
        self.observers = observers


def _telling_all(event: str) -> Callable[..., None]:
    def tell(self: Observers, *arguments: Any, **facts: Any) -> None:
        for observer in self.observers:
            getattr(observer, event)(*arguments, **facts)

    return tell


for _event in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _event, _telling_all(_event))
