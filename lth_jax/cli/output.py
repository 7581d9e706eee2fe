"""Where a command may write what it is told to: `--out`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from lth_jax.cli.directory import is_run
from lth_jax.disk.files import read_bytes
from lth_jax.errors import SpecError


def check_file(out: Path, is_ours: Callable[[bytes], bool], what: str) -> None:
    """Checks that a command may write the file `out`.

    A device or a pipe is written to. A file is replaced only if the command could have written it,
    and nothing within a run directory is: that belongs to the run.

    Args:
      out: the file.
      is_ours: says of a file's content whether it is of the command's kind.
      what: the command's kind of file, for people.

    Raises:
      SpecError: it may not; says why, and what is accepted.
    """
    if out.is_dir():
        raise SpecError(f"--out={out}: a folder is there; accepted: the name of a file")
    _check_place(out)
    if out.is_file():
        content = read_bytes(out)
        if content and not is_ours(content):
            raise SpecError(f"--out={out}: a file is there that is no {what}: choose another name")


def check_folder(out: Path, runs: Sequence[Path], page: str) -> None:
    """Checks that a report of `runs` may be written to the folder `out`.

    Raises:
      SpecError: its place is another run's, or it has a page that is no report.
    """
    if out.is_dir() and [run.resolve() for run in runs] == [out.resolve()]:
        return
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out={out}: a file is there; accepted: a folder")
    _check_place(out / page if out.is_dir() else out)
    there = out / page
    if there.is_file() and b'content="lth_jax' not in read_bytes(there)[:4096]:
        raise SpecError(f"--out={out}: its {page} is no report of lth_jax: choose another folder")


def _check_place(out: Path) -> None:
    target = Path(os.path.realpath(out))
    if not out.parent.is_dir():
        raise SpecError(f"--out={out}: there is no folder {out.parent}")
    for folder in target.parents:
        if is_run(folder):
            raise SpecError(f"--out={out}: it lies in the run {folder}; choose another place")
