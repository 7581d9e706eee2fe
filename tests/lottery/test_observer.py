"""An observer of a user's own: what it raises ends nothing."""

import pytest

from lth_jax.errors import SpecError
from lth_jax.lottery.observer import Guarded, Observer, Observers


class Fails(Observer):
    def __init__(self, event):
        self.event, self.heard = event, []

    def _hear(self, event):
        self.heard.append(event)
        if event == self.event:
            raise SystemExit("the network\nis down")

    def level_started(self, *facts):
        self._hear("level_started")

    def note(self, message):
        self._hear("note")

    def close(self):
        self._hear("close")


def tell(observer):
    observer.level_started(1, 0.8, 3, 10, 0)
    observer.note("one")
    observer.note(message="two")
    observer.experiment_finished()
    observer.close()


@pytest.mark.parametrize(
    ("event", "heard"),
    [
        ("", ["level_started", "note", "note", "close"]),
        ("level_started", ["level_started", "close"]),
        ("note", ["level_started", "note", "close"]),
        ("close", ["level_started", "note", "note", "close"]),
    ],
)
def test_one_that_fails_is_closed_once_and_told_nothing_more(event, heard):
    lines, observer, beside = [], Fails(event), Fails("")
    tell(Observers(Guarded("mine", lambda: observer, lines.append), beside))
    assert observer.heard == heard
    assert beside.heard == ["level_started", "note", "note", "close"]
    said = "the observer 'mine' failed and is told nothing more (SystemExit: the network)"
    assert lines == ([said] if event else [])


def test_one_that_cannot_be_made_is_told_of_and_passed_over():
    lines = []
    tell(Guarded("mine", lambda: 1 / 0, lines.append))
    (line,) = lines
    assert "ZeroDivisionError" in line


def test_what_is_no_observer_is_refused():
    with pytest.raises(SpecError, match=r"OBSERVERS\['mine'\] gave 3; accepted: an lth_jax.Obs"):
        Guarded("mine", lambda: 3, print)


def test_ctrl_c_goes_through():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("mine", interrupt, print)
