"""How a field of the spec is declared, and how a value that a user gives for it is read.

A group of fields is a frozen dataclass. Each field says beside its type and default what it means,
what is accepted and how that is checked; `declared` gives these declarations to whoever documents
them. What judges several fields together stands in the `rules` of their group.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from lth_jax.errors import SpecError, nearest, shown

# Steps (`5000`) or epochs (`40ep`). It is a string, so that the command line takes both.
Duration = Annotated[str, "duration"]
# What a field of a user's own may be; `own_fields.wrong` judges it.
OwnValue = Annotated[Any, "own"]
# (whether it holds, the field, its value, what is accepted), as the `rules` of a group give them.
Rule = tuple[bool, str, Any, str]

_DURATION = re.compile(r"0*([0-9]{1,10})(ep)?")
MOST_STEPS = 2**31 - 1  # the compiled loop counts them in 32 bits
_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What is known of one field.

    Attributes:
      default: the value of a config that does not name the field. The identity of old runs depends
        on it: it never changes.
      means: one sentence for people.
      accepted: which values are accepted, in words that end an error message.
      check: whether a value of the right type is accepted.
      identity: whether another value makes another experiment.
      unit: what a number counts, empty for plain numbers.
      unset: which values are read as None, for configs and runs from before None could be given.
      kind: the type's name.
    """

    default: Any
    means: str
    accepted: str
    check: Callable[[Any], bool]
    identity: bool
    unit: str
    unset: Callable[[Any], bool] | None
    kind: str = ""


def field(
    default: Any,
    means: str,
    *,
    accepted: str = "",
    check: Callable[[Any], bool] = lambda _: True,
    identity: bool = True,
    unit: str = "",
    unset: Callable[[Any], bool] | None = None,
) -> Any:
    """Declares a field of a group; see `Declaration`. Without `accepted`, every one of its type."""
    accepted = accepted or _WORDS.get(type(default), "a group of fields")
    declaration = Declaration(default, means, accepted, check, identity, unit, unset)
    metadata = {"declaration": declaration}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def choice(
    default: str | None,
    choices: Sequence[str],
    means: str,
    *,
    none: str = "",
    identity: bool = True,
) -> Any:
    """Declares a field that takes one of a few words.

    Args:
      default: one of them, or None.
      choices: the words.
      means: as in `field`.
      none: what None stands for, of a field that may be None.
      identity: as in `field`.
    """
    return field(
        default,
        means,
        accepted=" or ".join(choices) + (f", or None for {none}" if none else ""),
        check=lambda value: value in choices,
        identity=identity,
    )


def declared(group: type, prefix: str = "", identity: bool = True) -> dict[str, Declaration]:
    """Returns the declaration of every field of `group` and of the groups in it, by dotted name."""
    found = {}
    for one in dataclasses.fields(group):
        declaration = one.metadata["declaration"]
        covered = identity and declaration.identity
        if dataclasses.is_dataclass(declaration.default):
            found |= declared(type(declaration.default), f"{prefix}{one.name}.", covered)
        else:
            kind = one.type if isinstance(one.type, str) else repr(one.type)
            found[prefix + one.name] = dataclasses.replace(declaration, identity=covered, kind=kind)
    return found


# Checks of numbers. Each is False for NaN and for infinity, or a run would only fail later.


def between(least: float, most: float, *, zero: str = "", none: str = "") -> dict[str, Any]:
    """Returns the `accepted` and `check` of a field for numbers from `least` to `most`, both in.

    Args:
      least, most: the bounds.
      zero: what 0 means, where it is no plain number.
      none: what None stands for, of a field that may be None.
    """
    first, last = map(plain, (least, most))
    accepted = f"{first} ({zero}) to {last}" if zero else f"{first} to {last}"
    accepted += f", or None for {none}" if none else ""
    return {"accepted": accepted, "check": within(least, most)}


def plain(number: float) -> str:
    """Returns a number for people: `1,000`, `0.001`, `1e30`."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}".replace("+", "")


def within(least: float, most: float) -> Callable[[float], bool]:
    """Returns a check for numbers from `least` to `most`, both included."""
    return lambda value: least <= value <= most


def below_one(value: float) -> bool:
    """Whether `value` is 0 or more, and below 1."""
    return 0 <= value < 1


def each(check: Callable[[Any], bool]) -> Callable[[Sequence[Any]], bool]:
    """Returns a check for tuples, all of whose elements pass `check`."""
    return lambda values: all(map(check, values))


def is_duration(value: str) -> bool:
    """Whether `value` is a number of steps or epochs; no step is one too."""
    match = _DURATION.fullmatch(value)
    return match is not None and int(match[1]) <= MOST_STEPS


def is_some_duration(value: str) -> bool:
    """Whether `value` is a duration of at least one step."""
    return is_duration(value) and value.removesuffix("ep").strip("0") != ""


def duration_steps(duration: str, steps_per_epoch: int) -> int:
    """Returns a duration in steps: `5000` is 5000, `40ep` is 40 × `steps_per_epoch`."""
    match = _DURATION.fullmatch(duration)
    assert match, f"unvalidated duration {duration!r}"
    return int(match[1]) * (steps_per_epoch if match[2] else 1)


# Reading.


def read(group: type, values: Any, prefix: str = "") -> Any:
    """Returns the `group` that `values`, a `ConfigDict` or mapping, describe; all is checked.

    Args:
      group: the dataclass. A field that `values` lack gets its default.
      values: name -> value, or nested mapping.
      prefix: what stands before the fields' names in error messages, such as `train.`.

    Raises:
      SpecError: a field is unknown, or a value wrong; one line names both and what is accepted.
    """
    kinds = typing.get_type_hints(group, include_extras=True)
    given = _mapping(values, prefix.removesuffix("."))
    for name in given:
        if name not in kinds:
            raise SpecError(
                f"config.{prefix}{_shown(name)}: no such field; {nearest(str(name), kinds)}"
            )
    declarations = {one.name: one.metadata["declaration"] for one in dataclasses.fields(group)}
    made = group(**{
        name: _read_field(declarations[name], kinds[name], value, prefix + name)
        for name, value in given.items()
    })  # fmt: skip
    rules: Callable[[], Iterator[Rule]] = getattr(made, "rules", lambda: iter(()))
    for holds, name, value, accepted in rules():
        if not holds:
            raise _refused(prefix + name, value, accepted)
    return made


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if hasattr(value, "keys"):  # a `ConfigDict` is no `Mapping`
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def plain_kind(kind: Any) -> Any:
    """Returns what `kind` is besides None, as a class where it is one: `float` of `float | None`.

    A `Duration` is a `str` here.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _read_field(declaration: Declaration, kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return read(typing.cast(type, kind), value, f"{name}.")
    if typing.get_origin(kind) is Mapping:
        element = typing.get_args(kind)[1]
        entries = _mapping(value, name)
        if element is Any:
            return flatten(entries)
        if element == OwnValue:  # what was recorded has lists for tuples
            return {k: tuple(v) if isinstance(v, list) else v for k, v in flatten(entries).items()}
        return {key: read(element, entries[key], f"{name}.{_shown(key)}.") for key in entries}
    typed = _typed(kind, value, name, declaration.accepted)
    if declaration.unset and typed is not None and declaration.unset(typed):
        return None
    if typed is not None and not declaration.check(typed):
        raise _refused(name, typed, declaration.accepted)
    return typed


def _typed(kind: Any, value: Any, name: str, accepted: str) -> Any:
    """Returns `value` as `kind`: an int passes as a float and as a duration, nothing else does."""
    optional = types.NoneType in typing.get_args(kind)
    if optional:
        if value is None:
            return None
        (kind,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
    number = isinstance(value, int) and not isinstance(value, bool)
    if kind == Duration and number:
        return str(value) if abs(value) <= MOST_STEPS else shown(value)  # Python writes not all
    if kind is float and number:
        with contextlib.suppress(OverflowError):
            return float(value)
    simple = plain_kind(kind)
    if simple in _WORDS:
        if isinstance(value, simple) and (simple is bool or not isinstance(value, bool)):
            return _text(value, name) if isinstance(value, str) else value
        raise _refused(name, value, _WORDS[simple] + (" or None" if optional else ""))
    element = typing.get_args(kind)[0]
    if typing.get_origin(element) is tuple:
        return _pairs(element, value, name, accepted)
    return _sequence(element, value, name)


def _text(value: str, name: str) -> str:
    """Returns a string without the blanks around it; it is to be shown, and to be written."""
    text = value.strip()
    if not text.isprintable():
        raise _refused(name, value, "characters that can be printed")
    return text


def _sequence(element: type, value: Any, name: str) -> tuple:
    """Returns a tuple of `element`; strings within are split at commas (`reinit,random_mask`)."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, tuple | list):
        raise _refused(name, value, "a tuple, such as () or (1, 2)")
    if element is str and all(isinstance(part, str) for part in value):
        return tuple(word for part in value for word in re.split(r"[,\s]+", part) if word)
    return tuple(_typed(element, part, name, "") for part in value)


def _pairs(pair_kind: Any, value: Any, name: str, accepted: str) -> tuple[tuple[str, float], ...]:
    """Returns (string, number) pairs."""
    if not isinstance(value, tuple | list):
        raise _refused(name, value, accepted)
    first_kind, second_kind = typing.get_args(pair_kind)
    pairs = []
    for pair in value:
        whole = isinstance(pair, tuple | list) and len(pair) == 2
        first = pair[0] if whole else None
        if first_kind == Duration and type(first) is int:
            first = str(first) if abs(first) <= MOST_STEPS else shown(first)
        if not isinstance(first, str):
            raise SpecError(f"config.{name}: {shown(pair)} is no pair; accepted: {accepted}")
        pairs.append((first, _typed(second_kind, pair[1], name, accepted)))
    return tuple(pairs)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not hasattr(value, "keys"):
        raise _refused(name, value, "a group of fields")
    return value


def _shown(name: Any) -> str:
    """Returns a name that a user gave, quoted where it would not read as one."""
    plain = isinstance(name, str) and re.fullmatch(r"[\w.+-]{1,60}", name)
    return name if plain else shown(name)


def _refused(name: str, value: Any, accepted: str) -> SpecError:
    return SpecError(f"config.{name}={shown(value)}: accepted: {accepted}")
