"""`lth-jax configs [CONFIG]`: the package's experiments, or what one says of itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

from lth_jax.cli.command import Parser, exit_status
from lth_jax.config.files import find_file, known_configs, split_name

DESCRIPTION = """Lists the experiments that the package brings, a line each, with the variants that
their docstrings name. To run one: `--config=NAME` or `--config=NAME:VARIANT`."""


def main(arguments: Sequence[str]) -> int:
    """Prints the configs, or the docstring of one; returns the exit status."""
    return exit_status(lambda: _configs(arguments))


def _configs(arguments: Sequence[str]) -> None:
    parser = Parser("configs", description=DESCRIPTION)
    parser.add_argument(
        "config", nargs="?", help="print all of its docstring: source, cost, what to expect"
    )
    options = parser.parse(arguments)
    if options.config:
        print(docstring(find_file(split_name(options.config)[0])))
        return
    for line in listing():
        print(line)


def listing(*, with_variants: bool = True) -> list[str]:
    """Returns a line for each config of the package: its name, its title, and its variants."""
    known = known_configs()
    width = max(map(len, known))
    lines = []
    for name, file in known.items():
        text = docstring(file)
        title = text.partition("\n")[0]
        more = [f":{variant}" for variant in variants(name, text)] if with_variants else []
        lines.append(" ".join([f"{name:<{width}} ", title, *more]).rstrip())
    return lines


def docstring(file: Path) -> str:
    """Returns what a config's file says of itself; the file is not run."""
    return ast.get_docstring(ast.parse(file.read_bytes())) or ""


def variants(name: str, text: str) -> list[str]:
    """Returns the variants that the commands in a config's docstring name, each once."""
    found = re.findall(rf"\b{re.escape(name)}(?:\.py)?:([^\s`]+)", text)
    return list(dict.fromkeys(found))
