"""Config files and the command line's overrides of them: `--config=FILE[:VARIANT] --config.a.b=1`.

ml_collections parses the values; what it would answer with a traceback is caught here and said in
one line.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lth_jax import config as specs
from lth_jax.errors import SpecError, nearest

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = "configs/lenet_digits.py"
PREFIX = "--config."
# Registries that a config file may add rows to, by a dict of that name in it.
OWN_ROWS = frozenset({"MODELS", "DATASETS", "CRITERIA"})


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


def load_config(name: str, overrides: Sequence[str], branch_kinds: Sequence[str]) -> Any:
    """The config of file `name` (`FILE` or `FILE:VARIANT`) with `overrides` applied.

    Raises:
      SpecError: no such file, a file that fails, an unknown field, or a value that does not parse.
    """
    config = _config_of_file(name)
    with config.unlocked():
        _fill_up(config, specs.to_dict(specs.Spec()))
        for branch in dict.fromkeys((*branch_kinds, *_named_branches(overrides), *config.branch)):
            _fill_up(config.branch, {branch: specs.to_dict(specs.BranchSpec())})
    for override in overrides:
        field = override.partition("=")[0]
        if field.startswith("source."):
            _add_source_field(config, field.removeprefix("source."))
        _check_field(config, field)
    return _override(config, overrides)


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


def _fill_up(config: Any, defaults: dict[str, Any]) -> None:
    """Gives `config` the fields that it lacks, so that overrides know them."""
    from ml_collections import ConfigDict

    for name, value in defaults.items():
        if name not in config:
            config[name] = ConfigDict(value) if isinstance(value, dict) else value
        elif isinstance(value, dict) and isinstance(config[name], ConfigDict):
            _fill_up(config[name], value)


def _config_of_file(name: str) -> Any:
    from ml_collections import ConfigDict

    file, _, variant = name.partition(":")
    path = find_file(file)
    module_spec = importlib.util.spec_from_file_location(f"lth_jax_config_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    # So that a config can import its neighbours, as a script could, and ours (`configs.…`).
    folders = [str(path.parent.resolve()), str(ROOT)]
    sys.path[:0] = folders
    try:
        module_spec.loader.exec_module(module)
        if OWN_ROWS & vars(module).keys():
            from lth_jax.config.custom import register  # which imports JAX

            register(vars(module), path)
        get_config = getattr(module, "get_config", None)
        if get_config is None:
            raise SpecError(f"--config={name}: the file has no function get_config()")
        if variant and not inspect.signature(get_config).parameters:
            raise SpecError(f"--config={name}: {file} has no variants; accepted: {file}")
        config = get_config(variant) if variant else get_config()
        if not isinstance(config, ConfigDict):
            raise SpecError(
                f"--config={name}: get_config() gave {config!r}, which is no ConfigDict"
            )
        return config
    except SpecError:
        raise
    except (Exception, SystemExit) as error:
        line = (str(error).splitlines() or [""])[0]
        raise SpecError(f"--config={name}: {type(error).__name__} in {path}: {line}") from error
    finally:
        for folder in folders:
            sys.path.remove(folder)


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
    source, own = config.source, config
    *groups, name = field.split(".")
    for group in groups:
        if group not in source:
            source[group] = type(config)()
        source, own = source[group], own[group]
    source[name] = source.get(name, own[name])


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


def _override(config: Any, overrides: Sequence[str]) -> Any:
    from absl import flags
    from ml_collections import config_flags

    for override in overrides:
        field, _, text = override.partition("=")
        # ml_collections defines flags for the fields that it sees overridden in this list.
        arguments = ["run.py", PREFIX + override]
        values = flags.FlagValues()
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        try:
            values(arguments)
        except (flags.Error, ValueError, TypeError, SyntaxError, AttributeError, KeyError) as error:
            wanted = _accepted(_at(config, field))
            raise SpecError(f"config.{field}={text!r}: accepted: {wanted}") from error
        config = values["config"].value
    return config


def _at(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = config[part]
    return config


def _accepted(value: Any) -> str:
    kinds = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}
    return kinds.get(type(value), "a tuple, such as () or ('a', 'b')")
