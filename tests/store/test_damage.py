"""Run directories with damaged files."""

import random

import pytest

from lth_jax.errors import StoreError
from lth_jax.store import CurvePoint, RunDirectory

from ..tiny import data_file, flip_byte
from .run_directories import open_run, refusal


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
