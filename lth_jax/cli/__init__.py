"""The commands, one file each. A command takes its arguments and returns its exit status."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from lth_jax.cli.command import VERSION, exit_status, typed
from lth_jax.errors import SpecError, nearest

# name -> (module, one line for --help). A module is imported when its command is called: the
# imports of `run` would make `list` wait for seconds.
COMMANDS = {
    "run": ("lth_jax.cli.run", "run an experiment, or go on with it"),
    "inspect": ("lth_jax.cli.inspect", "look into a run directory"),
    "list": ("lth_jax.cli.list", "all runs under a directory"),
    "export": ("lth_jax.cli.export", "carry a ticket away, into a file for other tools"),
    "predict": ("lth_jax.cli.predict", "what a trained network says of images"),
    "sweep": ("lth_jax.cli.sweep", "run many experiments: a grid over fields of a config"),
    "connect": ("lth_jax.cli.connect", "what lies on the line between two trained networks"),
    "report": ("lth_jax.cli.report", "draw the figures and the page of runs, or of a sweep"),
    "remove": ("lth_jax.cli.remove", "remove runs, having asked"),
    "configs": ("lth_jax.cli.configs", "the experiments that the package brings"),
    "models": ("lth_jax.cli.models", "the networks that the package brings"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Calls the command that `arguments` name and returns its exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]

    def command() -> int:
        if name in ("--help", "-h", "-help", "help"):
            print(f"usage: {' '.join(typed())} COMMAND [--help] …\n")
            print("\n".join(f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()))
            return 0
        if name in ("--version", "-version"):
            print(VERSION)
            return 0
        if name not in COMMANDS:
            raise SpecError(f"{name}: no such command; {nearest(name, COMMANDS)}")
        return importlib.import_module(COMMANDS[name][0]).main(rest)

    return exit_status(command)
