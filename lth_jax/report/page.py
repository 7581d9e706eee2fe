"""`report.html`: one page with everything in it, for a browser that has no network.

What comes from a run (names, notes, values of a spec) is escaped by Jinja; our own figures are the
only markup that is put in as it is.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import config as specs
from lth_jax._version import __version__
from lth_jax.analysis.verdict import verdict
from lth_jax.report.contents import Contents
from lth_jax.report.drawings import Shown
from lth_jax.report.files import inline_svg
from lth_jax.report.hover import places
from lth_jax.report.table import MATCH, legend, panels

REFRESH_SECONDS = 30  # how often an open page of a running experiment looks for a new one
FILES = ("results.csv", "spec.json", "metrics", "figures", "tensorboard")


class Drawn(NamedTuple):
    """A figure as the page holds it.

    Attributes:
      name, heading, caption: as in `Shown`.
      svg: an element, its ids made unique by the name.
      places: where its values are, for hovering.
      files: where it lies as files, relative to the page.
    """

    name: str
    heading: str
    caption: str
    svg: Any
    places: Mapping[str, Any]
    files: Sequence[str] = ()


class Field(NamedTuple):
    """A field of a spec with its value and its default, as the command line takes them."""

    name: str
    value: str
    default: str


def draw(figures: Sequence[Shown], folder: str = "") -> list[Drawn]:
    """Figures made ready for a page.

    Args:
      figures: what to show.
      folder: where their files lie, relative to the page; empty where there are none.
    """
    from markupsafe import Markup

    drawn = []
    for name, heading, caption, figure in figures:
        svg = Markup(inline_svg(figure, name))
        files = [f"{folder}/{name}.{suffix}" for suffix in ("png", "svg")] if folder else ()
        drawn.append(Drawn(name, heading, caption, svg, places(figure), files))
    return drawn


def render(
    runs: Mapping[str, Contents],
    figures: Sequence[Drawn],
    *,
    folder: Path,
    notes: Sequence[str] = (),
    stale: str = "",
    watched: bool = False,
) -> str:
    """The page of one run, or of several side by side.

    Args:
      runs: what to call each run -> what there is to tell of it.
      figures: in their order.
      folder: where the page will lie, for links to what lies beside it.
      notes: a line for each thing that is left out.
      stale: what to say of figures that are older than the tables.
      watched: whether the page is to look for a newer one by itself.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lth_jax.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    )
    sections = [
        _section(label, run, index, folder) for index, (label, run) in enumerate(runs.items())
    ]
    one = next(iter(runs.values())) if len(runs) == 1 else None
    return environment.get_template("report.html.j2").render(
        title=one.name if one else "Comparison of " + _listed(list(runs)),
        subtitle=_subtitle(one) if one else f"{len(runs)} runs",
        runs=sections,
        figures=figures,
        notes=notes,
        stale=stale,
        match=MATCH,
        data=_data(runs, figures),
        refresh=REFRESH_SECONDS if watched else 0,
        version=__version__,
        now=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        css=_template("report.css"),
        js=_template("report.js"),
    )


def _template(name: str) -> Any:
    from markupsafe import Markup

    file = resources.files("lth_jax.report") / "templates" / name
    return Markup(file.read_text(encoding="utf-8"))


def _subtitle(run: Contents) -> str:
    spec = run.spec
    runs = f"{run.status}, {len(run.rows)} of {run.planned} runs"
    replicates = f"{spec.replicates} replicate" + "s" * (spec.replicates != 1)
    return (
        f"{spec.model.name} on {spec.data.name}, {spec.levels} levels, {replicates}, "
        f"identity {run.identity}; {runs}"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _section(label: str, run: Contents, index: int, folder: Path) -> dict[str, Any]:
    """What the template says of one run besides figures."""
    fields = spec_fields(run.spec)
    return {
        "id": f"run-{index}",
        "label": label,
        "name": run.name,
        "identity": run.identity,
        "verdict": verdict(run.rows),
        "panels": panels(run.rows) if run.rows else [],
        "legend": legend(run.rows),
        "command": shlex.join(["python", *run.record["command"]]),
        "status": run.status,
        "done": len(run.rows),
        "planned": run.planned,
        "versions": ", ".join(f"{name} {v}" for name, v in run.record["versions"].items()),
        "files": _files(run.path, folder),
        "changed": [field for field in fields if field.value != field.default],
        "unchanged": [field for field in fields if field.value == field.default],
    }


def _files(run: Path, folder: Path) -> list[dict[str, str]]:
    """Links to what lies in the run directory."""
    names = [name for name in FILES if (run / name).exists()]
    return [
        {"name": name, "href": Path(os.path.relpath(run / name, folder)).as_posix()}
        for name in names
    ]


def spec_fields(spec: specs.Spec) -> list[Field]:
    """Every field of a spec with its default, dotted; those of branches with their own defaults."""
    defaults = specs.flatten(specs.to_dict(specs.Spec()))
    of_branch = specs.to_dict(specs.BranchSpec())
    fields = []
    for name, value in specs.flatten(specs.to_dict(spec)).items():
        option = name.split(".")[-1] if name.startswith("branch.") else ""
        default = of_branch[option] if option else defaults.get(name)
        shown = "" if default is None else repr(default)
        fields.append(Field(name, repr(value), shown))
    return fields


def _data(runs: Mapping[str, Contents], figures: Sequence[Drawn]) -> dict[str, Any]:
    """Everything that the page shows, for its script and for other programs."""
    return _finite(
        {
            "runs": [
                {
                    "label": label,
                    "name": run.name,
                    "identity": run.identity,
                    "status": run.status,
                    "spec": run.record["spec"],
                    "versions": run.record["versions"],
                    "command": run.record["command"],
                    "results": [dataclasses.asdict(row) for row in run.rows],
                }
                for label, run in runs.items()
            ],
            "figures": {f"figure-{figure.name}": figure.places for figure in figures},
        }
    )


def _finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
