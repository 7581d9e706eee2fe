"""Run directories by hand."""

import dataclasses

from lth_jax.config import from_config
from lth_jax.errors import StoreError
from lth_jax.store import RunDirectory
from lth_jax.store.tables import ResultRow, RunId

SPEC = from_config({"levels": 1, "replicates": 1})


def open_run(path, spec=SPEC, **options):
    return RunDirectory.open(path, spec, "digits", ["run.py", "--workdir=x"], **options)


def row(branch="ticket", level=0, replicate=0, draw=0):
    run_id = RunId(branch, level, replicate, draw)
    numbers = dict.fromkeys([f.name for f in dataclasses.fields(ResultRow)][4:], 1)
    return ResultRow(*run_id, **numbers | {"kernel": "xla"})


def refusal(action, path):
    """(what the action gave, or what it was refused with)."""
    try:
        return action(path), ""
    except StoreError as error:
        return None, str(error)
