"""The folder of a sweep: statuses, one table of all, figures and the page."""

import csv
import json
import re

import pytest

from lth_jax.api.choice import Chosen
from lth_jax.errors import StoreError
from lth_jax.store import RunDirectory
from lth_jax.sweep.directory import SweepDirectory
from lth_jax.sweep.grid import Cell
from lth_jax.sweep.report import members_table, write_sweep_report
from lth_jax.sweep.settings import ordered, settings_of

from ..tiny import StopAtPause, flip_byte, tiny_spec, train

FIELDS = {"levels": 1, "replicates": 2, "branches": ("reinit",)}


def cell(**fields):
    return Cell(Chosen(tiny_spec(**{**FIELDS, **fields}), "tiny", None, False))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four finished experiments, of two learning rates and two seeds."""
    directory = SweepDirectory(tmp_path_factory.mktemp("sweep"))
    cells = [cell(train__learning_rate=rate, seed=seed) for rate in (0.01, 0.1) for seed in (0, 1)]
    directory.add(cells)
    for one in cells:
        train(directory.path / one.name, one.chosen.spec)
    return directory


@pytest.mark.slow
def test_each_status_is_what_its_directory_says(tmp_path):
    directory = SweepDirectory(tmp_path)
    names = ("finished", "stopped", "waiting", "failed", "damaged", "running", "repaired")
    cells = {name: cell(seed=seed) for seed, name in enumerate(names)}
    directory.add(cells.values())
    for name in ("finished", "damaged", "repaired"):
        train(tmp_path / cells[name].name, cells[name].chosen.spec)
    with pytest.raises(Exception, match="level 0"):
        train(tmp_path / cells["stopped"].name, cells["stopped"].chosen.spec, StopAtPause(2))
    flip_byte(tmp_path / cells["damaged"].name / "results.csv")
    for name in ("failed", "repaired", "running"):
        directory.fail(cells[name].name, "no memory")
    running = cells["running"]
    store = RunDirectory.open(tmp_path / running.name, running.chosen.spec, "tiny", [])
    found = {member.name: member for member in SweepDirectory(tmp_path).members()}
    store.close()
    # A failure of before says nothing of what is finished now.
    wanted = {**{name: name for name in names}, "repaired": "finished"}
    assert {name: found[one.name].status for name, one in cells.items()} == wanted
    assert found[cells["failed"].name].why == "no memory"
    assert "damaged" in found[cells["damaged"].name].why
    assert found[cells["finished"].name].done == found[cells["finished"].name].planned == 6
    assert (found[cells["waiting"].name].done, found[cells["waiting"].name].planned) == (0, 6)


def test_a_failure_is_forgotten_with_the_next_start(tmp_path):
    directory = SweepDirectory(tmp_path)
    one = cell()
    directory.add([one])
    directory.fail(one.name, "no memory")
    directory.forget_failure(one.name)
    assert [member.status for member in directory.members()] == ["waiting"]
    directory.forget_failure(one.name)


def test_experiments_of_earlier_commands_stay(tmp_path):
    SweepDirectory(tmp_path).add([cell(seed=0)])
    later = SweepDirectory(tmp_path)
    later.add([cell(seed=1)])
    before = (tmp_path / "sweep.json").read_bytes()
    again = SweepDirectory(tmp_path)
    again.add([cell(seed=0)])
    assert (tmp_path / "sweep.json").read_bytes() == before
    assert [dict(member.fields) for member in again.members()] == [{"seed": 0}, {"seed": 1}]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1, "experiments": {"a": 3}}'])
def test_a_damaged_record_is_told_in_one_line(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(StoreError, match=r"sweep\.json"):
        SweepDirectory(tmp_path).members()


@pytest.mark.slow
def test_the_table_has_a_line_for_each_branch_and_level_with_the_fields_that_differ(sweep):
    sweep.write_table(sweep.members())
    with (sweep.path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3
    assert [row["train.learning_rate"] for row in rows[::3]] == ["0.01", "0.01", "0.1", "0.1"]
    assert {row["seed"] for row in rows} == {"0", "1"}
    member = sweep.members()[0]
    dense = [r.early_stop_test_accuracy for r in member.rows if r.run_id[:2] == ("ticket", 0)]
    assert float(rows[0]["early_stop_test_accuracy"]) == pytest.approx(sum(dense) / 2)
    assert "train_seconds" not in rows[0]


def test_a_setting_takes_the_replicates_of_all_seeds_together(sweep):
    found = settings_of(sweep.members())
    assert list(found.fields) == ["train.learning_rate"]
    assert found.level == 1
    assert [dict(s.fields) for s in found.settings] == [
        {"train.learning_rate": 0.01}, {"train.learning_rate": 0.1},
    ]  # fmt: skip
    members = sweep.members()
    values = [
        row.early_stop_test_accuracy
        for member in members[:2]
        for row in member.rows
        if (row.branch, row.level) == ("ticket", 1)
    ]
    first = found.settings[0]
    assert first.runs == len(values) == 4
    assert first.ticket.mean == pytest.approx(sum(values) / 4)
    assert first.ticket.low < first.ticket.mean < first.ticket.high


def test_seeds_alone_are_a_field(sweep):
    members = [m._replace(fields={"seed": m.fields["seed"]}) for m in sweep.members()[:2]]
    assert settings_of(members).fields == {"seed": [0, 1]}


def test_values_are_in_the_order_of_numbers_or_as_they_come():
    assert ordered([0.1, 1e-3, 0.1]) == [1e-3, 0.1]
    assert ordered(["b", None, "a", "b"]) == ["b", None, "a"]
    assert ordered([True, False]) == [True, False]


def test_the_report_has_lines_by_field_and_maps_of_pairs(sweep):
    folder = sweep.path / "out"
    members = [
        m._replace(fields={**m.fields, "model.name": "mlp" if m.fields["seed"] else "conv2"})
        for m in sweep.members()
    ]

    class Shown(SweepDirectory):
        def members(self):
            return members

    assert write_sweep_report(Shown(sweep.path), folder) == []
    page = (folder / "report.html").read_text()
    names = {"by_train_learning_rate", "by_model_name", "map_train_learning_rate_model_name"}
    assert {path.stem for path in (folder / "figures").glob("*.svg")} == names
    assert set(re.findall(r'<figure id="figure-(\w+)"', page)) == names
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    # A point of each panel for each setting, and the dense network and the ticket have one each.
    assert {name: len(marks) for name, marks in data["figures"].items()} == dict.fromkeys(names, 8)
    assert any("train.learning_rate=0.01" in mark[-1] for mark in data["figures"]["by_model_name"])
    for member in members:
        assert member.name in page


def test_what_has_no_results_yet_is_a_table_and_no_figure(tmp_path):
    directory = SweepDirectory(tmp_path)
    directory.add([cell(seed=0), cell(seed=1)])
    write_sweep_report(directory, tmp_path)
    assert "<figure" not in (tmp_path / "report.html").read_text()
    table = members_table(directory.members())
    assert [[cell.text for cell in row[1:]] for row in table.rows] == [
        [seed, "waiting", "0 of 6", "–", "–"] for seed in ("0", "1")
    ]


def test_metrics_of_two_tasks_are_not_brought_together(sweep):
    first, second, *_ = sweep.members()
    other = second._replace(metric=second.metric._replace(name="loss"))
    with pytest.raises(StoreError, match="is measured by"):
        sweep.write_table([first, other])
