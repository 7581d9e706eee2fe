"""What a running experiment tells whoever watches it.

The experiment calls an `Observer`: a terminal, a report, a log, or a test. Nothing that an observer
does changes a result.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lth_jax.errors import SpecError, first_line, shown
from lth_jax.store.tables import ResultRow
from lth_jax.training.metrics import ACCURACY, Metric


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
class PlannedLevel:
    """What is to be done at one level, for the time that it will take.

    Attributes:
      level: which.
      steps: the updates of all its runs together.
      done: those of finished runs.
      cost: what one of them costs, in times of one of the dense network.
      programs: how many programs have to be compiled that no earlier level has.
    """

    level: int
    steps: int
    done: int
    cost: float
    programs: int


@dataclasses.dataclass(frozen=True)
class ExperimentHeader:
    """What is said of an experiment before it trains.

    Attributes:
      name, identity: of the experiment.
      workdir: where its results go.
      device: what it trains on, one phrase.
      data: what it trains with, one phrase.
      parameters: a row for each leaf.
      levels: what is planned, level by level.
      metric: what networks are measured by.
    """

    name: str
    identity: str
    workdir: str
    device: str
    data: str
    parameters: Sequence[ParameterRow]
    levels: Sequence[PlannedLevel]
    metric: Metric = ACCURACY


class Observer:
    """The events of one experiment, in the order in which they come. Override those of interest.

    `experiment_started`, then for each level that has work left `level_started`, any number of
    `compiling` and `advanced`, `level_finished`, and any number of `measuring`; then
    `experiment_finished`. `note` may come at any time, `close` comes last, after an error or an
    interruption too. Steps are counted over runs: one update of one run is one.
    """

    def experiment_started(self, header: ExperimentHeader) -> None:
        """The experiment is built, and training is about to begin."""

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """`runs` runs of `level` begin or go on: `done` of their `steps` in all are done."""

    def compiling(self, level: int) -> None:
        """A program for `level`, which has begun, is compiled until the next event."""

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """`steps` more are done; the trunk's latest loss and accuracy, None if nothing is new.

        Where networks are measured by another metric, that stands in place of the accuracy.
        """

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """All runs of `level` are done; `rows` are theirs, `seconds` is what the level took."""

    def measuring(self, path: int, paths: int) -> None:
        """The `path`-th of `paths` between trained networks is measured until the next event."""

    def shortened(self, steps: int) -> None:
        """`steps` less are to be done in all: the ticket of a replicate ended."""

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

    def tell(self, event: str, *arguments: Any, **facts: Any) -> None:
        """Tells all of an event."""
        for observer in self.observers:
            getattr(observer, event)(*arguments, **facts)


def _telling(event: str) -> Callable[..., None]:
    return lambda self, *arguments, **facts: self.tell(event, *arguments, **facts)


for _event in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _event, _telling(_event))


class Guarded(Observers):
    """An observer of a user's own, which may fail: no result is worth less for it.

    What it raises is told in one line; it is closed then, and told nothing more.

    Args:
      name: what it is called.
      make: makes it.
      warn: takes the line.

    Raises:
      SpecError: what `make` gives is no observer.
    """

    def __init__(self, name: str, make: Callable[[], Any], warn: Callable[[str], None]):
        super().__init__()
        self._name, self._warn = name, warn
        try:
            made = make()
        except (Exception, SystemExit) as error:
            self._give_up(error)
            return
        if not isinstance(made, Observer):
            raise SpecError(
                f"OBSERVERS['{name}'] gave {shown(made)}; accepted: an lth_jax.Observer"
            )
        self.observers = (made,)

    def tell(self, event: str, *arguments: Any, **facts: Any) -> None:
        """Tells it of an event, unless it failed before."""
        try:
            super().tell(event, *arguments, **facts)
        except (Exception, SystemExit) as error:
            failed, self.observers = self.observers, ()
            self._give_up(error)
            for observer in failed if event != "close" else ():
                with contextlib.suppress(Exception, SystemExit):
                    observer.close()

    def _give_up(self, error: BaseException) -> None:
        what = f"{type(error).__name__}: {first_line(error)}"
        self._warn(f"the observer '{self._name}' failed and is told nothing more ({what})")
