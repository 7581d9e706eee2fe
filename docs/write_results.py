"""Writes a page of the site for each run: `python docs/write_results.py RUN…`.

A page is called as its run's folder. It says what the run's own report says, as text and with
a figure; what it means stands in `results.md`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lth_jax.analysis.verdicts import Standard
from lth_jax.report.claims import claims_markdown
from lth_jax.report.contents import Contents
from lth_jax.report.figures import FIGURES
from lth_jax.report.methods import methods_said, methods_tables
from lth_jax.report.page import FIGURES as FOLDER
from lth_jax.report.page import write_report
from lth_jax.report.stability import stability_said
from lth_jax.report.table import legend, markdown, results_tables
from lth_jax.report.verdict import verdict
from lth_jax.store import RunDirectory
from lth_jax.store.record import command_of

DOCS = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a page, and a figure of it, for each run that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run directory")
    parser.add_argument("--figure", default="accuracy", help="which of its figures (accuracy)")
    options = parser.parse_args(arguments)
    (DOCS / "results").mkdir(exist_ok=True)
    for run in options.runs:
        write_report([RunDirectory.read(run)])
        figure = f"{run.name}_{options.figure}.png"
        shutil.copy(run / FOLDER / f"{options.figure}.png", DOCS / "figures" / figure)
        found = Contents(RunDirectory.read(run))
        heading = FIGURES[options.figure].heading.format(found.metric.name.capitalize())
        text = page(found, run.name, figure, heading)
        (DOCS / "results" / f"{run.name}.md").write_text(text, encoding="utf-8")


def page(run: Contents, title: str, figure: str, heading: str) -> str:
    """Returns what a page says of a run: its command, what was found, and its tables."""
    standard = Standard.of(run.spec, run.metric)
    # Where its data lay, and where it was written to, is nobody else's matter.
    words = [w for w in command_of(run.record).split() if "workdir" not in w and "_dir" not in w]
    kernels = sorted({row.kernel for row in run.rows})
    jax = run.record["versions"]["jax"]
    seconds = sum(row.train_seconds for row in run.rows)
    tables = map(markdown, results_tables(run.rows, standard, run.spec.report.bars))
    parts = [
        f"# `{title}`",
        f"    {' '.join(words)}",
        f"{len(run.rows)} networks of {run.spec.train.steps} steps, {seconds:,.0f} s of training "
        f"and evaluation, jax {jax}, kernels {', '.join(kernels)}; identity "
        f"{run.record['identity']}.",
        verdict(run.rows, standard),
        claims_markdown(run.rows, run.spec, run.metric),
        f"![{heading}](../figures/{figure})",
        *tables,
        legend(run.rows, standard, run.spec.report.bars),
        *map(markdown, methods_tables(run.rows, run.spec, run.metric)),
        methods_said(run.rows, run.spec, run.metric),
        stability_said(run.paths, standard.confidence),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


if __name__ == "__main__":
    main()
