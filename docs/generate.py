"""Writes the pages of the site that the code says of itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lth_jax
from lth_jax.config import Declaration
from lth_jax.config.groups import EXPERIMENT, default_of, field_groups, type_of
from lth_jax.data import DATASETS
from lth_jax.lottery.branches import BRANCHES
from lth_jax.models import MODELS
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES
from lth_jax.training.tasks import TASKS


def write(folder: Path) -> None:
    """Writes every generated page into `folder`."""
    folder.mkdir(exist_ok=True)
    for name, text in (("config", config()), ("registries", registries()), ("api", api())):
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:  # or Sphinx would read it anew each time
            path.write_text(text)


def config() -> str:
    """Returns the reference of the config, a table for each group of fields."""
    parts = ["# Config reference", _CONFIG]
    for group in field_groups():
        title = "The experiment" if group.name == EXPERIMENT else f"`{group.name}`"
        parts += [f"## {title}", _plain(group.means), _fields(group.fields)]
    return "\n\n".join(parts) + "\n"


_CONFIG = """\
Every field of a config, from the code. An override on the command line is
`--config.pruning.fraction=0.3`; in a config file it is `config.pruning.fraction = 0.3`. A field is
*part of the identity* if another value makes another experiment: such a field of a run that has
begun cannot change, all others can. `lth-jax run --help=pruning` prints the same of one group."""


def _fields(fields: Mapping[str, Declaration]) -> str:
    lines = []
    for name, d in fields.items():
        default = default_of(d)
        lines.append((
            f"`{name}`", _plain(d.means), type_of(d), f"`{default}`" if default else "",
            _plain(d.accepted), "yes" if d.identity else "no",
        ))  # fmt: skip
    return _table(("field", "meaning", "type", "default", "accepted", "identity"), lines)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, of cells that are plain already."""
    rows = (heads, ["---"] * len(heads), *lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def registries() -> str:
    """Returns a page of everything that has a name in a config."""
    parts = ["# What has a name", _REGISTRIES]
    moving = {name: [row.move] for name, row in MASK_RULES.items()}
    learned = {name: [row.network] for name, row in LEARNED_MASKS.items()}
    started = {name: [start] for name, start in BRANCHES.items()}
    # What a row of each is, in the first sentences of these.
    rows: tuple[tuple[str, str, Mapping[str, list[Any]]], ...] = (
        ("Criteria", "pruning.criterion", {n: [row.scores] for n, row in CRITERIA.items()}),
        (
            "Branches",
            "branches",
            {n: [*said, *{**moving, **learned}.get(n, [])] for n, said in started.items()},
        ),
        ("Rules that move masks", "branch.NAME.rule", moving),
        ("Optimizers", "train.optimizer", {n: [row.make] for n, row in OPTIMIZERS.items()}),
        ("Schedules", "train.schedule", {n: [row] for n, row in SCHEDULES.items()}),
    )
    for title, field, registry in rows:
        table = [
            (f"`{name}`", " ".join(map(_first_sentence, said))) for name, said in registry.items()
        ]
        parts += [f"## {title}", f"Rows of `{field}`.", _table(("name", "what it is"), table)]
    networks = [
        (
            f"`{name}`",
            _first_sentence(row.module),
            ", ".join(f"{size} {value}" for size, value in row.sizes.items()),
        )
        for name, row in MODELS.items()
    ]
    heads = ("name", "what it is", "its sizes")
    parts += ["## Networks", "Rows of `model.name`.", _table(heads, networks)]
    tasks = [
        (
            f"`{name}`",
            _plain(task.accepts[0]),
            ", ".join(f"`{metric.name}`" for metric in task.metrics),
        )
        for name, task in TASKS.items()
    ]
    heads = ("name", "targets", "metrics, the first by itself")
    parts += ["## Tasks", "Rows of `task`; metrics are those of `metric`.", _table(heads, tasks)]
    parts.append("## Datasets\n\n" + ", ".join(f"`{name}`" for name in DATASETS) + "; any prepared "
                 "image classification dataset of TFDS goes by its name, too.")  # fmt: skip
    return "\n\n".join(parts) + "\n"


_REGISTRIES = """\
Everything that a config names is a row of a dict in the code; [the how-tos](../how_to.md) say how
to add one. These tables are made from the rows and their docstrings."""


def api() -> str:
    """Returns the reference of the public names, from their docstrings."""
    parts = ["# API reference", "Everything that `import lth_jax` gives."]
    for name in sorted(set(lth_jax.__all__) - {"__version__"}, key=str.lower):
        thing = getattr(lth_jax, name)
        parts.append(f"## `{name}`\n\n```{{eval-rst}}\n{_directive(name, thing)}\n```")
    return "\n\n".join(parts) + "\n"


def _directive(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return f".. autofunction:: lth_jax.{name}"
    # The fields of a tuple stand in its docstring, and have one of their own that says nothing.
    members = "" if issubclass(thing, tuple) else "\n   :members:"
    return f".. autoclass:: lth_jax.{name}{members}"


def _first_sentence(thing: Any) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split())
    return _plain(re.split(r"(?<=\.)(?<!et al\.) (?=\W?[A-Z])", text)[0])


def _plain(text: str) -> str:
    """Returns text for a cell of a table: one line, and no mark of Markdown but code."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)
