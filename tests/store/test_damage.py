"""Run directories with damaged files."""

import contextlib
import errno
import random
from pathlib import Path

import numpy as np
import pytest
import tensorstore

from lth_jax.errors import StoreError, Unreadable
from lth_jax.store import CurvePoint, RunDirectory
from lth_jax.store.tables import CURVES

from ..tiny import data_file, flip_byte
from .run_directories import open_run, refusal, row


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


POINT = CurvePoint(0, 0, 1, 1.0, 1.0, 1.0)  # what the row of these tests says of its run
CURVE = Path("metrics/ticket/level_00.csv")


@pytest.fixture
def with_curve(path):
    run = open_run(path)
    run.write_points(CURVES, "ticket", 0, [POINT])
    assert run.curve("ticket", 0) == [POINT]
    assert run.curve("ticket", 1) == []
    run.close()
    return path


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "", "the curve lacks the columns replicate"),
        (lambda text: text.splitlines()[0] + "\n", "it lacks ticket, level 0, replicate 0"),
        (lambda text: text.replace("0,0,1,1.0", "0,0,1,1.5"), "line 2: its checksum is another"),
        (lambda text: text[:-9], "line 2: its checksum"),
        (lambda text: text.replace("0,0,1,", "0,0\r,1,"), "line 2: "),
        (lambda text: CURVES.to_csv([POINT._replace(val_accuracy=0.5)]), "it is not the curve of"),
    ],
)
def test_a_damaged_curve_refuses_a_start_and_is_never_drawn(with_curve, damage, said):
    file = with_curve / CURVE
    damaged = damage(file.read_text())
    file.write_text(damaged, newline="")
    with pytest.raises(StoreError, match=said) as error:
        open_run(with_curve)
    assert str(file) in str(error.value)
    assert "run.py --repair trains it again" in str(error.value)
    assert "\n" not in str(error.value)
    if "line" in said:
        with pytest.raises(StoreError, match=said):
            RunDirectory.read(with_curve).curve("ticket", 0)
    run = open_run(with_curve, repair=True)
    assert run.again == set(run.rows) == {row().run_id}
    assert "level_00.csv is damaged" in run.problems[0]
    run.update_points(CURVES, "ticket", 0, [POINT])
    run.close()
    open_run(with_curve).close()


def test_what_others_wrote_into_a_curve_stays(with_curve):
    run = open_run(with_curve)
    run.update_points(CURVES, "ticket", 0, [POINT._replace(replicate=1)])
    assert run.curve("ticket", 0) == [POINT, POINT._replace(replicate=1)]
    (with_curve / CURVE).write_text("")
    run.update_points(CURVES, "ticket", 0, [POINT])
    assert run.curve("ticket", 0) == [POINT]
    assert "level_00.csv is damaged" in run.problems[0]
    run.close()


def test_a_row_that_is_not_its_mask_s_is_damaged(path):
    run = open_run(path)
    run.save(0, "level_00", {"w": np.zeros(3)}, {"layers": {"fc1/kernel": (1, 2)}})
    run.close()
    for action in (open_run, RunDirectory.read):
        message = refusal(action, path)[1]
        assert "1 of 1 weights, and its mask keeps 1 of 2" in message


def test_a_repair_keeps_every_row_that_is_whole(path):
    run = open_run(path)
    rows = [row(replicate=n) for n in range(3)]
    run.record(rows)
    run.close()
    file = path / "results.csv"
    file.write_text(file.read_text().replace("ticket,0,1,", "ticket,0,7,"))
    assert "line 3: its checksum" in refusal(RunDirectory.read, path)[1]
    run = open_run(path, repair=True)
    assert list(run.rows.values()) == [rows[0], rows[2]]
    run.close()


UNREADABLE = [
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EIO, "Input/output error"),
]


@pytest.mark.parametrize("error", UNREADABLE, ids=lambda error: type(error).__name__ + str(error))
@pytest.mark.parametrize("name", ["results.csv", "spec.json", "manifest.json", CURVE.name, "d"])
def test_what_cannot_be_read_here_is_not_damaged_and_stays(with_curve, monkeypatch, error, name):
    """`d` is a folder of Orbax's files of arrays."""
    before = {file: file.read_bytes() for file in with_curve.rglob("*") if file.is_file()}
    open_path = Path.open

    def refuse(path, *arguments, **options):
        if name in (path.name, path.parent.name):
            raise error
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with (
        pytest.raises(Unreadable, match=r"^cannot read [^\n]* here: [^\n]*; nothing was changed$"),
        contextlib.closing(open_run(with_curve, repair=True)) as run,
    ):
        run.load(0, "level_00")
    monkeypatch.undo()
    after = {file: file.read_bytes() for file in before if file.exists()}
    changed = {file.name for file in before if before[file] != after.get(file)}
    assert changed <= {"spec.json", "lock"}
    run = open_run(with_curve)
    assert run.load(0, "level_00")["params/w"].tolist() == list(range(300))
    assert run.problems == []
    run.close()


def test_a_reader_that_fails_over_sound_bytes_is_no_damage(path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(tensorstore, "open", fail)
    run = open_run(path)
    with pytest.raises(Unreadable, match="RESOURCE_EXHAUSTED"):
        run.load(0, "level_00")
    run.close()


def test_a_folder_in_place_of_a_table_is_one_line(path):
    (path / "results.csv").unlink()
    (path / "results.csv").mkdir()
    for action in (open_run, RunDirectory.read):
        assert "results.csv here: Is a directory" in refusal(action, path)[1]


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
