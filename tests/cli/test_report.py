"""`report`: where its files go, and what wrong input is answered with."""

import os
import shutil

import pytest

from lth_jax.api import running
from lth_jax.cli import main as command
from lth_jax.store import RunDirectory

from ..tiny import arguments, data_file, finished_run, flip_byte, tiny_spec


@pytest.fixture
def finished():
    return finished_run(tiny_spec(levels=1, replicates=1, branches=("reinit",)))


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A run directory of one's own, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "run")


def report(capsys, *args):
    status = command(["report", *map(str, args)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.slow
def test_one_run_has_its_report_in_its_directory(run, capsys):
    status, out, err = report(capsys, "run")
    assert (status, err) == (0, "")
    assert "run/report.html" in out
    assert "run/figures" in out
    for name in ("report.html", "figures/accuracy.svg", "figures/first_layer_mask.png"):
        assert (run / name).stat().st_size > 1000
    assert list((run / "tensorboard").rglob("events*"))


@pytest.mark.slow
def test_out_leaves_the_run_as_it_is(run, capsys):
    before = sorted(run.rglob("*"))
    assert report(capsys, "run", "--out=elsewhere")[0] == 0
    assert sorted(run.rglob("*")) == before
    text = (run.parent / "elsewhere/report.html").read_text()
    assert 'href="../run/results.csv"' in text
    assert 'href="figures/accuracy.png"' in text


@pytest.mark.slow
def test_several_runs_go_to_a_folder_of_their_own(run, capsys, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    before = sorted(other.rglob("*"))
    status, out, err = report(capsys, "run", "other", "run")
    assert (status, err) == (0, "")
    assert "comparison/report.html" in out
    assert (tmp_path / "comparison/figures/accuracy.png").exists()
    assert sorted(other.rglob("*")) == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_a_warning(run, capsys):
    flip_byte(data_file(run / "checkpoints/replicate_0/level_01"))
    status, _, err = report(capsys, "run")
    assert status == 0
    (line,) = err.splitlines()
    assert line.startswith("warning: ")
    assert "replicate_0/level_01" in line
    assert "left out" in line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "RUN"),
        (["nowhere"], "nowhere holds no run"),
        (["run", "nowhere"], "nowhere holds no run"),
        (["run", "--level=1"], "--level"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(run, capsys, args, said):
    status, out, err = report(capsys, *args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (run / "report.html").exists()


def test_a_run_of_another_format_is_answered_in_one_line(run, capsys):
    record = run / "spec.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 99'))
    status, _, err = report(capsys, "run")
    assert status == 2
    assert "format 99" in err
    assert err.count("\n") == 1


def test_an_unwritable_output_is_answered_in_one_line(run, capsys):
    (run.parent / "file").write_text("")
    status, _, err = report(capsys, "run", "--out=file")
    assert status == 2
    assert err.startswith("error: --out=file: a file is there")
    assert err.count("\n") == 1
    assert (run.parent / "file").read_text() == ""


@pytest.mark.slow
def test_a_run_writes_its_report_and_survives_one_that_fails(
    main, tmp_path, monkeypatch, with_figures
):
    options = [*arguments(levels=1, replicates=1, branches="()"), "--workdir=x"]
    status, out, err = main(*options)
    assert status == 0
    assert "warning" not in err
    assert "x/report.html" in out
    assert (tmp_path / "x/figures/initial_weights.svg").exists()
    assert "finished, 2 of 2 runs" in (tmp_path / "x/report.html").read_text()
    assert not list((tmp_path / "x").rglob("*.tmp"))

    def fail(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(running, "write_report", fail)
    status, again, err = main(*options)
    assert status == 0
    assert err == "warning: the report was not written: RuntimeError: no ink\n"
    assert again.splitlines()[:5] == out.splitlines()[:5]


def test_a_running_run_keeps_its_event_files_to_itself(run, capsys, monkeypatch):
    monkeypatch.setattr(RunDirectory, "holder", lambda _: f"process {os.getpid()}")
    monkeypatch.setattr("lth_jax.report.figures.FIGURES", {})
    assert report(capsys, "run")[0] == 0
    assert not (run / "tensorboard").exists()
