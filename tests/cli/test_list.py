"""`list`: all runs under a folder, whatever their state."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from lth_jax.analysis.summary import percent
from lth_jax.analysis.verdicts import Standard, lowest_matching_density
from lth_jax.cli import main
from lth_jax.errors import Interrupted
from lth_jax.store import RunDirectory
from lth_jax.store.lock import Lock

from ..tiny import Recorder, StopAtPause, data_file, finished_run, flip_byte, tiny_spec, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run with a stopped source within it, and one that is only begun."""
    root = tmp_path_factory.mktemp("list") / "runs"
    # Everything matches within 100 points: the least that is to be shown.
    finished_run(tiny_spec(levels=1, analysis__margin=100.0), root / "done")
    with pytest.raises(Interrupted):
        train(
            root / "done" / "source",
            tiny_spec(levels=3, replicates=1, branches=()),
            stop_signal=StopAtPause(6),
        )
    RunDirectory.open(root / "deeper" / "begun", tiny_spec(levels=2), "begun", ["run.py"]).close()
    (root / "notes").mkdir()
    (root / "notes" / "spec.txt").touch()
    return root


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def listed(capsys):
    """The runs of `list --json`, by their place under the folder."""

    def listed(folder, *arguments):
        assert main(["list", str(folder), "--json", *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        found = json.loads(out)
        assert found["folder"] == str(folder)
        return {run["path"].removeprefix(f"{folder}/"): run for run in found["runs"]}

    return listed


@pytest.fixture
def shown(capsys, monkeypatch):
    """The lines of `list` at a width, words one space apart."""

    def shown(*arguments, width=120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["list", *map(str, arguments)]) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return shown


def test_every_run_is_listed_with_what_it_found(folder, listed):
    runs = listed(folder)
    assert list(runs) == ["deeper/begun", "done", "done/source"]
    done = runs["done"]
    store = RunDirectory.read(folder / "done")
    assert (done["status"], done["name"]) == ("finished", "tiny")
    assert done["identity"] == store.record_of_spec()["identity"]
    assert (done["levels_done"], done["levels"], done["replicates"]) == (1, 1, 2)
    standard = Standard.of(store.spec())
    assert done["lowest_matching_density"] == lowest_matching_density(store.sorted_rows(), standard)
    assert done["lowest_matching_density"] == pytest.approx(0.7, abs=0.05)
    assert 0 <= done["age_seconds"] < 600
    source = runs["done/source"]
    assert source["status"] == "stopped"
    assert 0 <= source["levels_done"] < source["levels"] == 3
    assert source["replicates"] == 1
    begun = runs["deeper/begun"]
    assert (begun["status"], begun["levels_done"], begun["replicates"]) == ("stopped", -1, 0)
    assert begun["lowest_matching_density"] is None


def test_the_table_fits_the_terminal(folder, shown):
    store = RunDirectory.read(folder / "done")
    standard = Standard.of(store.spec())
    matching = percent(lowest_matching_density(store.sorted_rows(), standard))
    head, begun, done, _ = shown(folder)
    assert head == "run status identity name levels replicates matching age"
    assert begun.startswith("deeper/begun stopped ")
    assert " begun – of 2 0 – " in begun
    assert f" tiny 1 of 1 2 {matching} " in done
    narrow = shown(folder, width=64)
    assert narrow[0] == "run status identity levels matching age"
    assert "1 of 1" in narrow[2]


def test_a_run_that_is_listed_itself_has_a_name(folder, listed, shown):
    assert list(listed(folder / "deeper" / "begun")) == [str(folder / "deeper" / "begun")]
    assert "begun" in "".join(shown(folder / "deeper" / "begun"))


def test_what_is_running_says_so(copy, listed):
    lock = Lock(copy / "done" / "lock")
    try:
        assert listed(copy)["done"]["status"] == "running"
    finally:
        lock.release()


def test_damaged_runs_and_runs_of_other_formats_are_shown_as_such(copy, listed, shown):
    (copy / "done" / "spec.json").write_text("{")
    shutil.rmtree(copy / "done" / "checkpoints" / "replicate_1")
    file = copy / "deeper" / "begun" / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    runs = listed(copy)
    assert runs["done"]["status"] == "damaged"
    assert runs["done"]["levels_done"] == 1
    assert runs["deeper/begun"]["status"] == "unreadable"
    lines = shown(copy, width=200)
    assert any(line.startswith("deeper/begun unreadable – –") for line in lines)
    assert any(
        "begun: " in line and "has format 99; this version reads 1" in line for line in lines
    )
    assert any(line.startswith("done: spec.json is damaged: ") for line in lines)
    lines = shown(copy, "--check", width=200)
    assert any(line.endswith("(and 3 more: see inspect)") for line in lines)
    (copy / "done" / "spec.json").unlink()
    assert listed(copy)["done"]["problems"][0] == "spec.json is missing"


def test_every_byte_is_looked_at_where_that_is_asked_for(copy, listed):
    level = copy / "done" / "checkpoints" / "replicate_0" / "level_01"
    flip_byte(data_file(level))
    assert listed(copy, "--check")["done"]["status"] == "damaged"
    for quick in ([], ["--quick"]):
        assert listed(copy, *quick)["done"]["status"] == "finished"


def test_of_a_large_folder_it_opens_a_few_files_of_each_run(folder, tmp_path, listed, monkeypatch):
    """Its time is that of the files that it opens."""
    for index in range(10):
        shutil.copytree(folder / "done", tmp_path / "runs" / f"run_{index}")
    opened = []
    real_open, real_io = os.open, io.open

    def count(real):
        def opening(file, *arguments, **options):
            if str(file).startswith(str(tmp_path)):
                opened.append(Path(os.fsdecode(file)).name)
            return real(file, *arguments, **options)

        return opening

    monkeypatch.setattr(os, "open", count(real_open))
    monkeypatch.setattr(io, "open", count(real_io))
    runs = listed(tmp_path / "runs")
    assert len(runs) == 20  # each with its source
    assert {"spec.json", "results.csv"} < set(opened)
    assert set(opened) <= {"spec.json", "results.csv", "lock", "lock.holder", *names(runs)}
    assert len(opened) <= 5 * len(runs)


def names(runs):
    """The folders themselves, which are locked, too."""
    return {Path(run).name for run in runs}


def test_what_it_passes_over_it_says(copy, shown, capsys):
    (copy / "link").symlink_to(copy / "done")
    shutil.copytree(copy / "done", copy / ".trash" / "done")
    for index in range(5):
        (copy / f"other_{index}").symlink_to(copy / "done")
    lines = shown(copy)
    assert "passed over .trash: it is hidden" in lines
    assert "passed over link: it is a link" in lines
    assert lines[-1] == "passed over 2 more: see --json"
    assert main(["list", str(copy), "--json"]) == 0
    over = json.loads(capsys.readouterr().out)["passed_over"]
    assert len(over) == 7
    assert over[0] == {"path": f"{copy}/.trash", "why": "it is hidden"}


def test_a_run_that_was_renamed_or_moved_is_the_same(copy, tmp_path, listed):
    """All that is known of it lies within."""
    before = listed(copy)["done"]
    elsewhere = tmp_path / "else" / "where"
    elsewhere.parent.mkdir()
    (copy / "done").rename(elsewhere)
    after = listed(tmp_path / "else")["where"]
    ignored = {"path": None, "age_seconds": None}
    assert before | ignored == after | ignored
    files = {file: file.read_bytes() for file in elsewhere.rglob("*") if file.is_file()}
    recorder = Recorder()
    train(elsewhere, tiny_spec(levels=1, analysis__margin=100.0), observer=recorder)
    assert recorder.events == [], "nothing is trained again"
    changed = {f.name for f in files if f.read_bytes() != files[f]}
    assert changed <= {"spec.json", "lock"}


def test_where_there_is_nothing_it_says_so(tmp_path, monkeypatch, shown, capsys):
    assert shown(tmp_path) == [f"no runs under {tmp_path}"]
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 2
    assert (
        capsys.readouterr().err
        == "error: runs: no such folder; accepted: a folder with runs in it\n"
    )
    (tmp_path / "runs").mkdir()
    assert shown() == ["no runs under runs"]
    assert main(["list", "--al"]) == 2
    assert "--al" in capsys.readouterr().err


def test_help_names_it(capsys):
    assert main(["--help"]) == 0
    assert "\n  list       all runs under a directory\n" in capsys.readouterr().out


def test_a_damaged_table_is_in_the_exit_status(copy, capsys):
    file = copy / "done" / "results.csv"
    file.write_text(file.read_text().replace("ticket,1,0,0,", "ticket,1,0,7,"))
    assert main(["list", str(copy), "--json"]) == 1
    out, err = capsys.readouterr()
    assert {run["status"] for run in json.loads(out)["runs"]} > {"damaged"}
    assert err.startswith(f"error: {copy}/done: results.csv line ")
    assert err.count("\n") == 1


def test_a_run_all_of_whose_tickets_diverged_is_finished_where_they_ended(listed, tmp_path):
    train(tmp_path / "run", tiny_spec(levels=2, branches=(), train__learning_rate=1e30))
    (entry,) = listed(tmp_path).values()
    assert (entry["status"], entry["levels_done"], entry["levels"]) == ("finished", 0, 2)
