"""Config files and the command line's overrides of them: `--config=CONFIG[:VARIANT] --config.a=1`.

A config is a Python file, or one of the package by its name (`paper/figure4`).

ml_collections parses the values; what it would answer with a traceback is caught here and said in
one line. A file may bring custom rows too (`MODELS`, `DATASETS`, `CRITERIA`): they are handed out
with the config, and `custom.register` adds them.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lth_jax.config.conversion import declaration_of, default_values
from lth_jax.config.sources import PACKAGE, Sources, gather, is_beside
from lth_jax.config.spec import BranchSpec, Spec
from lth_jax.configs import FOLDER
from lth_jax.errors import SpecError, first_line, nearest, shown

DEFAULT = "lenet_digits"
PREFIX = "--config."


class ConfigFile(NamedTuple):
    """What a config file says.

    Attributes:
      name: as the user named it, with the variant, if any: `CONFIG:VARIANT`.
      config: the `ConfigDict` that its `get_config` gave; None where only its rows were asked for.
      namespace: everything that the file defines, custom rows among it.
      sources: the file and the modules beside it that it imports, as they were run.
    """

    name: str
    config: Any
    namespace: Mapping[str, Any]
    sources: Sources


def split_arguments(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Returns the config ("" if none is named), overrides as `a.b=value`, and other arguments.

    Both `--config=X` and `--config X` are understood, one dash or two, in any order.

    Raises:
      SpecError: a flag lacks its value.
    """
    config, overrides, others = "", [], []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag = "-" + argument if argument.startswith("-config") else argument
        if flag == "--":
            others += [argument, *rest]
            break
        if flag == "--config" or (flag.startswith(PREFIX) and "=" not in flag):
            if not rest:
                raise SpecError(f"{flag}: accepted: {flag}=VALUE")
            flag = f"{flag}={rest.pop(0)}"
        if flag.startswith("--config="):
            config = flag.removeprefix("--config=")
            if not config:
                raise SpecError("--config='': accepted: a config, such as " + DEFAULT)
        elif flag.startswith(PREFIX):
            overrides.append(flag.removeprefix(PREFIX))
        else:
            others.append(argument)
    return config, overrides, others


def split_name(name: str) -> tuple[str, str]:
    """Returns (config, variant) of `CONFIG:VARIANT`; a Windows drive's colon is the config's."""
    drive = 2 if re.match(r"[A-Za-z]:[\\/]", name) else 0
    config, _, variant = name[drive:].partition(":")
    return name[:drive] + config, variant


def load_config(name: str, overrides: Sequence[str] = (), branch_kinds: Sequence[str] = ()) -> Any:
    """Returns the config called `name`, `overrides` applied; custom rows are left out.

    Raises:
      SpecError: as `read_config` and `override` do.
    """
    return override(read_config(name).config, overrides, branch_kinds)


def read_config(name: str) -> ConfigFile:
    """Runs the config called `name` (`CONFIG` or `CONFIG:VARIANT`) and returns what it says.

    Raises:
      SpecError: no such file, or a file that fails.
    """
    with _running(name) as running:
        if "get_config" not in running.namespace:
            raise SpecError(f"--config={name}: the file has no function get_config()")
        config = _call(name, running.namespace, "get_config")
    _check_config(name, "get_config", config)
    return ConfigFile(name, config, running.namespace, running.sources())


def read_configs(name: str, most: int) -> list[ConfigFile]:
    """Runs the config called `name` and returns what its `get_configs` yields, each as a file.

    Args:
      name: `CONFIG` or `CONFIG:VARIANT`.
      most: how many configs are accepted.

    Raises:
      SpecError: no such file, a file that fails, or none that yields configs.
    """
    configs: list[Any] = []
    with _running(name) as running:
        if "get_configs" not in running.namespace:
            raise SpecError(
                f"--config={name}: there is no --grid; accepted: --grid FIELD=VALUE,VALUE…, or a "
                "file whose get_configs() yields configs"
            )
        for config in _call(name, running.namespace, "get_configs"):
            configs.append(config)
            if len(configs) > most:
                break
    if not 0 < len(configs) <= most:
        what = "none" if not configs else "too many"
        raise SpecError(f"--config={name}: get_configs() yields {what}; accepted: 1 to {most:,}")
    for config in configs:
        _check_config(name, "get_configs", config)
    sources = running.sources()
    return [ConfigFile(name, config, running.namespace, sources) for config in configs]


def _call(name: str, namespace: Mapping[str, Any], function: str) -> Any:
    """Returns what a function of a config file gives, for the variant that `name` asks for."""
    file, variant = split_name(name)
    call = namespace[function]
    if variant and not inspect.signature(call).parameters:
        raise SpecError(f"--config={name}: {file} has no variants; accepted: {file}")
    return call(variant) if variant else call()


def _check_config(name: str, function: str, config: Any) -> None:
    from ml_collections import ConfigDict

    if not isinstance(config, ConfigDict):
        raise SpecError(
            f"--config={name}: {function}() gave {shown(config)}, which is no ConfigDict"
        )


def read_rows(name: str) -> ConfigFile:
    """Runs the config file `name`, but not its `get_config`: its rows are all that is wanted.

    Raises:
      SpecError: no such file, or a file that fails.
    """
    with _running(name) as running:
        pass
    return ConfigFile(name, None, running.namespace, running.sources())


class _Running(NamedTuple):
    """A config file that is being run: where it is, what it defines, and what it has imported."""

    path: Path
    namespace: dict[str, Any]
    before: frozenset[str]

    def sources(self) -> Sources:
        return gather(self.path, [module for _, module in _modules(self.path.parent, self.before)])


@contextmanager
def _running(name: str) -> Iterator[_Running]:
    """Runs the top of a config file, then the block within; what either raises becomes one line."""
    path = find_file(split_name(name)[0])
    module_spec = importlib.util.spec_from_file_location(f"lth_jax_config_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    with _reading, _importable(path.parent.resolve()) as before:
        try:
            module = importlib.util.module_from_spec(module_spec)
            module_spec.loader.exec_module(module)
            yield _Running(path, vars(module), before)
        except SpecError:
            raise
        except (Exception, SystemExit) as error:
            what = f"{type(error).__name__} in {path}: {first_line(error, 130)}"
            raise SpecError(f"--config={name}: {what}") from error


_reading = threading.RLock()  # for paths and modules are the whole process's
# The modules beside configs, which the next config imports anew: it may mean others by the names.
_imported: set[str] = set()


@contextmanager
def _importable(folder: Path) -> Iterator[frozenset[str]]:
    """Lets a config import its neighbours, as a script could.

    Gives the names of the modules that were imported before.
    """
    paths = [str(folder)]
    if not FOLDER.is_relative_to(PACKAGE):  # a checkout, where ours may be called `configs.…`, too
        paths.append(str(FOLDER.parent))
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    importlib.invalidate_caches()
    before, writes = frozenset(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a config's folder, or a run's, is not ours to write to
    sys.path[:0] = paths
    try:
        yield before
    finally:
        sys.dont_write_bytecode = writes
        for path in paths:
            sys.path.remove(path)
        _imported.update(name for name, _ in _modules(folder, before))


def _modules(folder: Path, before: frozenset[str]) -> list[tuple[str, Path]]:
    """Returns the modules in a config's folder that were not imported before: name and file."""
    found = []
    for name in sys.modules.keys() - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and is_beside(Path(file), folder.resolve()):
            found.append((name, Path(file)))
    return sorted(found)


def override(
    config: Any,
    overrides: Sequence[str],
    branch_kinds: Sequence[str] = (),
    own: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Returns `config` with the fields that it lacks, and `overrides` (`a.b=value`) applied.

    Args:
      config: a `ConfigDict`; it is changed.
      overrides: in the order in which they count.
      branch_kinds: branches whose options can be overridden, beside those that are named already.
      own: the fields that rows of the config's own take, with defaults, whose type an override has.

    Raises:
      SpecError: an unknown field, or a value that does not parse.
    """
    with config.unlocked():
        _fill_up(config, default_values(Spec))
        for branch in dict.fromkeys((*branch_kinds, *_named_branches(overrides), *config.branch)):
            _fill_up(config.branch, {branch: default_values(BranchSpec)})
    for one in overrides:
        field = one.partition("=")[0]
        _add_own_field(config, field, own)
        if field.startswith("source."):
            _add_source_field(config, field.removeprefix("source."))
        _check_field(config, field, own)
    for one in overrides:  # ml_collections locks the config: no field can be added from here on
        field, _, text = one.partition("=")
        config = _override(config, field, text)
    return config


def config_name(name: str) -> str:
    """What an experiment is called: the file's name without folder, ending and variant."""
    return Path(split_name(name)[0]).stem


def find_file(name: str) -> Path:
    """Returns the file of a config: a path from here, else one of the package.

    The package's are called `paper/figure4`, from any folder; `configs/` before it and `.py` after
    it change nothing.

    Raises:
      SpecError: there is none.
    """
    path, known = Path(name), known_configs()
    if path.is_file() and path.suffix == ".py":
        return path
    short = path.as_posix().removeprefix("configs/").removesuffix(".py")
    if short in known:
        return known[short]
    # By the file's name: the folder may be another one.
    named = {Path(other).stem: other for other in known}
    named |= {file.stem: file.as_posix() for file in path.parent.glob("*.py")}
    close = difflib.get_close_matches(path.stem, named, n=1)
    hint = f"did you mean '{named[close[0]]}'?" if close else nearest(short, known)
    what = "no Python file" if path.is_file() else "no such file"
    raise SpecError(f"--config={name}: {what}; {hint}")


def known_configs() -> dict[str, Path]:
    """Returns the configs of the package, sorted by their names: name -> file."""
    files = {path.relative_to(FOLDER).with_suffix("").as_posix(): path
             for path in FOLDER.rglob("*.py") if path.name != "__init__.py"}  # fmt: skip
    return dict(sorted(files.items()))


def _fill_up(config: Any, defaults: Mapping[str, Any]) -> None:
    """Gives `config` the fields that it lacks, so that overrides know them."""
    from ml_collections import ConfigDict

    for name, value in defaults.items():
        # A plain None has no type, and could not be overridden: its placeholder can.
        if name not in config or config.get_type(name) is type(None):
            config[name] = ConfigDict(value) if isinstance(value, dict) else value
        elif isinstance(value, dict) and isinstance(config[name], ConfigDict):
            _fill_up(config[name], value)


def _named_branches(overrides: Sequence[str]) -> list[str]:
    """Branches with options on the command line: `build` judges whether they exist."""
    fields = [override.partition("=")[0].split(".") for override in overrides]
    return [parts[1] for parts in fields if parts[0] == "branch" and len(parts) >= 3]


def _add_own_field(config: Any, field: str, own: Mapping[str, Any]) -> None:
    """A field of `custom` that the command line sets: of the kind that the row's default has."""
    *groups, name = field.split(".")
    if groups[-1:] != ["custom"] or name not in own:
        return
    with config.unlocked():
        group = config
        for part in groups:
            if part not in group:
                if groups[0] != "source":
                    return
                group[part] = type(config)()
            group = group[part]
        if name not in group:
            group[name] = own[name]


def _add_source_field(config: Any, field: str) -> None:
    """A field of `source` that the command line sets: of the kind that the config's own has."""
    if field == "run":
        config.source.run = config.source.get("run", "")
        return
    if field.startswith("custom.") and field.partition(".")[2] in config.source.get("custom", {}):
        return
    _check_field(config, field)
    from ml_collections.config_dict import placeholder

    source, ours = config.source, config
    *groups, name = field.split(".")
    for group in groups:
        if group not in source:
            source[group] = type(config)()
        source, ours = source[group], ours[group]
    if name not in source or source.get_type(name) is type(None):
        kind = ours.get_type(name)
        source[name] = placeholder(kind) if ours[name] is None else ours[name]


def _check_field(config: Any, field: str, own: Iterable[str] = ()) -> None:
    """Raises a SpecError, with the nearest name, unless `field` is one of the config's."""
    node, done = config, []
    for part in field.split("."):
        known = list(node.keys()) if hasattr(node, "keys") else []
        if part not in known:
            if done[-1:] == ["custom"]:
                known = sorted({*known, *own})
            place = ".".join(["config", *done])
            hint = nearest(part, known) if known else f"{place} is no group of fields"
            raise SpecError(f"config.{field}: no such field; {hint}")
        node = node[part]
        done.append(part)
    if hasattr(node, "keys"):
        raise SpecError(
            f"config.{field}: a group of fields cannot be set; accepted: one of them, such as "
            f"config.{field}.{next(iter(node), 'name')}"
        )


def _override(config: Any, field: str, text: str) -> Any:
    from absl import flags
    from ml_collections import config_flags

    *groups, name = field.split(".")
    group = config
    for one in groups:
        group = group[one]
    declaration = declaration_of(field)
    optional = declaration is not None and declaration.default is None
    if optional and text == "None":
        with group.ignore_type():
            group[name] = None
        return config
    # ml_collections defines flags for the fields that it sees overridden in this list.
    arguments = ["run.py", f"{PREFIX}{field}={text}"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
    try:
        # absl would make a tuple of anything that can be iterated over.
        if group.get_type(name) is tuple and _is_no_tuple(text):
            raise ValueError(text)
        values(arguments)
    except (
        flags.Error,
        ValueError,
        TypeError,
        SyntaxError,
        AttributeError,
        KeyError,
        MemoryError,  # as Python's parser says of parentheses within parentheses
        RecursionError,
    ) as error:
        kinds = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}
        wanted = kinds.get(group.get_type(name), "a tuple, such as () or ('a', 'b')")
        wanted += " or None" if optional else ""
        raise SpecError(f"config.{field}={shown(text)}: accepted: {wanted}") from error
    return values["config"].value


def _is_no_tuple(text: str) -> bool:
    """Whether a value is written as a dict, a set or bytes."""
    try:
        return isinstance(ast.literal_eval(text), dict | set | bytes)
    except (ValueError, SyntaxError):  # words, such as names of branches
        return False
