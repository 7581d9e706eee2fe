"""Which experiment a caller means, who names a config file or hands over a config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import config as specs
from lth_jax.config.files import ConfigFile, config_name, override, read_config, read_rows
from lth_jax.errors import SpecError, shown
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.custom import fields_taken, register


def get_config(name: str | Path) -> Any:
    """Returns the `ConfigDict` of a config file, with every field there to be changed.

    Args:
      name: of a config of the package, or a path; `:variant` may follow.

    Raises:
      SpecError: there is no such file, or it fails.
    """
    file = read_config(str(name))
    register(file)
    return override(file.config, (), list(BRANCHES))


class Chosen(NamedTuple):
    """The experiment that a caller asks for.

    Attributes:
      spec: its spec.
      name: what it is called.
      file: the config file that it or its own rows come from; None for a config made in Python.
      reproduced: whether the file's name alone says all of it.
    """

    spec: specs.Spec
    name: str
    file: ConfigFile | None
    reproduced: bool

    def path(self, workdir: str | Path | None) -> Path:
        """Returns its run directory, which is `workdir` if that is given.

        Raises:
          SpecError: `workdir` is empty.
        """
        if workdir is not None and not str(workdir):
            raise SpecError("workdir='': accepted: a folder to write to")
        return Path(workdir or f"runs/{self.name}-{specs.identity(self.spec)}")

    def command(self, path: Path) -> list[str]:
        """Returns the command line that runs it, without `python`; empty where there is none."""
        if not (self.file and self.reproduced):
            return []
        return ["-m", "lth_jax", "run", self.file.name, f"--workdir={path}"]


def choose(config: Any, overrides: Sequence[str] = (), *, rows: str | Path | None = None) -> Chosen:
    """Returns the experiment of a config, whose own rows it registers.

    Args:
      config: as `run` takes it.
      overrides: fields of a config file that are changed, as `train.steps=100`.
      rows: as `run` takes it.

    Raises:
      SpecError: as `run`.
    """
    if isinstance(config, str | Path):
        if rows is not None:
            raise SpecError(
                f"rows={shown(str(rows))}: {config} brings its own; "
                "accepted: None, or a ConfigDict instead of the file"
            )
        file = read_config(str(config))
        register(file)
        made = override(file.config, overrides, list(BRANCHES), fields_taken())
        name = config_name(file.name)
        return Chosen(specs.from_config(made), name, file, not overrides)
    if not hasattr(config, "items"):
        raise SpecError(
            f"config={shown(config)}: accepted: a config file's name or path, or a ConfigDict"
        )
    file = read_rows(str(rows)) if rows is not None else None
    if file:
        register(file)
    return Chosen(specs.from_config(config), "experiment", file, False)
