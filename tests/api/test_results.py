"""`lth_jax.read`: what a run directory holds, as typed values."""

import contextlib
import dataclasses
import pickle
import shutil
import signal

import jax
import numpy as np
import pytest

import lth_jax
from lth_jax.analysis.verdicts import Standard, judge
from lth_jax.errors import Interrupted, SpecError, StoreError
from lth_jax.report.verdict import verdict
from lth_jax.store import RunDirectory
from lth_jax.store.tables import RunId

from ..tiny import StopAt, data_file, finished_run, flip_byte, host, tiny_spec, train


@pytest.fixture(scope="module")
def finished():
    return finished_run(tiny_spec(levels=1))


@pytest.fixture(scope="module")
def found(finished):
    return lth_jax.read(finished)


def test_rows_are_those_of_the_table_and_what_is_said_of_them(finished, found):
    store = RunDirectory.read(finished)
    assert found.rows == tuple(store.sorted_rows())
    assert (found.name, found.status, found.spec) == ("tiny", "finished", store.spec())
    assert found.identity == store.record_of_spec()["identity"]
    standard = Standard.of(found.spec)
    assert found.verdict == verdict(found.rows, standard)
    assert repr(found.judgements) == repr(judge(found.rows, standard))
    assert [(s.branch, s.level, s.replicates) for s in found.summaries] == [
        ("ticket", 0, 2), ("ticket", 1, 2), ("reinit", 1, 2), ("random_mask", 1, 2)
    ]  # fmt: skip


def test_curves_are_those_of_the_runs_that_are_asked_for(found):
    assert list(found.curves(level=1, replicate=1)) == [
        RunId("ticket", 1, 1, 0), RunId("reinit", 1, 1, 0), RunId("random_mask", 1, 1, 0)
    ]  # fmt: skip
    assert len(found.curves()) == len(found.rows)
    ((run_id, points),) = found.curves("ticket", 0, 0).items()
    assert [point.step for point in points] == [0, 5, 10, 12]
    row = next(row for row in found.rows if row.run_id == run_id)
    assert points[-1].val_accuracy == row.final_val_accuracy
    assert found.curves(level=7) == {}
    with pytest.raises(SpecError, match="did you mean 'reinit'"):
        found.curves("reinitt")


def test_masks_and_networks_are_those_of_the_tickets(finished, found):
    mask, _, step = found.ticket(1, replicate=1)
    assert jax.tree.all(jax.tree.map(np.array_equal, mask, found.mask(1, replicate=1)))
    assert step == 0
    kept = next(row.kept for row in found.rows if row.run_id == RunId("ticket", 1, 1, 0))
    prunable = {name: leaf for name, leaf in host(found.mask(1, 1)).items() if "kernel" in name}
    assert sum(int(leaf.sum()) for leaf in prunable.values()) == kept
    trained, _ = found.trained(1, replicate=1)
    assert all(not np.any(host(trained)[name][~leaf]) for name, leaf in prunable.items())
    with pytest.raises(StoreError, match="levels 0 to 1 of replicate 0"):
        found.mask(2)


def test_a_notebook_shows_the_table(found):
    text, html = repr(found), found._repr_html_()
    assert text.startswith("<Results of tiny, finished, 8 of 8 runs, in ")
    for said in ("Test accuracy at early stop", "reinit", found.verdict.split(".")[0]):
        assert said in text
        assert said.partition(" (")[0] in html
    assert html.count("<table") == 3
    assert "&lt;b&gt;" in lth_jax.api.results.results_html("<b>", found._contents)


def test_results_cannot_be_changed_and_travel_to_other_processes(found):
    with pytest.raises(AttributeError, match="cannot be changed: rows"):
        found.rows = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.spec.levels = 3
    again = pickle.loads(pickle.dumps(found))
    assert (again.rows, again.path) == (found.rows, found.path.resolve())


def test_of_a_run_in_progress_it_gives_what_there_is(tmp_path):
    spec = tiny_spec(levels=2)
    stop = StopAt(1, 10, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(tmp_path, spec, stop)
    found = lth_jax.read(tmp_path)
    assert found.status == "stopped"
    assert {row.level for row in found.rows} == {0}
    assert found.judgements == {}
    assert any(run_id.level == 1 for run_id in found.curves())
    assert "6 of 14 runs" not in repr(found)
    assert "2 of 14 runs" in repr(found)
    with contextlib.closing(RunDirectory.open(tmp_path, spec, "tiny", [])):
        assert lth_jax.read(tmp_path).status == "running"


def test_damage_is_a_store_error_where_it_is_met(finished, tmp_path):
    path = shutil.copytree(finished, tmp_path / "run")
    curve = path / "metrics" / "reinit" / "level_01.csv"
    curve.write_text(curve.read_text().replace("1", "2", 1))
    flip_byte(data_file(path / "checkpoints/replicate_0/level_01"))
    found = lth_jax.read(path)
    assert len(found.curves("ticket")) == 4
    with pytest.raises(StoreError, match="is damaged"):
        found.curves()
    with pytest.raises(StoreError, match="replicate_0"):
        found.mask(1)
    assert found.mask(1, replicate=1)
    flip_byte(path / "results.csv")
    with pytest.raises(StoreError, match="damaged"):
        lth_jax.read(path)
    with pytest.raises(StoreError, match="holds no run"):
        lth_jax.read(tmp_path)


def test_pandas_gets_rows_and_curves(found):
    pd = pytest.importorskip("pandas")
    rows = found.to_pandas()
    assert list(rows["kept"]) == [row.kept for row in found.rows]
    assert isinstance(rows, pd.DataFrame)
    curves = found.to_pandas(curves=True)
    assert list(curves.columns[:4]) == ["branch", "level", "replicate", "draw"]
    assert len(curves) == sum(map(len, found.curves().values()))


def test_without_pandas_one_line_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        found.to_pandas()


@pytest.mark.slow
def test_figures_are_matplotlibs_and_the_report_is_written(found, tmp_path):
    from matplotlib.figure import Figure

    figure = found.figure("accuracy")
    assert isinstance(figure, Figure)
    assert figure.axes
    assert figure._repr_png_().startswith(b"\x89PNG")
    page = found.report(tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "figures" / "accuracy.png").exists()
    with pytest.raises(SpecError, match="did you mean 'accuracy'"):
        found.figure("acuracy")
