"""`inspect` of what runs, was killed, or is damaged."""

import json
import os
import random
import re
import shutil

import numpy as np
import pytest

from lth_jax.cli import directory, inspect
from lth_jax.cli.directory import read_directory
from lth_jax.cli.inspect import Selection, print_run
from lth_jax.errors import Interrupted
from lth_jax.report.terminal import make_console
from lth_jax.store import checkpoints
from lth_jax.store.lock import Lock
from lth_jax.store.record import sealed
from lth_jax.store.tables import CURVES

from ..tiny import StopAtPause, data_file, finished_run, flip_byte, tiny_spec, train


def test_a_run_that_lacks_branches_is_not_finished(tmp_path, capsys):
    finished_run(tiny_spec(levels=0, replicates=1, branches=()), tmp_path)
    record = tmp_path / "spec.json"
    record.write_text(record.read_text().replace('"levels": 0', '"levels": 1'))
    record.write_text(json.dumps(sealed(json.loads(record.read_text()))))
    assert inspect.main([str(tmp_path)]) == 0
    assert "status: stopped, 1 of 2 runs\nnext: level 1\n" in capsys.readouterr().out


def test_a_stopped_run_says_where_and_a_running_one_who(tmp_path, shown, found, capsys):
    with pytest.raises(Interrupted):
        train(tmp_path, tiny_spec(levels=1, replicates=1), stop_signal=StopAtPause(8))
    words = shown(tmp_path)
    assert "status: stopped, 1 of 4 runs level 1 was under way: 3 runs saved at step" in words
    assert " of 12, 0 s ago" in words
    assert "run_*/state/params/fc1/kernel float32[64, 8] 2,048 bytes each" in words
    progress = found(tmp_path)["progress"]
    assert progress["level"] == 1
    assert [run["branch"] for run in progress["under_way"]] == ["ticket", "reinit", "random_mask"]
    assert all(0 <= run["step"] < 12 for run in progress["under_way"])
    assert len(found(tmp_path, "--branch=reinit")["progress"]["under_way"]) == 1
    lock = Lock(tmp_path / "lock")
    try:
        assert found(tmp_path)["status"] == "running"
        assert f"status: running (process {os.getpid()} on " in shown(tmp_path)
        assert "level 1 is under way" in shown(tmp_path)
    finally:
        lock.release()
    run = read_directory(tmp_path)
    for folder in (tmp_path / "checkpoints").glob("progress_*"):
        shutil.rmtree(folder)  # as its next save does
    assert 0 <= run.age() < 600
    print_run(make_console(), run, Selection(), None)
    capsys.readouterr()
    assert found(tmp_path)["progress"]["under_way"] == []


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_no_damage(copy, found, monkeypatch):
    flip_byte(data_file(copy / "checkpoints" / "replicate_0" / "level_01"))
    gone = copy / "checkpoints" / "progress_000003"
    gone.mkdir()
    monkeypatch.setattr(directory.time, "sleep", lambda _: shutil.rmtree(gone, ignore_errors=True))
    lock = Lock(copy / "lock")
    try:
        (problem,) = found(copy)["problems"]
        assert "level_01" in problem  # what stays damaged is
    finally:
        lock.release()


def test_leftovers_of_a_killed_save_are_named_and_no_damage(copy, shown, found):
    (copy / "checkpoints" / "replicate_0" / ".level_02.7.tmp").mkdir()
    (copy / ".results.csv.x.tmp").touch()
    assert "2 leftovers of a killed save, which the next start removes" in shown(copy)
    run = found(copy)
    assert run["leftovers"] == [".results.csv.x.tmp", "checkpoints/replicate_0/.level_02.7.tmp"]
    assert run["status"] == "finished"


def test_a_damaged_checkpoint_is_named_and_the_rest_is_shown(copy, shown, found, capsys):
    flip_byte(data_file(copy / "checkpoints/replicate_0/level_01"))
    words = shown(copy)
    assert "status: damaged, 8 of 8 runs" in words
    assert "replicate_0/level_01 DAMAGED: its file arrays/" in words
    assert "1 of 6 damaged" in words
    assert "a start trains again what it needs" in words
    assert "weights kept in each layer, replicate 0 level fc1 output all 0 512" in words
    run = found(copy)
    assert run["status"] == "damaged"
    (problem,) = run["problems"]
    assert problem.startswith("checkpoints/replicate_0/level_01: its file ")
    assert len(run["results"]) == 8
    assert found(copy, "--level=0")["layers"][0]["kept"] == 512
    assert inspect.main([str(copy), "--level=1", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: checkpoint ")
    assert err.count("\n") == 1


def test_without_what_training_started_from_signs_are_unknown(copy, shown, found):
    flip_byte(copy / "checkpoints/replicate_0/initial/manifest.json")
    layer = found(copy, "--level=1")["layers"][0]
    assert layer["same_sign"] is None
    assert layer["kept"] == 359
    assert "same sign is unknown" in shown(copy, "--level=1")


@pytest.mark.parametrize(
    ("branch", "options", "lost"),
    [
        ("reinit", {"keep": True}, "reinit_level_01_0"),
        ("random_mask", {}, ""),
        ("early_bird", {"distance": 0.5, "window": 1}, "early_bird_drawn_01"),
    ],
)
def test_networks_that_branches_keep_or_start_from_are_missed(tmp_path, branch, options, lost):
    spec = tiny_spec(
        levels=1, replicates=1, branches=(branch,), branch={branch: options}, train__steps="30"
    )
    path = train(tmp_path / "run", spec).path
    assert read_directory(path).problems == []
    kept = {found.name for found in (path / "checkpoints/replicate_0").iterdir()}
    assert kept == {"initial", "level_00", "level_01", *([lost] if lost else [])}
    if lost:
        shutil.rmtree(path / "checkpoints/replicate_0" / lost)
        (problem,) = read_directory(path).problems
        assert problem.startswith(f"checkpoints/replicate_0/{lost} is missing")


def test_what_is_missing_or_cut_short_is_named_and_the_rest_is_shown(copy, found, shown):
    text = (copy / "results.csv").read_text()
    (copy / "results.csv").write_text(text[:-30])
    (copy / "metrics/ticket/level_01.csv").write_text(CURVES.to_csv([]) + "0,0,5,0.25\n")
    (copy / "metrics/reinit/level_01.csv").unlink()
    shutil.rmtree(copy / "checkpoints/replicate_1/level_01")
    run = found(copy, damaged_table="results.csv line 9: it is cut short before diverged")
    assert len(run["results"]) == 7
    for part in (
        "results.csv line 9: it is cut short",
        "metrics/ticket/level_01.csv is damaged: the curve line 2: it is cut short",
        "metrics/reinit/level_01.csv is missing",
        "checkpoints/replicate_1/level_01 is missing",
    ):
        assert any(part in problem for problem in run["problems"])
    assert len(run["problems"]) == 4
    assert "with --repair it trains again, bit for bit, what they lost" in shown(copy, status=1)
    (copy / "results.csv").unlink()
    shutil.rmtree(copy / "metrics")
    said = "results.csv is missing, though levels are finished"
    assert found(copy, damaged_table=said)["problems"][0] == said


def test_a_value_that_was_changed_in_a_table_is_named_and_not_shown(copy, found, shown):
    file = copy / "results.csv"
    lines = file.read_text().splitlines(keepends=True)
    lines[3] = re.sub(",(xla|native),", ",sparse,", lines[3])  # whichever computed it here
    file.write_text("".join(lines))
    said = "results.csv line 4: its checksum is another one: it was changed"
    run = found(copy, damaged_table=said)
    assert run["status"] == "damaged"
    assert len(run["results"]) == 7
    assert all(row["kernel"] != "sparse" for row in run["results"])
    assert said in shown(copy, status=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "spec.json is damaged: "),
        ("[]", "spec.json is damaged: "),
        ('{"format": 1}', "spec.json is damaged: wrong name"),
        (None, "spec.json is missing"),
    ],
)
def test_without_a_spec_the_rest_is_shown(copy, text, said, found, shown):
    (copy / "spec.json").unlink()
    if text:
        (copy / "spec.json").write_text(text)
    run = found(copy, "--level=1")
    assert run["problems"][0].startswith(said)
    assert run["status"] == "damaged"
    assert run["identity"] is run["spec"] is run["versions"] is None
    assert len(run["results"]) == 8
    assert len(run["layers"]) == 2
    assert "status: damaged, 8 runs" in shown(copy)


def test_a_spec_of_another_version_is_looked_at(copy, found, shown):
    file = copy / "spec.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 0, "sparkle": 1'))
    run = found(copy)
    assert run["status"] == "unknown"
    assert "sparkle: no such field" in run["problems"][0]
    assert run["spec"]["sparkle"] == 1
    assert "sparkle 1" in shown(copy)


def test_a_spec_that_is_not_its_identitys_is_named(copy, found):
    file = copy / "spec.json"
    file.write_text(file.read_text().replace('"learning_rate": 0.01', '"learning_rate": 0.07', 1))
    (problem,) = found(copy)["problems"]
    assert problem.startswith("spec.json was changed: its spec has the identity ")


@pytest.mark.parametrize(("number", "age"), [(99, "a newer"), (0, "another"), ("x", "another")])
def test_a_run_of_another_format_is_refused(copy, number, age, capsys):
    file = copy / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": number}))
    assert inspect.main([str(copy)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"has format {number!r}; this version reads 1 (it was written by {age} lth_jax" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_no_damage_ends_in_a_traceback(finished, tmp_path, capsys):
    """Whatever file is cut, changed or gone: an answer, or one line."""
    files = sorted(f for f in finished.rglob("*") if f.is_file() and f.stat().st_size)
    chance = random.Random(0)
    for trial in range(18):
        copy = shutil.copytree(finished, tmp_path / str(trial))
        file = copy / chance.choice([*files[:40], *files[-6:]]).relative_to(finished)
        content = bytearray(file.read_bytes())
        if trial % 3 == 0:
            file.write_bytes(content[: chance.randrange(len(content))])
        elif trial % 3 == 1:
            content[chance.randrange(len(content))] = chance.randrange(256)
            file.write_bytes(content)
        else:
            file.unlink()
        statuses = [inspect.main([str(copy), *more]) for more in ([], ["--json", "--level=1"])]
        assert set(statuses) <= {0, 1, 2}
        err = capsys.readouterr().err
        assert err.count("\n") == len(statuses) - statuses.count(0)
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    "change",
    [("name", "another"), ("command", ["x"]), ("versions", {}), ("branches", {"reinit": 0})],
    ids=lambda change: change[0],
)
def test_a_record_that_was_changed_is_named(copy, capsys, change):
    record = json.loads((copy / "spec.json").read_text())
    (copy / "spec.json").write_text(json.dumps({**record, change[0]: change[1]}))
    inspect.main([str(copy)])
    out, err = capsys.readouterr()
    assert "spec.json was changed" in out or "spec.json is damaged: wrong branches" in out
    assert "Traceback" not in err


def test_a_record_of_an_earlier_version_has_no_checksum(copy, capsys):
    record = json.loads((copy / "spec.json").read_text())
    del record["seal"]
    (copy / "spec.json").write_text(json.dumps(record))
    assert inspect.main([str(copy)]) == 0
    assert "problems" not in capsys.readouterr().out


def test_progress_that_is_half_removed_is_no_damage(copy, monkeypatch):
    """A kill may come while the files of a checkpoint that nobody needs any more are removed."""
    folder = copy / "checkpoints" / "progress_000003"
    checkpoints.save(folder, {"w": np.zeros(3)})
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)
    checkpoints.remove(folder)
    run = read_directory(copy)
    assert run.problems == []
    assert run.leftovers
