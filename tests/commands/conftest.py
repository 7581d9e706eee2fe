"""The command line in this process."""

import logging

import pytest
from tiny import experiment

from lth_jax import build
from lth_jax.commands import run


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """`run.main` in an empty folder; gives its status and what it printed.

    What is compiled is shared; the processes below build for themselves.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("lth_jax"), "handlers", [])
    monkeypatch.setattr(build, "build", experiment)

    def main(*arguments):
        status = run.main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return main
