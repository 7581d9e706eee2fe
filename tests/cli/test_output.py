"""`--out`: what a command may replace, and what it never does."""

import os
from pathlib import Path

import numpy as np
import pytest

from lth_jax.cli.output import check_file, check_folder
from lth_jax.disk.files import write_bytes
from lth_jax.errors import SpecError, StoreError
from lth_jax.export import containers


def check_ticket(out):
    check_file(out, containers.is_ours, "ticket")


def refused(out, check=check_ticket):
    with pytest.raises(SpecError) as error:
        check(out)
    assert str(out) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run" / "figures").mkdir(parents=True)
    (tmp_path / "run" / "spec.json").write_text("{}")
    (tmp_path / "run" / "results.csv").write_text("precious")
    return tmp_path / "run"


def test_a_file_of_a_run_is_never_replaced_nor_one_put_there(run, tmp_path):
    (tmp_path / "link").symlink_to(run / "results.csv")
    for out in (run / "results.csv", run / "new", run / "figures" / "x", tmp_path / "link"):
        assert "it lies in the run" in refused(out)


def test_only_files_of_the_command_s_own_kind_are_replaced(tmp_path):
    file = tmp_path / "ticket"
    for file_format in containers.FORMATS:
        containers.write(file, {"a": np.ones(3)}, {"kind": containers.TICKET}, file_format)
        check_ticket(file)
    for content in (b"mine", b"PK", b"\x08" + bytes(40)):
        file.write_bytes(content)
        assert "a file is there that is no ticket" in refused(file)
    file.write_bytes(b"")
    check_ticket(file)


def test_a_folder_that_is_missing_is_named_and_not_made(tmp_path):
    assert f"there is no folder {tmp_path}/none" in refused(tmp_path / "none" / "file")
    assert os.listdir(tmp_path) == []


def test_devices_and_pipes_are_written_to_and_stay(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_ticket(pipe)
    with pytest.raises(StoreError, match="cannot write"):  # nobody reads: it is not waited for
        write_bytes(pipe, b"content")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(pipe, b"content")
    assert os.read(reading, 100) == b"content"
    os.close(reading)
    assert pipe.is_fifo()
    device = os.stat("/dev/null").st_ino
    check_ticket(Path("/dev/null"))
    write_bytes(Path("/dev/null"), b"content")
    assert os.stat("/dev/null").st_ino == device


def test_a_link_stays_one_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_report_goes_to_its_own_run_or_to_a_folder_of_no_run(run, tmp_path):
    def check(out, runs=(run,)):
        check_folder(out, list(runs), "report.html")

    check(run)
    check(tmp_path / "new")
    check(tmp_path)
    assert "it lies in the run" in refused(run, lambda out: check(out, [tmp_path / "other"]))
    assert "it lies in the run" in refused(run / "deeper", check)
    assert "there is no folder" in refused(tmp_path / "a" / "b", check)
    (tmp_path / "report.html").write_text("mine")
    assert "its report.html is no report of lth_jax" in refused(tmp_path, check)
    (tmp_path / "report.html").write_text('<meta name="generator" content="lth_jax 1">')
    check(tmp_path)
