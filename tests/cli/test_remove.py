"""`remove`: all of a run goes, and nothing else."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from lth_jax.cli import main
from lth_jax.cli.remove import size_text
from lth_jax.report.page import write_report
from lth_jax.store import RunDirectory
from lth_jax.store.lock import Lock

from ..tiny import finished_run, tiny_spec


@pytest.fixture
def said(monkeypatch, capsys):
    """What `remove` says where an answer is typed: (status, output, errors)."""

    def said(*arguments, answer=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        status = main(["remove", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return said


def test_it_says_what_goes_and_asks(copy, said):
    before = sorted(copy.rglob("*"))
    size = sum(f.lstat().st_size for f in before if f.is_file() and f.name != "lock")
    for answer in ("n\n", "\n", "no\n", "yesterday\n"):
        status, out, err = said(copy, answer=answer)
        assert (status, out.count("\n")) == (0, 1)
        assert out.startswith(f"{copy}  {size_text(size)}  tiny, identity ")
        assert err == "remove this run for good? [y/N] nothing was removed\n"
    status, _, err = said(copy)
    assert status == 2
    assert err.endswith("nobody answered, and nothing was removed; accepted: --yes\n")
    assert sorted(copy.rglob("*")) == before
    assert said(copy, answer="y\n")[0] == 0
    assert not copy.exists()


def test_a_run_goes_with_its_report_its_source_and_what_was_left(tmp_path, said, without_figures):
    run = tmp_path / "run"
    finished_run(tiny_spec(levels=0, branches=()), run)
    finished_run(tiny_spec(levels=0, branches=()), run / "source")
    write_report([RunDirectory.read(run)], events=True)
    (run / "claims.md").write_text("")
    (run / ".results.csv.0123.tmp").write_text("")
    (run / "config").mkdir(exist_ok=True)
    assert said(run, "--yes")[0] == 0
    assert os.listdir(tmp_path) == []


def test_what_is_not_the_run_s_stays_and_no_link_is_followed(copy, tmp_path, said):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (copy / "notes.txt").write_text("mine")
    (copy / "metrics" / "link").symlink_to(outside)
    shutil.rmtree(copy / "figures", ignore_errors=True)
    (copy / "figures").symlink_to(outside)
    (copy / "elsewhere").symlink_to(outside)
    status, out, _ = said(copy, "--yes")
    assert status == 0
    assert "stays, as it is none of the run's: elsewhere" in out
    assert "stays, as it is none of the run's: notes.txt" in out
    assert sorted(os.listdir(copy)) == ["elsewhere", "notes.txt"]
    assert (outside / "precious").read_text() == "precious"


def test_it_refuses_what_is_no_run_or_is_running_and_then_removes_nothing(copy, tmp_path, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(copy)
    lock = Lock(copy / "lock")
    try:
        for arguments, why in [
            ([tmp_path / "none"], "none: it holds no run"),
            ([tmp_path / "empty"], "empty: it holds no run"),
            ([tmp_path / "link"], "link: it is a link"),
            ([copy], f"is in use by process {os.getpid()}"),
        ]:
            status, out, err = said(*arguments, "--yes")
            assert (status, out, err.count("\n")) == (2, "", 1)
            assert why in err
    finally:
        lock.release()
    assert said(copy, tmp_path / "none", "--yes")[0] == 2
    assert (copy / "spec.json").exists()


def test_it_refuses_what_another_run_takes_its_tickets_from(copy, tmp_path, said, monkeypatch):
    user = shutil.copytree(copy, tmp_path / "user")
    shutil.copytree(copy, user / "source")
    record = json.loads((user / "spec.json").read_text())
    record["spec"]["source"] = {"run": str(copy)}
    (user / "spec.json").write_text(json.dumps(record))
    for source, by in ((copy, user), (user / "source", user)):
        status, _, err = said(source, "--yes")
        assert status == 2
        assert f"{source}: {by} takes its tickets from it" in err
    assert said(copy, user, "--yes")[0] == 0
    assert not copy.exists()
    assert not user.exists()


def test_a_removal_that_was_cut_off_goes_on(copy, said, monkeypatch):
    real = Path.unlink

    def fail(path, missing_ok=False):
        if path.name == "results.csv":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        status, _, err = said(copy, "--yes")
    assert status == 2
    assert err == f"error: {copy}/results.csv: Permission denied\n"
    assert (copy / "spec.json").exists(), "it is a run yet"
    assert said(copy, "--yes")[0] == 0
    assert not copy.exists()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (2.5e9, "2.5 GB")]
)
def test_sizes_are_for_people(size, text):
    assert size_text(size) == text
