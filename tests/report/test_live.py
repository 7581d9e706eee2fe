"""The report of an experiment while it runs."""

import itertools
import json
import re

import pytest

from lth_jax.errors import Interrupted
from lth_jax.lottery.observer import Observer, Observers
from lth_jax.lottery.runner import Runner
from lth_jax.report import live
from lth_jax.report.live import LiveReport
from lth_jax.report.tensorboard import FILE, read_events
from lth_jax.store import RunDirectory

from ..tiny import StopAt, assert_same_run, experiment, tiny_spec, train


class Pages(Observer):
    """Keeps the page as it is after each level."""

    def __init__(self, path):
        self.page, self.texts = path / "report.html", []

    def level_finished(self, *_):
        self.texts.append(self.page.read_text("utf-8") if self.page.exists() else "")


def watched(path, spec, told, *, stop_signal=lambda: 0, **options):
    """Trains `spec` with a live report beside it; gives the page after each level."""
    store = RunDirectory.open(path, spec, "tiny", ["run.py"])
    pages = Pages(path)
    watching = [stop_signal] if isinstance(stop_signal, Observer) else []
    observer = Observers(LiveReport(store, told.append, **options), pages, *watching)
    try:
        Runner(experiment(spec), store, observer, stop_signal=stop_signal).run()
    finally:
        observer.close()
        store.close()
    return pages.texts


def results(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["runs"][0]["results"]


@pytest.mark.slow
def test_the_page_is_written_after_each_level_and_changes_no_bit(tmp_path, finished):
    told = []
    pages = watched(tmp_path / "run", tiny_spec(), told, clock=itertools.count(0, 1000).__next__)
    assert told == []
    assert [len(results(text)) for text in pages] == [2, 8, 14]
    assert all(text.count("<svg") >= 4 for text in pages)
    assert 'http-equiv="refresh"' in pages[0]
    assert "running, 8 of 14 runs" in pages[1]
    assert "finished, 14 of 14 runs" in pages[2]
    assert 'http-equiv="refresh"' not in pages[2]
    assert_same_run(tmp_path / "run", finished)
    for branch, level in [("ticket", 0), ("ticket", 2), ("reinit", 2)]:
        folder = tmp_path / "run" / "tensorboard" / branch / "replicate_1"
        assert len(read_events(folder / FILE.format(level=level))) == 4 + 1


@pytest.mark.slow
def test_figures_that_would_cost_too_much_wait_and_the_page_says_so(tmp_path):
    told = []
    now = itertools.count(0, 1)
    pages = watched(tmp_path, tiny_spec(branches=()), told, clock=now.__next__)
    assert told == []
    assert "drawn again" not in pages[0]
    assert "As of level 0; drawn again as time allows" in pages[1]
    assert [len(results(text)) for text in pages] == [2, 4, 6], "the table is always new"


def test_an_interrupted_experiment_leaves_no_page_that_says_it_runs(tmp_path):
    with pytest.raises(Interrupted):
        watched(tmp_path, tiny_spec(), [], stop_signal=StopAt(level=1))
    text = (tmp_path / "report.html").read_text("utf-8")
    assert re.search(r"stopped, \d+ of 14 runs", text)
    assert 'http-equiv="refresh"' not in text


def test_a_report_that_fails_is_told_once_and_the_experiment_goes_on(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(live, "Contents", fail)
    told = []
    watched(tmp_path, tiny_spec(), told)
    assert told == [
        "warning: TensorBoard's files could not be written: RuntimeError: no ink",
        "warning: the report could not be written: RuntimeError: no ink",
    ]
    assert len(RunDirectory.read(tmp_path).rows) == 14


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    told = []
    watched(tmp_path, tiny_spec(levels=0, branches=()), told)
    (line,) = told
    assert line.startswith("warning: TensorBoard's files could not be written")
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_resumed_run_has_every_point_once(tmp_path, without_figures):
    spec = tiny_spec(levels=1, checkpoint__every_seconds=0)
    ticking = itertools.count(0, 1000).__next__  # so that files are written at every evaluation
    with pytest.raises(Interrupted, match="level 0"):
        watched(tmp_path, spec, [], stop_signal=StopAt(level=0, updates=7), clock=ticking)
    begun = list((tmp_path / "tensorboard").glob("*/*/*tfevents*"))
    assert 0 < min(len(read_events(file)) for file in begun) < 4, "no file was begun only"
    told = []
    watched(tmp_path, spec, told)
    assert told == []
    files = list((tmp_path / "tensorboard").glob("*/*/*tfevents*"))
    assert len(files) == 8
    assert {len(read_events(file)) for file in files} == {4 + 1}


def test_training_without_a_watcher_writes_no_report(tmp_path):
    train(tmp_path, tiny_spec(levels=0, branches=()))
    assert not (tmp_path / "report.html").exists()
