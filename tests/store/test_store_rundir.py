import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny import data_file, flip_byte

from lth_jax.errors import StoreError
from lth_jax.results import ResultRow, RunId
from lth_jax.spec import from_config, identity
from lth_jax.store import CurvePoint, RunDirectory, checkpoints, level_name

SPEC = from_config({"levels": 1, "replicates": 1})


def open_run(path, spec=SPEC):
    return RunDirectory.open(path, spec, "digits", ["run.py", "--workdir=x"])


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


@pytest.fixture
def path(tmp_path):
    """A run with one row and one checkpoint, closed."""
    path = tmp_path / "run"
    run = open_run(path)
    run.save(0, level_name(0), {"params": {"w": np.arange(300.0)}}, {"layers": {}})
    run.record([row()])
    run.close()
    return path


# Opening


def test_a_run_says_what_it_is(path):
    record = json.loads((path / "spec.json").read_text())
    assert record["identity"] == identity(SPEC)
    assert record["spec"]["levels"] == 1
    assert record["command"] == ["run.py", "--workdir=x"]
    assert {"jax", "flax", "optax", "lth_jax"} <= record["versions"].keys()
    run = RunDirectory.read(path)
    assert run.spec() == SPEC
    assert list(run.rows) == [RunId("ticket", 0, 0, 0)]
    assert run.holder() == ""


def test_reading_changes_nothing_and_needs_no_lock(path):
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    run = open_run(path)
    reader = RunDirectory.read(path)
    assert f"process {os.getpid()} on " in reader.holder()
    run.close()
    after = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    changed = {file.name for file in after if after[file] != before.get(file)}
    assert changed <= {"spec.json", "lock", "run"}


def test_reading_what_is_no_run_says_so(tmp_path):
    with pytest.raises(StoreError, match=r"holds no run: it has no spec\.json"):
        RunDirectory.read(tmp_path)


def test_a_second_opening_is_refused_and_leaves_the_first_alone(path):
    run = open_run(path)
    with pytest.raises(StoreError, match="in use by process"):
        open_run(path)
    with pytest.raises(StoreError, match="in use by process"):
        open_run(path)
    run.close()
    open_run(path).close()


def test_a_refused_opening_gives_the_lock_back(path):
    with pytest.raises(StoreError, match="another experiment"):
        open_run(path, from_config({"seed": 1}))
    open_run(path).close()


def test_a_workdir_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StoreError, match="a file lies where its folder should be") as error:
            open_run(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_workdir_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # file modes do not stop an administrator
    with pytest.raises(StoreError) as error:
        open_run(tmp_path / "run")
    assert str(error.value) == f"cannot write {tmp_path / 'run' / 'lock'}: Permission denied"


# Another experiment


def test_another_experiment_is_refused_with_both_values_of_each_field(path):
    other = from_config({"train": {"learning_rate": 0.5, "steps": "7"}, "model": {"hidden": (4,)}})
    with pytest.raises(StoreError) as error:
        open_run(path, other)
    message = str(error.value)
    assert str(path) in message
    assert "train.learning_rate: 0.0012 there, 0.5 here" in message
    assert 'train.steps: "1000" there, "7" here' in message
    assert "model.hidden: [300, 100] there, [4] here" in message
    assert "seed" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 3},
        {"replicates": 4},
        {"branches": ()},
        {"branches": ("random_mask", "reinit")},
        {"branch": {"reinit": {"draws": 3, "levels": (1,)}}},
        {"data": {"cache_dir": "elsewhere", "data_dir": "there"}},
        {"checkpoint": {"every_seconds": 1}},
        {"execution": {"group_size": 2, "compilation_cache": True}},
    ],
    ids=str,
)
def test_what_may_grow_and_what_is_no_science_is_the_same_experiment(path, changes):
    run = open_run(path, from_config(changes))
    assert len(run.rows) == 1
    run.close()


def test_a_directory_in_which_nothing_was_done_belongs_to_nobody(tmp_path):
    open_run(tmp_path / "run").close()
    other = from_config({"seed": 1})
    open_run(tmp_path / "run", other).close()
    assert RunDirectory.read(tmp_path / "run").spec() == other


def test_a_running_level_is_something_done(tmp_path):
    run = open_run(tmp_path / "run")
    run.save_progress({"a": np.arange(3)}, {"level": 0})
    run.close()
    with pytest.raises(StoreError, match="another experiment"):
        open_run(tmp_path / "run", from_config({"seed": 1}))


def test_a_branch_of_the_same_name_with_other_options_is_refused(path):
    first = from_config({"branches": ("b",), "branch": {"b": {"kind": "reinit"}}})
    open_run(path, first).close()
    other = from_config({"branches": ("b",), "branch": {"b": {"kind": "random_mask"}}})
    with pytest.raises(StoreError) as error:
        open_run(path, other)
    message = str(error.value)
    assert "branch 'b'" in message
    assert '{"kind": "reinit"} there, {"kind": "random_mask"} here' in message
    # Also after it was not asked for, for a while.
    open_run(path, from_config({"branches": ()})).close()
    with pytest.raises(StoreError, match="branch 'b'"):
        open_run(path, other)
    open_run(path, first).close()


# Damage


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format": 1}', '{"format": 2}']
)
def test_a_spec_file_that_is_none_is_named_in_one_line(path, text):
    (path / "spec.json").write_text(text)
    for action in (open_run, RunDirectory.read):
        with pytest.raises(StoreError) as error:
            action(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_damaged_spec_file_never_ends_in_a_traceback(path):
    """Flipped and missing bytes all over it: it is opened, or refused in one line."""
    content = (path / "spec.json").read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        index = chance.randrange(len(content))
        if chance.random() < 0.7:
            damaged[index] ^= 1 << chance.randrange(8)
        else:
            del damaged[index : index + chance.choice([1, 20, 10_000])]
        (path / "spec.json").write_bytes(damaged)
        for action in (open_run, RunDirectory.read, lambda p: RunDirectory.read(p).spec()):
            run, message = refusal(action, path)
            assert "\n" not in message
            refused += message != ""
            if isinstance(run, RunDirectory):
                run.close()
            (path / "spec.json").write_bytes(damaged)
    assert refused > 100


def test_a_damaged_table_is_refused_with_its_line(path):
    file = path / "results.csv"
    good = file.read_text()
    for damaged, message in (
        (good.replace("ticket,0,0,0,1", "ticket,0,x,0,1"), "line 2"),
        (good[:-9], "line 2"),
        (good.replace("kept,", ""), "lacks the columns kept"),
        ("", "lacks the columns"),
    ):
        file.write_text(damaged)
        for action in (open_run, RunDirectory.read):
            with pytest.raises(StoreError, match=message) as error:
                action(path)
            assert str(file) in str(error.value)
            assert "\n" not in str(error.value)
        assert file.read_text() == damaged, "what is damaged is left to the user"


def test_a_damaged_table_never_ends_in_a_traceback(path):
    file = path / "results.csv"
    content = file.read_bytes()
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 0x80 if index % 2 else 0x07
        file.write_bytes(damaged)
        assert "\n" not in refusal(RunDirectory.read, path)[1]


def test_a_damaged_curve_is_reported_and_not_used(path):
    run = open_run(path)
    point = CurvePoint(0, 0, 5, 0.5, 0.25, float("nan"))
    run.write_curve("ticket", 0, [point])
    assert run.curve("ticket", 0)[0][:5] == point[:5]
    assert run.curve("ticket", 1) == []
    assert run.problems == []
    (path / "metrics" / "ticket" / "level_00.csv").write_text("replicate\n0,0\n")
    assert run.curve("ticket", 0) == []
    assert "level_00.csv is damaged" in run.problems[0]
    for text in ("replicate,draw\n0,0,5,0.5\n", "replicate\n0,0,5,0.5,0.2\r5,nan\n"):
        run.problems.clear()
        (path / "metrics" / "ticket" / "level_00.csv").write_text(text, newline="")
        assert run.curve("ticket", 0) == []
        assert "level_00.csv is damaged" in run.problems[0]
    run.close()


def test_a_damaged_checkpoint_is_reported_once_and_not_used(path):
    run = open_run(path)
    assert run.intact(0, "level_00")
    assert run.load(0, "level_00")["params/w"].tolist() == list(range(300))
    flip_byte(data_file(run.checkpoint(0, "level_00")))
    assert not run.intact(0, "level_00")
    assert run.load(0, "level_00") is None
    assert len(run.problems) == 1
    assert "level_00" in run.problems[0]
    run.close()


def test_a_missing_checkpoint_is_no_damage(path):
    run = open_run(path)
    assert not run.intact(0, "level_09")
    assert run.load(7, "level_00") is None
    assert run.problems == []
    run.close()


# Rows


def test_rows_are_sorted_by_level_the_spec_s_branches_replicate_and_draw(tmp_path):
    spec = from_config({"branches": ("reinit", "random_mask")})
    run = open_run(tmp_path, spec)
    ids = [
        RunId(branch, level, replicate, draw)
        for level in (0, 1, 2, 10)
        for branch in ("ticket", "reinit", "random_mask", "gone")
        for replicate in (0, 1, 10)
        for draw in (0, 1)
    ]
    shuffled = random.Random(0).sample(ids, len(ids))
    for half in (shuffled[:30], shuffled[30:]):
        run.record(row(*run_id) for run_id in half)
    run.close()
    lines = (tmp_path / "results.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:4] for line in lines] == [[str(part) for part in i] for i in ids]


def test_a_row_replaces_the_one_of_the_same_run(path):
    run = open_run(path)
    run.record([dataclasses.replace(row(), final_test_accuracy=0.1 + 0.2)])
    run.close()
    assert len(run.rows) == 1
    assert "0.30000000000000004" in (path / "results.csv").read_text()


# The running level


def progress(run):
    found = run.load_progress()
    return None if found is None else (found[0]["a"].tolist(), found[1])


def test_the_newest_progress_is_used_and_the_one_before_goes(path):
    run = open_run(path)
    assert run.load_progress() is None
    for number in range(3):
        run.save_progress({"a": np.full(3, number)}, {"level": number})
        assert progress(run) == ([number] * 3, {"level": number})
        assert len(run.progress_checkpoints()) == 1
    run.clear_progress()
    assert run.load_progress() is None
    run.close()


def test_numbers_above_nine_are_newer(path):
    run = open_run(path)
    for number in range(11):
        run.save_progress({"a": np.full(3, number)}, {})
        kept = run.progress_checkpoints()[0]
        shutil.copytree(kept, path / "checkpoints" / f"keep_{kept.name}")
    for kept in (path / "checkpoints").glob("keep_*"):
        target = kept.with_name(kept.name.removeprefix("keep_"))
        if not target.exists():
            kept.rename(target)
    assert len(run.progress_checkpoints()) == 11
    assert progress(run) == ([10] * 3, {})
    run.close()


def test_the_older_progress_stands_in_for_a_damaged_one(path):
    run = open_run(path)
    run.save_progress({"a": np.zeros(500)}, {"level": 0})
    (older,) = run.progress_checkpoints()
    shutil.copytree(older, path / "kept")
    run.save_progress({"a": np.ones(500)}, {"level": 1})
    (newer,) = run.progress_checkpoints()
    (path / "kept").rename(older)
    assert progress(run)[1] == {"level": 1}
    flip_byte(data_file(newer))
    assert progress(run)[1] == {"level": 0}
    assert newer.name in run.problems[0]
    flip_byte(older / "manifest.json")
    assert progress(run) is None
    # A new one does not take the damaged one's place before it is whole.
    run.save_progress({"a": np.zeros(3)}, {"level": 2})
    assert progress(run)[1] == {"level": 2}
    assert len(run.progress_checkpoints()) == 1
    run.close()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lth_jax.spec import from_config
from lth_jax.store import RunDirectory, checkpoints, files
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
if moment == "curve": run.write_curve("ticket", 0, [])
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
    assert run.load_progress() is None
    assert run.intact(0, "level_00") == (moment != "between")
    assert list(run.rows) == [RunId("ticket", 0, 0, 0)]
    assert (path / "results.csv").read_text() == table
    assert run.problems == []
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
