"""Writes the report of a run, or of several overlaid: the figures as files, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lth_jax.report.contents import Contents, read_contents, read_tickets
from lth_jax.report.drawings import Shown, comparison_figures, result_figures, ticket_figures
from lth_jax.report.files import write_figures
from lth_jax.report.page import draw, render
from lth_jax.report.tensorboard import EventFiles
from lth_jax.store import RunDirectory
from lth_jax.store.files import write_text, writing

PAGE = "report.html"
FIGURES = "figures"


class Written(NamedTuple):
    """What was written.

    Attributes:
      page: the file.
      figures: the files.
      notes: a line for each thing that is left out.
    """

    page: Path
    figures: Sequence[Path]
    notes: Sequence[str]


def write_report(
    store: RunDirectory, folder: Path | None = None, *, events: bool = False
) -> Written:
    """Writes `report.html` and `figures/` of one run.

    Args:
      store: the run directory.
      folder: where to write; the run directory by default.
      events: whether to complete TensorBoard's files in the run directory, too.

    Raises:
      StoreError: the directory cannot be read, or the folder not be written.
    """
    contents = read_contents(store)
    if events:
        _complete_events(store, contents)
    figures = result_figures(contents)
    figures += ticket_figures(contents, read_tickets(store, contents))
    return _write({contents.name: contents}, figures, contents.notes, folder or store.path)


def _complete_events(store: RunDirectory, contents: Contents) -> None:
    files = EventFiles(store)
    try:
        files.write_all(contents.first)
    except Exception as error:  # tensorboardX may be missing, and the report does not need it
        line = f"TensorBoard's files are left out: {type(error).__name__}: {error}"
        contents.notes.append(line)
    finally:
        files.close()


def write_comparison(stores: Sequence[RunDirectory], folder: Path) -> Written:
    """Writes `report.html` and `figures/` of several runs overlaid.

    Raises:
      StoreError: as `write_report`.
    """
    runs = _labelled([read_contents(store) for store in stores])
    notes = [f"{name}: {note}" for name, run in runs.items() for note in run.notes]
    figures = comparison_figures(runs, notes)
    return _write(runs, figures, notes, folder)


def _write(
    runs: Mapping[str, Contents], figures: Sequence[Shown], notes: Sequence[str], folder: Path
) -> Written:
    with writing(folder / FIGURES):
        paths = write_figures({one.name: one.figure for one in figures}, folder / FIGURES)
    remarks = [run.remark for run in runs.values() if run.remark]
    page = render(runs, draw(figures, FIGURES), folder=folder, notes=[*remarks, *notes])
    write_text(folder / PAGE, page)
    return Written(folder / PAGE, paths, notes)


def _labelled(runs: Sequence[Contents]) -> dict[str, Contents]:
    """What to call each run: its name, with what tells it from others of that name."""
    names = [run.name for run in runs]
    both = [(run.name, run.identity) for run in runs]
    folders = [run.path.resolve() for run in runs]
    labels = {}
    for run, folder in zip(runs, folders, strict=True):
        label = run.name
        if both.count((run.name, run.identity)) > 1:
            label += f" ({_told_apart(folder, folders)})"
        elif names.count(run.name) > 1:
            label += f" {run.identity}"
        labels[label] = run
    return labels


def _told_apart(folder: Path, folders: Sequence[Path]) -> str:
    """The end of a path that none of the others has."""
    for length in range(1, len(folder.parts) + 1):
        end = folder.parts[-length:]
        if sum(other.parts[-length:] == end for other in folders) == 1:
            return "/".join(end)
    return folder.name
