"""Custom rows, which a user's config file brings: `MODELS`, `OPTIMIZERS` and their like in it.

They stand beside the package's in its registries, for this process. A name that the package has
itself is refused: of the package's rows, a run's identity holds names alone. Of a user's it holds
their source, too. `OBSERVERS` are told what a run does, and change no number: they are outside it.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import data, models
from lth_jax.config import Spec, own_fields
from lth_jax.config.files import ConfigFile, read_rows
from lth_jax.config.sources import COPIES, Digests, differences
from lth_jax.errors import SpecError, nearest, shown
from lth_jax.lottery.branches import BRANCHES, KINDS, learned
from lth_jax.lottery.observer import Guarded, Observer
from lth_jax.lottery.optimizing import HYPERPARAMETERS
from lth_jax.pruning.criteria import CRITERIA, Criterion
from lth_jax.pruning.learning import LEARNED_MASKS, LearnedMask
from lth_jax.pruning.moving import MASK_RULES, MaskRule
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES, Optimizer
from lth_jax.training.tasks import TASKS, Task, wrong_task

OBSERVERS = "OBSERVERS"


class _Registry(NamedTuple):
    """A registry that a config may add to.

    Attributes:
      rows: of the registry; names: those of the package.
      make: makes a row, given its name.
      used: the fields of a spec that name rows, and what they name.
      function: gives a row's function, which takes own fields.
      given: how many arguments that function is always given by position.
      needed_for: what a finished run cannot be read for without the row, of `network` (it is made
        again) and `ticket` (its state is); nothing where only training needs it.
    """

    rows: dict[str, Any]
    names: frozenset[str]
    make: Callable[[str, Any], Any]
    used: Callable[[Spec], Mapping[str, str]]
    function: Callable[[Any], Any] = lambda row: row
    given: int = 1
    needed_for: Collection[str] = ()


def _dataset(name: str, row: Any) -> data.Loader:
    return row if isinstance(row, data.Loader) else data.custom_dataset(name, row)


def _criterion(name: str, row: Any) -> Criterion:
    made = row if isinstance(row, Criterion) else Criterion(row)
    _check_function(f"CRITERIA['{name}']", made.scores, "a function of a Scoring", object())
    return made


def _optimizer(name: str, row: Any) -> Optimizer:
    made = row if isinstance(row, Optimizer) else Optimizer(row)
    what = "a function of learning_rate to an Optax transformation"
    _check_function(f"OPTIMIZERS['{name}']", made.make, what, **_given(made.make, HYPERPARAMETERS))
    return made


def _task(name: str, row: Any) -> Task:
    if wrong := wrong_task(row):
        raise SpecError(f"TASKS['{name}']: {wrong}")
    return row


def _schedule(name: str, row: Any) -> Any:
    what = "a function of learning_rate, and perhaps steps, to an Optax schedule"
    _check_function(f"SCHEDULES['{name}']", row, what, **_given(row, ("steps",)))
    return row


def _branch(name: str, row: Any) -> Any:
    _check_function(f"BRANCHES['{name}']", row, "a function of a BranchPoint", object())
    return row


def _mask_rule(name: str, row: Any) -> MaskRule:
    made = row if isinstance(row, MaskRule) else MaskRule(row)
    _check_function(f"MASK_RULES['{name}']", made.move, "a function of a Move", object())
    return made


def _learned_mask(name: str, row: Any) -> LearnedMask:
    place = f"LEARNED_MASKS['{name}']"
    if not isinstance(row, LearnedMask):
        raise SpecError(f"{place}={shown(row)}: accepted: a lth_jax.LearnedMask")
    for part, what, given in (
        ("begin", "a function of a key, weights and their number to scores", 3),
        ("network", "a function of a Layer to weights", 1),
        ("rank", "a function of scores", 1),
        ("scale", "a function of two numbers of weights", 2),
    ):
        _check_function(f"{place}.{part}", getattr(row, part), what, *[object()] * given)
    return row


def _given(row: Any, fields: Collection[str]) -> dict[str, Any]:
    """Returns what stands for the arguments of an optimizer or a schedule, where it takes them."""
    taken = own_fields.named_parameters(row)
    return {"learning_rate": 0.1} | {field: 1 for field in fields if field in taken}


def _check_function(place: str, row: Any, what: str, *given: Any, **named: Any) -> None:
    """Checks that a row is a function that can be called so; what else it takes has a default.

    Raises:
      SpecError: it is not.
    """
    if not callable(row):
        raise SpecError(f"{place}={shown(row)}: accepted: {what}")
    try:
        inspect.signature(row).bind(*given, **named)
    except TypeError as error:
        raise SpecError(f"{place}: accepted: {what}; {error}") from None
    except ValueError:
        pass  # some callables written in C do not say what they take


def _with_branches(spec: Spec, group: str, field: str) -> dict[str, str]:
    """Returns what a field of the trunk names, and what branches set in its place."""
    own = {f"branch.{n}.{field}": getattr(spec.branch_spec(n), field) for n in spec.branches}
    named = {place: name for place, name in own.items() if name}
    return {f"{group}.{field}": getattr(getattr(spec, group), field), **named}


_REGISTRIES = {
    "MODELS": _Registry(
        models.MODELS,
        models.ZOO,
        models.custom_model,
        lambda spec: {"model.name": spec.model.name},
        function=lambda row: row.module,
        needed_for=("network",),
    ),
    "DATASETS": _Registry(
        data.DATASETS,
        frozenset(data.DATASETS),
        _dataset,
        lambda spec: {"data.name": spec.data.name},
        function=lambda row: row.function,
        given=0,
        needed_for=("network",),
    ),
    "CRITERIA": _Registry(
        CRITERIA,
        frozenset(CRITERIA),
        _criterion,
        lambda spec: _with_branches(spec, "pruning", "criterion"),
        function=lambda row: row.scores,
    ),
    "TASKS": _Registry(
        TASKS,
        frozenset(TASKS),
        _task,
        lambda spec: {"task": spec.task},
        function=lambda row: row.loss,
        given=2,
        needed_for=("network",),
    ),
    "OPTIMIZERS": _Registry(
        OPTIMIZERS,
        frozenset(OPTIMIZERS),
        _optimizer,
        lambda spec: _with_branches(spec, "train", "optimizer"),
        function=lambda row: row.make,
        given=0,
        needed_for=("ticket",),
    ),
    "SCHEDULES": _Registry(
        SCHEDULES,
        frozenset(SCHEDULES),
        _schedule,
        lambda spec: {"train.schedule": spec.train.schedule},
        given=0,
    ),
    "BRANCHES": _Registry(
        BRANCHES,
        KINDS,
        _branch,
        lambda spec: {f"branch.{name}.kind": spec.branch_spec(name).kind for name in spec.branches},
    ),
    "MASK_RULES": _Registry(
        MASK_RULES,
        frozenset(MASK_RULES),
        _mask_rule,
        lambda spec: {
            f"branch.{name}.rule": rule
            for name in spec.branches
            if (rule := spec.branch_spec(name).rule)
        },
        function=lambda row: row.move,
    ),
    "LEARNED_MASKS": _Registry(
        LEARNED_MASKS,
        KINDS,  # each is a kind of branch
        _learned_mask,
        lambda spec: {f"branch.{name}.kind": spec.branch_spec(name).kind for name in spec.branches},
        function=lambda row: row.network,
    ),
}
# What makes a branch is a part of the branch, not of the trunk: branches may be added later.
_OF_BRANCHES = {"BRANCHES": "kind", "MASK_RULES": "rule", "LEARNED_MASKS": "kind"}
_OF_TRUNK = [title for title in _REGISTRIES if title not in _OF_BRANCHES]


class OwnRows(NamedTuple):
    """The rows of a config file that a spec uses, and the source that makes them.

    Attributes:
      rows: field -> name, such as `model.name` -> `mine`; empty where all is the package's.
      sources: the digests of the file and of the modules beside it (`sources`), but for what only
        branches use: it is taken as one, whatever its rows are. Empty where there are no rows.
      branches: the name of each branch whose kind or rule is the user's own -> a digest of their
        source.
    """

    rows: Mapping[str, str]
    sources: Digests
    branches: Mapping[str, str]


NO_ROWS = OwnRows({}, {}, {})


def own_rows(file: ConfigFile, spec: Spec) -> OwnRows:
    """Returns the rows of a config file that `spec` uses; `register` has added them."""
    rows = {
        field: name
        for title in _OF_TRUNK
        for field, name in _REGISTRIES[title].used(spec).items()
        if _is_of(file, title, name)
    }
    made = {
        name: [
            file.sources.row_digest(title, row)
            for title, field in _OF_BRANCHES.items()
            if (row := getattr(spec.branch_spec(name), field)) and _is_of(file, title, row)
        ]
        for name in spec.branches
    }
    branches = {name: "+".join(digests) for name, digests in made.items() if digests}
    return OwnRows(rows, file.sources.digests(_OF_TRUNK) if rows else {}, branches)


def _is_of(file: ConfigFile, title: str, name: str) -> bool:
    return is_own(title, name) and name in file.namespace.get(title, {})


def is_own(title: str, name: str) -> bool:
    """Tells whether the row of that name is a user's own, and not the package's."""
    return name not in _REGISTRIES[title].names


# (registry, name) -> the source of the rows of each run that is under way.
_in_use: dict[tuple[str, str], list[Digests]] = {}
_changing = threading.RLock()


@contextlib.contextmanager
def in_use(file: ConfigFile | None) -> Iterator[None]:
    """Adds the rows of a config file, whose names mean nothing else until the block within ends.

    Raises:
      UserError: as `register`.
    """
    names = [(t, n) for t in _REGISTRIES for n in file.namespace.get(t, ())] if file else []
    if not file or not names:
        yield
        return
    source = file.sources.digests(_REGISTRIES)
    with _changing:
        register(file)
        for name in names:
            _in_use.setdefault(name, []).append(source)
    try:
        yield
    finally:
        with _changing:
            for name in names:
                _in_use[name].remove(source)


def register(file: ConfigFile) -> None:
    """Adds the rows that a config file defines; those of an earlier file may change.

    Raises:
      UserError: a name of the package's own or of a run that is under way, or a row that is none.
    """
    _check_titles(file)
    with _changing:
        _register(file)


def _register(file: ConfigFile) -> None:
    folder = str(file.sources.folder)
    if any(title in file.namespace for title in _REGISTRIES) and folder not in sys.path:
        sys.path.append(folder)  # a row may import when it is called
    for title, registry in _REGISTRIES.items():
        rows = _rows(file, title)
        if rows is registry.rows:  # imported from the package
            continue
        for name, row in rows.items():
            place = f"--config={file.name}: {title}['{name}']"
            if name in registry.names:
                raise SpecError(f"{place}: the package has one of that name; accepted: another")
            others = _in_use.get((title, name))
            if others and file.sources.digests(_REGISTRIES) not in others:
                raise SpecError(
                    f"{place}: a run of this process uses another row of that name; "
                    "accepted: another name, or to wait for it"
                )
            if title == "LEARNED_MASKS" and name in _rows(file, "BRANCHES"):
                raise SpecError(f"{place}: BRANCHES has one of that name; accepted: another")
            registry.rows[name] = registry.make(name, row)
            if title == "LEARNED_MASKS":
                BRANCHES[name] = learned
    for name, row in _rows(file, OBSERVERS).items():
        _check_function(f"{OBSERVERS}['{name}']", row, "a function of the spec", object())


def _rows(file: ConfigFile, title: str) -> Mapping[str, Any]:
    rows = file.namespace.get(title, {})
    if not isinstance(rows, Mapping) or not all(isinstance(name, str) for name in rows):
        raise SpecError(
            f"--config={file.name}: {title}={shown(rows)}: accepted: a dict of names and rows"
        )
    return rows


def _check_titles(file: ConfigFile) -> None:
    """Refuses dicts of rows that nobody reads: those with a name almost right, or without a use.

    A dict of functions that the file itself uses, such as `ACTIVATIONS`, is its own affair.

    Raises:
      SpecError: there is one.
    """
    known = [*_REGISTRIES, OBSERVERS]
    mentioned = file.sources.mentions()
    for title, rows in file.namespace.items():
        if title in known or not title.isupper() or not _are_rows(rows):
            continue
        if title not in mentioned or difflib.get_close_matches(title, known, n=1, cutoff=0.75):
            raise SpecError(f"--config={file.name}: {title}: no such rows; {nearest(title, known)}")


def _are_rows(value: Any) -> bool:
    kinds = (models.Member, data.Loader, Criterion, LearnedMask, MaskRule, Optimizer, Task)
    if not isinstance(value, Mapping) or not value:
        return False
    of_names = all(isinstance(name, str) for name in value)
    return of_names and all(callable(row) or isinstance(row, kinds) for row in value.values())


def fields_taken() -> dict[str, Any]:
    """Returns the own fields that custom rows take: name -> default, also where a row is not used.

    Where several take one, the default is that of the first.
    """
    found: dict[str, Any] = {}
    for registry in _REGISTRIES.values():
        for name in registry.rows.keys() - registry.names:
            function = registry.function(registry.rows[name])
            found = own_fields.parameters(function, registry.given) | found
    return found


def check_fields(spec: Spec) -> None:
    """Checks that each own field of a spec is taken by a row: a typo is not passed over.

    Raises:
      SpecError: nobody takes one; names the nearest.
    """
    _check_taken("custom", spec.custom, fields_taken())
    for name in spec.branches:
        kind, under = spec.branch_spec(name).kind, spec.under(name).train
        functions = [(BRANCHES[kind], 1), (OPTIMIZERS[under.optimizer].make, 0)]
        functions += [(SCHEDULES[under.schedule], 0)]
        if rule := spec.branch_spec(name).rule:
            functions += [(MASK_RULES[rule].move, 1)]
        if row := LEARNED_MASKS.get(kind):
            functions += [(row.network, 1), (row.scale, 2)]
        if kind == "prune":
            criterion = spec.branch_spec(name).criterion or spec.pruning.criterion
            functions += [(CRITERIA[criterion].scores, 1)]
        taken = {n for one, given in functions for n in own_fields.parameters(one, given)}
        _check_taken(f"branch.{name}.custom", spec.branch_spec(name).custom, taken)


def _check_taken(place: str, fields: Mapping[str, Any], taken: Collection[str]) -> None:
    for name, value in fields.items():
        if name not in taken:
            hint = nearest(name, taken) if taken else "accepted: none, since no row takes any"
            raise SpecError(f"config.{place}.{name}={shown(value)}: no row takes it; {hint}")


def observers(file: ConfigFile, spec: Spec, warn: Callable[[str], None]) -> list[Observer]:
    """Returns the observers that a config file brings for one run directory.

    Args:
      file: the config file.
      spec: of the experiment.
      warn: takes a line about an observer that failed.

    Raises:
      SpecError: a function gave no `Observer`.
    """
    rows = file.namespace.get(OBSERVERS, {})
    return [Guarded(name, partial(make, spec), warn) for name, make in rows.items()]


def recall(
    run: Path,
    record: Mapping[str, Any],
    spec: Spec,
    needed_for: str,
    *,
    config: str = "",
    trust: bool = False,
    asking: str = "--config=FILE that has it, or --trust",
) -> None:
    """Adds the rows that a finished run needs and the package has not; runs no code unasked.

    Args:
      run: the run directory, or an exported file.
      record: of the run, the content of `spec.json`; it may be a stranger's.
      spec: the one in it.
      needed_for: what the run is read for, `network` or `ticket`.
      config: a config file that the user names; it is run where a row is needed.
      trust: whether the copy that the run keeps of its config may be run.
      asking: what to say to a user who asked for neither.

    Raises:
      SpecError: a row is needed, and none of the two is given; or the file is not the run's.
    """
    own = record.get("own") or {}
    needed = {}
    for registry in _REGISTRIES.values():
        if needed_for in registry.needed_for:
            for field, name in registry.used(spec).items():
                # Any name may be a dataset of TFDS. Records say which is not; older ones do not.
                listed = field in own.get("rows", ()) or (config and "own" not in record)
                of_trunk = not field.startswith("branch.")
                if name not in registry.rows and of_trunk and (listed or field != "data.name"):
                    needed[field] = name
    if not needed:
        return
    what = ", ".join(f"config.{field}={name!r}" for field, name in needed.items())
    if not config and not trust:
        raise SpecError(f"{run}: {what} is not the package's; accepted: {asking}")
    file = read_rows(config or str(_copy_of(run, record)))
    if own:
        now = file.sources.digests(_OF_TRUNK)
        was, main = own["sources"], own.get("main", "")
        if different := differences(was, now, main, file.sources.main):
            raise SpecError(
                f"{file.name}: its source is not what {run} was trained with "
                f"({'; '.join(different)}); accepted: the source as it was"
            )
    register(file)


def _copy_of(run: Path, record: Mapping[str, Any]) -> Path:
    """Returns the copy that a run keeps of its config.

    Raises:
      SpecError: it keeps none.
    """
    name = (record.get("own") or record).get("main", record.get("config"))
    if isinstance(name, str) and Path(name).name == name and (run / COPIES / name).is_file():
        return run / COPIES / name
    raise SpecError(f"{run} keeps no copy of its config; accepted: --config=FILE")
