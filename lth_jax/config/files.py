"""Config files and the command line's overrides of them: `--config=FILE[:VARIANT] --config.a.b=1`.

ml_collections parses the values; what it would answer with a traceback is caught here and said in
one line. A file may bring custom rows too (`MODELS`, `DATASETS`, `CRITERIA`): they are handed out
with the config, and `custom.register` adds them.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.config.spec import BranchSpec, Spec, declaration_of, default_values
from lth_jax.errors import SpecError, nearest

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = "configs/lenet_digits.py"
PREFIX = "--config."


class ConfigFile(NamedTuple):
    """What a config file says.

    Attributes:
      name: as the user named it, `FILE` or `FILE:VARIANT`.
      config: the `ConfigDict` that its `get_config` gave.
      namespace: everything that the file defines, custom rows among it.
    """

    name: str
    config: Any
    namespace: Mapping[str, Any]


def split_arguments(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """(the config file, the overrides as `a.b=value`, the other arguments).

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
                raise SpecError("--config='': accepted: a config file, such as " + DEFAULT)
        elif flag.startswith(PREFIX):
            overrides.append(flag.removeprefix(PREFIX))
        else:
            others.append(argument)
    return config or DEFAULT, overrides, others


def load_config(name: str, overrides: Sequence[str] = (), branch_kinds: Sequence[str] = ()) -> Any:
    """Returns the config of file `name`, `overrides` applied; custom rows are left out.

    Raises:
      SpecError: as `read_config` and `override` do.
    """
    return override(read_config(name).config, overrides, branch_kinds)


def read_config(name: str) -> ConfigFile:
    """Runs the config file `name` (`FILE` or `FILE:VARIANT`) and returns what it says.

    Raises:
      SpecError: no such file, or a file that fails.
    """
    from ml_collections import ConfigDict

    file, _, variant = name.partition(":")
    path = find_file(file)
    module_spec = importlib.util.spec_from_file_location(f"lth_jax_config_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    with _importable(path.parent.resolve(), ROOT):
        try:
            module_spec.loader.exec_module(module)
            get_config = getattr(module, "get_config", None)
            if get_config is None:
                raise SpecError(f"--config={name}: the file has no function get_config()")
            if variant and not inspect.signature(get_config).parameters:
                raise SpecError(f"--config={name}: {file} has no variants; accepted: {file}")
            config = get_config(variant) if variant else get_config()
        except SpecError:
            raise
        except (Exception, SystemExit) as error:
            line = (str(error).splitlines() or [""])[0]
            raise SpecError(f"--config={name}: {type(error).__name__} in {path}: {line}") from error
    if not isinstance(config, ConfigDict):
        raise SpecError(f"--config={name}: get_config() gave {config!r}, which is no ConfigDict")
    return ConfigFile(name, config, vars(module))


@contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    """Lets a config import its neighbours, as a script could, and ours (`configs.…`)."""
    paths = [str(folder) for folder in folders]
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)


def override(config: Any, overrides: Sequence[str], branch_kinds: Sequence[str] = ()) -> Any:
    """Returns `config` with the fields that it lacks, and `overrides` (`a.b=value`) applied.

    Args:
      config: a `ConfigDict`; it is changed.
      overrides: in the order in which they count.
      branch_kinds: branches whose options can be overridden, beside those that are named already.

    Raises:
      SpecError: an unknown field, or a value that does not parse.
    """
    with config.unlocked():
        _fill_up(config, default_values(Spec))
        for branch in dict.fromkeys((*branch_kinds, *_named_branches(overrides), *config.branch)):
            _fill_up(config.branch, {branch: default_values(BranchSpec)})
    for one in overrides:
        field = one.partition("=")[0]
        if field.startswith("source."):
            _add_source_field(config, field.removeprefix("source."))
        _check_field(config, field)
    for one in overrides:  # ml_collections locks the config: no field can be added from here on
        field, _, text = one.partition("=")
        config = _override(config, field, text)
    return config


def config_name(name: str) -> str:
    """What an experiment is called: the file's name without folder, ending and variant."""
    return Path(name.partition(":")[0]).stem


def find_file(name: str) -> Path:
    """The config file: as named from here, or relative to `run.py`'s folder.

    Raises:
      SpecError: it is in neither place.
    """
    for path in (Path(name), ROOT / name):
        if path.is_file():
            return path
    near = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/*.py"))
    raise SpecError(f"--config={name}: no such file; {nearest(name, near)}")


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
    return [parts[1] for parts in fields if parts[0] == "branch" and len(parts) == 3]


def _add_source_field(config: Any, field: str) -> None:
    """A field of `source` that the command line sets: of the kind that the config's own has."""
    if field == "run":
        config.source.run = config.source.get("run", "")
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


def _check_field(config: Any, field: str) -> None:
    """Raises a SpecError, with the nearest name, unless `field` is one of the config's."""
    node, done = config, []
    for part in field.split("."):
        known = list(node.keys()) if hasattr(node, "keys") else []
        if part not in known:
            place = ".".join(["config", *done])
            hint = nearest(part, known) if known else f"{place} is no group of fields"
            raise SpecError(f"config.{field}: no such field; {hint}")
        node = node[part]
        done.append(part)
    if hasattr(node, "keys"):
        raise SpecError(
            f"config.{field}: a group of fields cannot be set; accepted: "
            + ", ".join(f"config.{field}.{name}" for name in node)
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
        values(arguments)
    except (flags.Error, ValueError, TypeError, SyntaxError, AttributeError, KeyError) as error:
        kinds = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}
        wanted = kinds.get(group.get_type(name), "a tuple, such as () or ('a', 'b')")
        wanted += " or None" if optional else ""
        raise SpecError(f"config.{field}={text!r}: accepted: {wanted}") from error
    return values["config"].value
