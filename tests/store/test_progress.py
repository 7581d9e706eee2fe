"""The level that runs: its newest state, and what a killed save leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from lth_jax.errors import StoreError
from lth_jax.store import RunDirectory, checkpoints
from lth_jax.store.share import Share, wait_to_see
from lth_jax.store.tables import RunId

from ..tiny import data_file, flip_byte
from .run_directories import open_run

RUN = RunId("ticket", 0, 0, 0)


def save(run, array, number=0):
    run.save_progress(
        {"a": array}, {"level": 0, "number": number, "runs": [{"id": list(RUN), "step": 0}]}
    )


def progress(run):
    """What a run that goes on finds: the array, and the number that it was saved with."""
    for arrays, meta in run.progress_of(0, [RUN]):
        return arrays["a"].tolist(), meta["number"]
    return None


def test_the_newest_progress_is_used_and_the_one_before_goes(path):
    run = open_run(path)
    assert progress(run) is None
    for number in range(3):
        save(run, np.full(3, number), number)
        assert progress(run) == ([number] * 3, number)
        assert len(run.progress_checkpoints()) == 1
    run.clear_progress()
    assert progress(run) is None
    run.close()


def test_numbers_above_nine_are_newer(path):
    run = open_run(path)
    for number in range(11):
        save(run, np.full(3, number), number)
        kept = run.progress_checkpoints()[0]
        shutil.copytree(kept, path / "checkpoints" / f"keep_{kept.name}")
    for kept in (path / "checkpoints").glob("keep_*"):
        target = kept.with_name(kept.name.removeprefix("keep_"))
        if not target.exists():
            kept.rename(target)
    assert len(run.progress_checkpoints()) == 11
    assert progress(run) == ([10] * 3, 10)
    run.close()


def test_the_older_progress_stands_in_for_a_damaged_one(path):
    run = open_run(path)
    save(run, np.zeros(500), 0)
    (older,) = run.progress_checkpoints()
    shutil.copytree(older, path / "kept")
    save(run, np.ones(500), 1)
    (newer,) = run.progress_checkpoints()
    (path / "kept").rename(older)
    assert progress(run)[1] == 1
    flip_byte(data_file(newer))
    assert progress(run)[1] == 0
    assert newer.name in run.problems[0]
    flip_byte(older / "manifest.json")
    assert progress(run) is None
    # A new one does not take the damaged one's place before it is whole.
    save(run, np.zeros(3), 2)
    assert progress(run)[1] == 2
    assert len(run.progress_checkpoints()) == 1
    run.close()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lth_jax.config import from_config
from lth_jax.disk import files; from lth_jax.store import RunDirectory, checkpoints
from lth_jax.store.tables import CURVES
path, moment = Path(sys.argv[1]), sys.argv[2]
run = RunDirectory.open(path, from_config({"levels": 1, "replicates": 1}), "digits", [])
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if moment == "manifest": checkpoints._digests = die
if moment == "rename": checkpoints._replace = die
if moment == "between":
    real = os.rename
    def rename(a, b):
        real(a, b)
        if a == path / "checkpoints" / "replicate_0" / "level_00": die()
    os.rename = rename
if moment in ("text", "curve"): os.replace = die
if moment == "text": run.record(list(run.rows.values()))
if moment == "curve": run.write_points(CURVES, "ticket", 0, [])
if moment == "between": run.save(0, "level_00", {"a": np.arange(5)})
run.save_progress({"a": np.arange(5)}, {"level": 0})
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["manifest", "rename", "between", "text", "curve"])
def test_a_killed_save_is_never_valid_and_is_cleaned_up_at_the_next_opening(path, moment):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = list(path.rglob(".*.tmp"))
    assert left, "the killed save left no trace: was it killed in time?"
    table = (path / "results.csv").read_text()
    run = open_run(path)
    assert list(path.rglob(".*")) == []
    assert progress(run) is None
    assert run.load(0, "level_00")["params/w"].tolist() == list(range(300))
    assert list(run.rows) == [RunId("ticket", 0, 0, 0)]
    assert (path / "results.csv").read_text() == table
    assert run.problems == []
    run.close()


def test_a_checkpoint_stays_when_the_process_ends_between_the_renames_that_replace_it(
    path, monkeypatch
):
    rename = os.rename
    run = open_run(path)

    def rename_and_stop(source, target):
        rename(source, target)
        if source == run.checkpoint(0, "level_00"):  # Orbax renames too
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", rename_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run.save(0, "level_00", {"a": np.arange(5)})
    monkeypatch.undo()
    assert not run.checkpoint(0, "level_00").exists()
    assert len(list(path.rglob(".*.tmp"))) == 2  # the old one and the new one
    run.close()

    run = open_run(path)
    assert run.load(0, "level_00")["params/w"].tolist() == list(range(300))
    assert list(path.rglob(".*")) == []
    run.close()


def test_a_replaced_checkpoint_that_was_not_removed_does_not_come_back(path):
    run = open_run(path)
    current = run.checkpoint(0, "level_00")
    shutil.copytree(current, current.with_name(".level_00.123.old.tmp"))
    run.save(0, "level_00", {"a": np.arange(5)})
    run.close()

    run = open_run(path)
    assert list(run.load(0, "level_00")) == ["a"]
    assert list(path.rglob(".*")) == []
    run.close()


def test_cleaning_up_leaves_the_files_of_others_alone(tmp_path):
    """A `--workdir` may well be a folder that holds other things."""
    mine = [tmp_path / "notes" / ".draft.tmp", tmp_path / ".swap.tmp"]
    (tmp_path / "notes").mkdir()
    for file in mine:
        file.write_text("mine")
    open_run(tmp_path).close()
    assert all(file.exists() for file in mine)


def test_a_checkpoint_of_another_format_is_said_to_be_so(path):
    run = open_run(path)
    manifest = run.checkpoint(0, "level_00") / "manifest.json"
    body = json.loads(manifest.read_text()) | {"format": 2}
    del body["sha256"]
    manifest.write_text(json.dumps({**body, "sha256": checkpoints._seal(body)}))
    with pytest.raises(StoreError, match="has format 2; this version reads 1"):
        run.load(0, "level_00")
    run.close()


def saved(path, share, *runs, step=0, level=1):
    """Saves runs as the process of a share does, or as one that has them all."""
    store = RunDirectory(path) if share is None else Share(path, share)
    metas = [{"id": ["ticket", level, run, 0], "step": step} for run in runs]
    tree = {f"run_{index}": np.full(2, step) for index in range(len(runs))}
    store.save_progress(tree, {"level": level, "runs": metas})
    return store


def found(path, *runs, level=1):
    """The steps of runs, by the state that each is in."""
    steps = {}
    wanted = [RunId("ticket", level, run, 0) for run in runs]
    for _, meta in RunDirectory(path).progress_of(level, wanted):
        for run in meta["runs"]:
            steps.setdefault(run["id"][2], []).append(run["step"])
    return steps


def test_runs_are_found_in_whatever_share_they_were_saved(tmp_path):
    saved(tmp_path, None, 0, 1, 2, step=5)
    saved(tmp_path, 0, 0, step=7)
    saved(tmp_path, 1, 1, 2, step=8)
    assert found(tmp_path, 0, 1, 2) == {0: [5, 7], 1: [5, 8], 2: [5, 8]}
    assert found(tmp_path, 3) == {}
    # What is of no run that is asked for is not even loaded; another level's is no state of it.
    flip_byte(data_file(tmp_path / "checkpoints/share_1/progress_000000"))
    assert found(tmp_path, 0) == {0: [5, 7], 1: [5], 2: [5]}
    assert found(tmp_path, 1) == {0: [5], 1: [5], 2: [5]}
    assert found(tmp_path, 0, 1, level=2) == {}


def test_a_state_stays_until_all_its_runs_are_in_a_later_one_of_its_process(tmp_path):
    saved(tmp_path, 1, 0, 1, step=5)
    share = saved(tmp_path, 1, 1, 2, step=6)
    assert len(share.progress_checkpoints()) == 2
    assert found(tmp_path, 0) == {0: [5], 1: [5]}
    assert found(tmp_path, 1, 2) == {1: [6], 2: [6]}
    saved(tmp_path, 1, 0, 1, 2, step=7)
    assert len(share.progress_checkpoints()) == 1
    saved(tmp_path, 1, 5, step=1, level=2)  # the level before is finished
    assert len(share.progress_checkpoints()) == 1
    saved(tmp_path, None, 5, step=1, level=2)
    RunDirectory(tmp_path).clear_progress()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_what_another_machine_wrote_is_waited_for_and_else_named(tmp_path, monkeypatch):
    file, turns = tmp_path / "there", []
    wait_to_see(file, lambda: turns.append(0) or (len(turns) == 3 and file.touch()))
    assert len(turns) == 3
    monkeypatch.setattr("lth_jax.store.share.SEEN_SECONDS", 0.0)
    with pytest.raises(StoreError, match=r"nowhere is not there: all processes must see one run d"):
        wait_to_see(tmp_path / "nowhere")
