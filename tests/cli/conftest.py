"""The command line in this process, and a run for it to look at."""

import json
import logging
import shutil

import pytest

from lth_jax.cli import inspect, run
from lth_jax.lottery import building

from ..tiny import experiment, finished_run, tiny_spec


@pytest.fixture
def with_figures():
    """Lets `main` draw figures, which takes seconds."""


@pytest.fixture
def main(tmp_path, monkeypatch, capsys, request):
    """`run.main` in an empty folder; gives its status and what it printed.

    What is compiled is shared, and figures are drawn only for tests that ask for them; the
    processes below build, and draw, for themselves.
    """
    if "with_figures" not in request.fixturenames:
        request.getfixturevalue("without_figures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("lth_jax"), "handlers", [])
    monkeypatch.setattr(building, "build", experiment)

    def main(*arguments):
        status = run.main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return main


@pytest.fixture(scope="session")
def finished():
    """A run of one level, to inspect."""
    return finished_run(tiny_spec(levels=1))


@pytest.fixture
def copy(finished, tmp_path):
    """A run directory of one's own, to spoil."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def shown(capsys, monkeypatch):
    """What `inspect` prints at a width, its words one space apart."""

    def shown(path, *arguments, width=120, status=0):
        monkeypatch.setenv("COLUMNS", str(width))
        assert inspect.main([str(path), *arguments]) == status
        out, err = capsys.readouterr()
        assert err.count("\n") == bool(status)
        return " ".join(out.split())

    return shown


@pytest.fixture
def found(capsys):
    """The object that `inspect --json` prints."""

    def found(path, *arguments, damaged_table=""):
        assert inspect.main([str(path), "--json", *arguments]) == bool(damaged_table)
        out, err = capsys.readouterr()
        assert err == (f"error: {path}: {damaged_table}\n" if damaged_table else "")

        def refuse(name):
            pytest.fail(f"{name} is no JSON")

        return json.loads(out, parse_constant=refuse)

    return found
