"""`report.html`, `figures/` and `claims.md` of a run, or of several: a page for a browser offline.

What comes from a run (names, notes, values of a spec) is escaped by Jinja, and links are quoted;
our own figures are the only markup that is put in as it is. No character of either is obeyed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lth_jax import config as specs
from lth_jax._version import __version__
from lth_jax.analysis.verdicts import Standard
from lth_jax.disk.files import write_bytes, write_text
from lth_jax.errors import StoreError
from lth_jax.report.claims import MEANS as MEANS_OF_CLAIMS
from lth_jax.report.claims import claims_markdown, claims_table
from lth_jax.report.contents import Contents
from lth_jax.report.methods import methods_said, methods_tables
from lth_jax.report.table import MARKS, Cell, Table, legend, results_tables
from lth_jax.report.tensorboard import write_events
from lth_jax.report.verdict import listed, verdict
from lth_jax.store import RunDirectory
from lth_jax.store.record import command_of
from lth_jax.store.table import named
from lth_jax.system.streams import printable

if TYPE_CHECKING:
    from jinja2 import Template

    from lth_jax.report.figures import Rendered

PAGE, FIGURES, CLAIMS = "report.html", "figures", "claims.md"
REFRESH_SECONDS = 30  # how often an open page of a running experiment looks for a new one
LINKED = ("results.csv", CLAIMS, "spec.json", "metrics", FIGURES, "tensorboard")
# Pixels of a page for each inch: letters about as large as the text, or just legible on a phone.
WIDE, NARROW = 115, 62


def write_report(
    stores: Sequence[RunDirectory], folder: Path | None = None, *, events: bool = False
) -> list[str]:
    """Writes `report.html` and `figures/` of an experiment, or of several overlaid.

    Args:
      stores: the run directories.
      folder: where to write; by default the first run directory.
      events: whether to complete TensorBoard's files in the run directories, too.

    Returns:
      A line for each thing that is left out.

    Raises:
      StoreError: a directory cannot be read, or the folder not be written; or experiments are
        measured by different metrics.
    """
    from lth_jax.report.figures import render_figures  # takes seconds: it imports Matplotlib

    folder = folder or stores[0].path
    runs = labelled([Contents(store) for store in stores])
    _check_alike(runs)
    notes: list[str] = []
    figures = render_figures(runs, notes)
    if events:
        for run in runs.values():
            try:
                write_events(run.store, run.first)
            except Exception as error:  # tensorboardX may be missing; the report needs it not
                line = f"TensorBoard's files are left out: {type(error).__name__}: {error}"
                notes.append(line)
    for figure in figures:
        write_bytes(folder / FIGURES / f"{figure.name}.png", figure.png)
        write_bytes(folder / FIGURES / f"{figure.name}.svg", figure.svg.encode("utf-8"))
    for label, run in runs.items():
        notes += [note if len(runs) == 1 else f"{label}: {note}" for note in run.notes]
    texts = (claims_markdown(run.rows, run.spec, run.metric) for run in runs.values())
    claims = "\n".join(filter(None, texts))
    if claims:
        write_text(folder / CLAIMS, printable(claims))
    write_text(folder / PAGE, render(runs, figures, folder, notes, files=True))
    return notes


def _check_alike(runs: Mapping[str, Contents]) -> None:
    metrics = {run.metric: label for label, run in runs.items()}
    if len(metrics) > 1:
        (one, first), (other, second), *_ = ((m.title(), label) for m, label in metrics.items())
        raise StoreError(
            f"{first} is measured by {one}, {second} by {other}; accepted: runs of one metric"
        )


def labelled(runs: Sequence[Contents]) -> dict[str, Contents]:
    """Returns what to call each run: its name, with as much of its path as tells it from others."""
    paths = [run.store.path.resolve() for run in runs]
    named = [
        [run.name for run in runs],
        [f"{run.name} ({path.name})" for run, path in zip(runs, paths, strict=True)],
        [f"{run.name} ({path})" for run, path in zip(runs, paths, strict=True)],
    ]
    names = next(names for names in named if len(set(names)) == len(runs))
    return dict(zip(names, runs, strict=True))


def render(
    runs: Mapping[str, Contents],
    figures: Sequence[Rendered],
    folder: Path,
    notes: Sequence[str] = (),
    *,
    stale: str = "",
    files: bool = False,
) -> str:
    """Returns the page of an experiment, or of several side by side.

    Args:
      runs: what to call each experiment -> what there is to tell of it.
      figures: in their order.
      folder: where the page will lie, for links to what lies beside it.
      notes: a line for each thing that is left out.
      stale: what to say of figures that are older than the tables.
      files: whether the figures are files, too.
    """
    from markupsafe import Markup

    templates = resources.files("lth_jax.report") / "templates"
    (first, *others) = runs.values()
    watched = not files and first.status == "running"
    page = template("report.html.j2").render(
        title=f"Comparison of {listed(list(runs))}" if others else first.name,
        subtitle=f"{len(runs)} runs" if others else _subtitle(first),
        runs=[_section(label, run, folder) for label, run in runs.items()],
        figures=[(figure, Markup(inline(figure)), width_of(figure)) for figure in figures],
        folder=FIGURES if files else "",
        notes=[*filter(None, (run.remark for run in runs.values())), *notes],
        stale=stale,
        marks=MARKS,
        data=_data(runs, figures),
        refresh=REFRESH_SECONDS if watched else 0,
        version=__version__,
        now=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        css=Markup((templates / "report.css").read_text("utf-8")),
        js=Markup((templates / "report.js").read_text("utf-8")),
    )
    return printable(page)


def results_html(title: str, run: Contents) -> str:
    """Returns the tables of an experiment and what was found, as HTML to stand in a notebook."""
    standard, bars = Standard.of(run.spec, run.metric), run.spec.report.bars
    fragment = template("results.html.j2").render(
        title=title,
        tables=results_tables(run.rows, standard, bars),
        legend=legend(run.rows, standard, bars),
        verdict=verdict(run.rows, standard),
        marks=MARKS,
    )
    return printable(fragment)


def template(name: str) -> Template:
    """Returns one of the report's templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("lth_jax.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    ).get_template(name)


def inline(figure: Rendered) -> str:
    """Returns the figure as an SVG element whose ids are those of no other figure on the page."""
    element = figure.svg[figure.svg.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{figure.name}-", element)


def width_of(figure: Rendered) -> str:
    """Returns between which widths the figure's letters are legible, as CSS."""
    most, least = (round(pixels * figure.width) for pixels in (WIDE, NARROW))
    return f"max-width: {most}px; min-width: {least}px"


def _subtitle(run: Contents) -> str:
    spec = run.spec
    replicates = "1 replicate" if spec.replicates == 1 else f"{spec.replicates} replicates"
    return (
        f"{spec.model.name} on {spec.data.name}, {spec.levels} levels, {replicates}, "
        f"identity {run.record['identity']}; {_status(run)}"
    )


def _status(run: Contents) -> str:
    return f"{run.status}, {len(run.rows)} of {run.planned} runs"


def _section(label: str, run: Contents, folder: Path) -> dict[str, Any]:
    """Returns what the template says of one experiment besides figures."""
    present = [name for name in LINKED if (run.store.path / name).exists()]
    links = {name: os.path.relpath(run.store.path / name, folder) for name in present}
    standard, bars = Standard.of(run.spec, run.metric), run.spec.report.bars
    return {
        "label": label,
        "name": run.name,
        "identity": run.record["identity"],
        "verdict": verdict(run.rows, standard),
        "tables": results_tables(run.rows, standard, bars),
        "legend": legend(run.rows, standard, bars),
        "claims": claims_table(run.rows, run.spec, run.metric),
        "methods": methods_tables(run.rows, run.spec, run.metric),
        "methods_said": methods_said(run.rows, run.spec, run.metric),
        "means": MEANS_OF_CLAIMS,
        "command": command_of(run.record),
        "status": _status(run),
        "versions": ", ".join(f"{name} {v}" for name, v in run.record["versions"].items()),
        "files": {name: quote(Path(link).as_posix()) for name, link in links.items()},
        "spec": spec_tables(run.spec),
    }


def spec_tables(spec: specs.Spec) -> tuple[Table, Table]:
    """Returns the fields of a spec that differ from their defaults, and all others."""
    defaults = specs.flatten(specs.to_dict(specs.Spec()))
    of_branch = specs.to_dict(specs.BranchSpec())
    header = ["field", "value", "default"]
    changed = Table("Fields that differ from their defaults", header, [])
    unchanged = Table("Fields at their defaults", header, [])
    for name, value in specs.flatten(specs.to_dict(spec)).items():
        option = name.split(".")[-1] if name.startswith("branch.") else ""
        known = of_branch if option else defaults
        shown = repr(known[option or name]) if (option or name) in known else ""
        table = unchanged if repr(value) == shown else changed
        table.rows.append([Cell(name), Cell(repr(value)), Cell(shown)])
    return changed, unchanged


def _data(runs: Mapping[str, Contents], figures: Sequence[Rendered]) -> dict[str, Any]:
    """Returns everything that the page shows, for its script and for other programs."""
    listed_runs = [
        {
            "label": label,
            "status": run.status,
            **{key: run.record[key] for key in ("name", "identity", "spec", "versions", "command")},
            "results": [named(row, run.metric.column) for row in run.rows],
        }
        for label, run in runs.items()
    ]
    return finite({"runs": listed_runs, "figures": {f.name: f.marks for f in figures}})


def finite(value: Any) -> Any:
    """Returns `value` with null for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
