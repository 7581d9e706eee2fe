"""The command line in this process."""

import logging

import pytest
from tiny import experiment

from lth_jax import build
from lth_jax.commands import run


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
    monkeypatch.setattr(build, "build", experiment)

    def main(*arguments):
        status = run.main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return main
