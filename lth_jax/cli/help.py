"""What `run.py --help` says: the flags, the experiments that there are, and every field by group.

JAX is not imported, so that it is there at once.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lth_jax.cli.command import Parser
from lth_jax.cli.configs import listing
from lth_jax.config import flatten
from lth_jax.config.files import load_config
from lth_jax.config.groups import EXPERIMENT, FieldGroup, default_of, field_groups, type_of
from lth_jax.errors import SpecError, nearest
from lth_jax.system.streams import printable

FLAG = "--help="
WIDTHS = (60, 100)  # columns, the least and the most


def split_help(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the group that `--help=GROUP` asks for ("" for none), and `--help` in its place."""
    group, rest = "", []
    for argument in arguments:
        flag = "-" + argument if argument.startswith("-help=") else argument
        if flag.startswith(FLAG):
            group = flag.removeprefix(FLAG) or "''"
            flag = FLAG.removesuffix("=")
        rest.append(flag)
    return group, rest


def help_text(parser: Parser, config_file: str, overrides: Sequence[str], group: str = "") -> str:
    """Returns the help: of everything, or of one group of fields.

    Args:
      parser: of the command's other flags.
      config_file: the config whose values are shown.
      overrides: of its fields.
      group: a group of fields, or one field; '' for all.

    Raises:
      SpecError: there is no such group or field, or the config is wrong.
    """
    groups = _chosen(field_groups(), group)
    values = flatten(load_config(config_file, overrides).to_dict())
    width = min(max(shutil.get_terminal_size().columns, WIDTHS[0]), WIDTHS[1])
    parts = []
    if not group:
        parts += [parser.format_help().rstrip()]
        lines = [f"  {line}" for line in listing(with_variants=False)]
        parts += ["\n".join(["experiments that the package brings:", *lines])]
        about = (
            f"fields, with their values in {printable(config_file)}. Another value of one that is "
            "part of the identity makes another experiment; others of a run that has begun may "
            "change."
        )
        parts += [textwrap.fill(about, width)]
    for one in groups:
        parts.append("\n".join(_group(one, values, width)))
    if not group and (own := _others(groups, values)):
        lines = [f"  --config.{name}={value!r}" for name, value in own.items()]
        parts.append("\n".join([f"other fields of {printable(config_file)}:", *lines]))
    return "\n\n".join(parts)


def _chosen(groups: Sequence[FieldGroup], wanted: str) -> list[FieldGroup]:
    """Returns the groups to tell of: all, the one called so, or the one field of that name."""
    wanted = wanted.removeprefix("config.")
    if not wanted:
        return list(groups)
    found = [one for one in groups if one.name == wanted]
    for one in groups:
        fields = {name: d for name, d in one.fields.items() if name == wanted}
        found += [one._replace(fields=fields)] if fields else []
    if not found:
        names = {name for one in groups for name in one.fields}
        known = names if "." in wanted else {one.name for one in groups} | names
        close = nearest(wanted, known).partition(" accepted:")[0]
        hint = f"{close} " if close.startswith("did you mean") else ""
        raise SpecError(
            f"--help={wanted}: no such group; {hint}accepted: "
            + ", ".join(one.name for one in groups)
        )
    return found


def _group(group: FieldGroup, values: Mapping[str, Any], width: int) -> Iterable[str]:
    yield f"{group.name}: {group.means}"
    for name, declaration in group.fields.items():
        default = default_of(declaration)
        shown = "…" if "<" in name else repr(values.get(name, declaration.default))
        yield f"  --config.{name}" + (f"={shown}" if default else ".…")
        facts = [type_of(declaration)]
        if default:
            facts += [f"accepted: {declaration.accepted}", f"default: {default}"]
        facts += ["part of the identity"] if declaration.identity else []
        for text in (declaration.means, "; ".join(facts)):
            yield from textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _others(groups: Iterable[FieldGroup], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of fields that no group declares: options of branches, of a source."""
    known = {name for group in groups for name in group.fields}
    known |= {group.name for group in groups if group.name != EXPERIMENT}
    return {name: value for name, value in values.items() if name not in known}
