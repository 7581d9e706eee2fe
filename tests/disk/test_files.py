import os
import stat
import threading

import pytest

from lth_jax.disk import files
from lth_jax.disk.files import read_bytes, reason_of
from lth_jax.errors import StoreError, Unreadable


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "deep" / "results.csv"
    files.write_text(file, "one\n")
    files.write_text(file, "zwei, größer\n")
    assert file.read_text(encoding="utf-8") == "zwei, größer\n"
    assert os.listdir(file.parent) == ["results.csv"]


def test_lines_end_as_they_were_written(tmp_path):
    files.write_text(tmp_path / "a.csv", "x,y\n1,2\n")
    assert (tmp_path / "a.csv").read_bytes() == b"x,y\n1,2\n"


def test_a_reader_finds_the_old_file_or_the_new_one(tmp_path):
    file = tmp_path / "spec.json"
    texts = ["a" * 100_000, "b" * 100_000]
    files.write_text(file, texts[0])
    done = threading.Event()

    def write():
        for index in range(60):
            files.write_text(file, texts[index % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(file.read_text())
    writer.join()
    assert seen <= set(texts)


def test_a_failed_write_keeps_the_old_file_and_cleans_up(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    files.write_text(file, "old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"cannot write .*results\.csv: No space left on device"):
        files.write_text(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.csv"]


def test_files_have_the_permissions_that_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_is_a_file_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as error:
        files.write_text(tmp_path / "file" / "results.csv", "x")
    assert str(tmp_path / "file" / "results.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": (1, 2)})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1,\n    2\n  ]\n}\n'


def test_what_may_have_no_end_is_not_read(tmp_path):
    """A pipe or a device in the place of a file: one would wait, or read, for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(Unreadable, match="it is no regular file; nothing was changed"):
            read_bytes(tmp_path / name)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError(f"OCDBT {'x' * 300} [os_error_code='28']"), "No space left on device"),
        (MemoryError(), "not enough memory"),
        (ValueError("y" * 300), "y" * 99 + "…"),
    ],
)
def test_a_reason_is_the_operating_system_s_or_short(error, reason):
    assert reason_of(error) == reason
