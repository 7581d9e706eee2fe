"""Run directories: what they say, who may open them, and their rows."""

import contextlib
import dataclasses
import json
import os
import random

import numpy as np
import pytest

from lth_jax.config import from_config, identity
from lth_jax.errors import StoreError
from lth_jax.store import RunDirectory
from lth_jax.store.tables import RunId

from .run_directories import SPEC, open_run, row

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


def test_a_run_goes_on_with_what_its_criterion_did_when_it_was_begun(path):
    """SNIP was once of training mode by itself, and `spec.json` held no word of it."""
    file = path / "spec.json"
    record = json.loads(file.read_text())
    before = from_config({"pruning": {"criterion": "snip", "mode": "train"}})
    record["spec"]["pruning"] = {"criterion": "snip"}
    record["identity"] = identity(before)
    file.write_text(json.dumps(record))
    assert RunDirectory.read(path).spec().pruning.mode == "train"
    with pytest.raises(StoreError) as error:
        open_run(path, from_config({"pruning": {"criterion": "snip"}}))
    assert str(error.value) == (
        f'{path} holds another experiment (pruning.mode: "train" there, "eval" here); '
        "choose another --workdir, or go on with --config.pruning.mode=train"
    )
    open_run(path, before).close()
    assert json.loads(file.read_text())["spec"]["pruning"]["mode"] == "train"


def test_a_record_says_what_a_criterion_chose_by_itself(tmp_path):
    open_run(tmp_path / "run", from_config({"pruning": {"criterion": "grasp"}})).close()
    spec = json.loads((tmp_path / "run" / "spec.json").read_text())["spec"]["pruning"]
    assert (spec["mode"], spec["probe"], spec["hessian"]) == (None, "balanced", "kernels")


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


# The data

DIGITS = {"name": "digits", "version": "scikit-learn 1.7", "digest": "0123456789abcdef"}


def test_a_run_goes_on_with_the_data_that_it_was_begun_with(path):
    with contextlib.closing(open_run(path)) as run:
        run.record_data(DIGITS)
    with contextlib.closing(open_run(path)) as run:  # of another version, the same examples
        run.record_data({**DIGITS, "version": "scikit-learn 1.8"})
    before = (path / "spec.json").read_bytes()
    assert json.loads(before)["data"]["version"] == "scikit-learn 1.8"
    grown = from_config({"levels": 2, "replicates": 1})
    with contextlib.closing(open_run(path, grown)) as run, pytest.raises(StoreError) as error:
        run.record_data({**DIGITS, "digest": "0000"})
    assert str(error.value) == (
        f"{path} holds another experiment (the examples of data.name 'digits' differ: scikit-learn "
        "1.8 0123456789abcdef there, scikit-learn 1.7 0000 here); choose another --workdir"
    )
    assert (path / "spec.json").read_bytes() == before


def test_a_start_that_trained_nothing_binds_to_no_data(tmp_path):
    for digest in ("0000", "1111"):
        run = open_run(tmp_path / "new")
        run.record_data({**DIGITS, "digest": digest})
        run.close()


@pytest.mark.parametrize(
    "later",
    [{"own": 3}, {"own": {"rows": {}, "sources": {"a": 3}}}, {"data": []}, {"config": None}],
    ids=str,
)
def test_a_record_of_other_types_is_damaged(path, later):
    record = json.loads((path / "spec.json").read_text())
    (path / "spec.json").write_text(json.dumps({**record, **later}))
    with pytest.raises(StoreError, match="is damaged: wrong"):
        RunDirectory.read(path)
