"""The source of a config file and of the modules beside it, and what of it makes its rows.

A fingerprint is of the code, exactly, and of nothing else:

- It is taken of the syntax tree, in a form that all versions of Python share. Comments, docstrings
  and the layout of lines are not in it: whoever explains a line better loses no run.
- `get_config` is left out, with the functions, constants and imports that it alone uses, or
  nobody. What it gives are fields, which are compared as such; `levels` may grow in the same file.
- So are `OBSERVERS`, which change no number, and `BRANCHES`, `MASK_RULES` and `LEARNED_MASKS`: a
  branch has a digest of its own, as branches may be added to a trunk that is trained.
- Everything else counts, whether or not a row seems to use it, in every file. Where names may be
  computed (`getattr`, `globals`, …), what nobody mentions counts too.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]
COPIES = "config"  # the folder of a run directory that keeps a copy
ROWS_LEFT_OUT = {"BRANCHES", "LEARNED_MASKS", "MASK_RULES", "OBSERVERS"}
ENTRIES = {"get_config", *ROWS_LEFT_OUT}
# file -> what it defines -> a digest; under "" that of the whole file, in its order.
Digests = Mapping[str, Mapping[str, str]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_EFFECTS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
# By these, code may use what it does not mention.
_COMPUTED = (
    "getattr", "globals", "locals", "vars", "eval", "exec", "__dict__", "__import__",
    "import_module", "modules", "inspect",
)  # fmt: skip
# What differs between versions of Python, or says nothing.
_LEFT_OUT = ("ctx", "kind", "type_comment", "type_ignores")


class Sources(NamedTuple):
    """A config file and the modules beside it that it imports, as they were read.

    Attributes:
      folder: where they are.
      main: the config file's name in it.
      files: path from the folder -> content, the config file among them.
    """

    folder: Path
    main: str
    files: Mapping[str, bytes]

    def digests(self, roots: Collection[str]) -> dict[str, dict[str, str]]:
        """Returns the digests of what makes the rows, file by file and definition by definition.

        Args:
          roots: the names that bring rows, such as `MODELS`: they always count.
        """
        statements = {file: _statements(content) for file, content in self.files.items()}
        kept = _without_entries([one for file in statements.values() for one in file], roots)
        found: dict[str, dict[str, str]] = {}
        for file, its_statements in statements.items():
            parts: dict[str, list[str]] = {"": []}
            for statement in its_statements:
                if statement in kept:
                    parts[""].append(statement.code)
                    parts.setdefault(statement.title, []).append(statement.code)
            found[file] = {title: _digest(codes) for title, codes in parts.items()}
        return found

    def row_digest(self, title: str, name: str) -> str:
        """Returns the digest of what makes one row: its value, and what that mentions in turn.

        Args:
          title: of the dict in the config file, such as `BRANCHES`.
          name: of the row.
        """
        statements = [one for content in self.files.values() for one in _statements(content)]
        value = _value_of(ast.parse(self.files[self.main]), title, name)
        wanted = {title} if value is None else set(_mentions(value))
        kept = {one for one in statements if not one.names}  # whatever they do, they do it always
        while more := {one for one in statements if one.names & wanted} - kept:
            kept |= more
            wanted.update(*(one.mentions for one in more))
        codes = [one.code for one in statements if one in kept]
        return _digest([_code(value), *codes])

    def mentions(self) -> frozenset[str]:
        """Returns the names that some statement uses, those aside that it defines itself."""
        statements = (one for content in self.files.values() for one in _statements(content))
        return frozenset().union(*(one.mentions - one.names for one in statements))


def gather(path: Path, loaded: Iterable[Path] = ()) -> Sources:
    """Reads a config file and the modules beside it: those that it imports, and these import.

    Imports count wherever they stand, also in a function that was not called yet.

    Args:
      path: the config file.
      loaded: the files of further modules, such as were imported by a computed name; those that
        are not in the config's folder, or are of a package that is installed there, are passed
        over.
    """
    folder = path.parent.resolve()
    main = folder / path.name
    files: dict[str, bytes] = {}
    todo = [main, *(file for file in loaded if is_beside(file, folder))]
    while todo:
        file = todo.pop(0)
        name = file.relative_to(folder).as_posix()
        if name not in files:
            files[name] = file.read_bytes()
            todo += _imported_beside(file, ast.parse(files[name]), folder)
    return Sources(folder, main.name, dict(sorted(files.items())))


def is_beside(file: Path, folder: Path) -> bool:
    """Tells whether a module lies in a config's folder and is the user's own."""
    if file.suffix != ".py" or not file.is_relative_to(folder) or file.is_relative_to(PACKAGE):
        return False
    return not {"site-packages", "dist-packages"} & {*file.relative_to(folder).parts}


def differences(old: Digests, new: Digests, old_main: str, new_main: str) -> list[str]:
    """Returns what differs as `file: names`, a line for each file; the config's name may differ."""
    there = {new_main if file == old_main else file: parts for file, parts in old.items()}
    found = []
    for file in sorted({*there, *new}):
        one, other = there.get(file), new.get(file)
        if one is None or other is None:
            found.append(f"{file} is {'new' if one is None else 'gone'}")
        elif one != other:
            names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
            named = [name for name in names if name] or ["the order of its lines"]
            more = f" and {len(named) - 3} more" if len(named) > 3 else ""
            found.append(f"{file}: {', '.join(named[:3])}{more}")
    return found


class _Statement(NamedTuple):
    """A statement at the top of a file.

    Attributes:
      title: what a person calls it; names: what it defines.
      mentions: the names in it, and the strings that could be names.
      optional: nothing happens if it is left out, provided that nobody uses its names.
      code: its syntax tree as text.
      place: of the statement in its file, so that two alike differ.
    """

    title: str
    names: frozenset[str]
    mentions: frozenset[str]
    optional: bool
    code: str
    place: tuple[str, int]


def _statements(content: bytes) -> list[_Statement]:
    tree = ast.parse(content)
    if "__doc__" not in set(_mentions(tree)):  # else somebody reads them
        _strip_docstrings(tree)
    names = [_names(node) for node in tree.body]
    top = frozenset().union(*names) if names else frozenset()
    assigned = frozenset(
        name
        for node, defined in zip(tree.body, names, strict=True)
        if not isinstance(node, (*_FUNCTIONS, ast.Import, ast.ImportFrom))
        for name in defined
    )
    key = hashlib.sha256(content).hexdigest()
    return [
        _Statement(
            title=_title(node, defined),
            names=defined,
            mentions=frozenset(_mentions(node)),
            optional=_is_optional(node) and not _changes(node, top, assigned),
            code=_code(node),
            place=(key, number),
        )
        for number, (node, defined) in enumerate(zip(tree.body, names, strict=True))
    ]


def _value_of(tree: ast.Module, title: str, name: str) -> ast.expr | None:
    """Returns what stands for `name` in the dict `title`; None where it is not written as one."""
    for node in tree.body:
        if title in _names(node) and isinstance(value := getattr(node, "value", None), ast.Dict):
            for key, row in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    return row
    return None


def _without_entries(statements: list[_Statement], roots: Collection[str]) -> set[_Statement]:
    """Returns the statements but for `ENTRIES`, and what these alone use or nobody."""
    kept = set(statements)
    uses = Counter([*roots])
    for statement in kept:
        uses.update(statement.mentions - statement.names)
    computed = any(uses[name] for name in _COMPUTED)
    suspects = {s for s in kept if ENTRIES & s.names or not computed}
    changed = True
    while changed:
        changed = False
        for statement in suspects & kept:
            if statement.optional and not any(uses[name] for name in statement.names):
                kept.remove(statement)
                uses.subtract(statement.mentions - statement.names)
                suspects |= {s for s in kept if s.names & statement.mentions}
                changed = True
    return kept


def _names(node: ast.stmt) -> frozenset[str]:
    """Returns the names that a statement defines."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return frozenset({node.name})
    if isinstance(node, ast.Import):
        return frozenset(one.asname or one.name.partition(".")[0] for one in node.names)
    if isinstance(node, ast.ImportFrom):
        return frozenset(one.asname or one.name for one in node.names)
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return frozenset(n.id for n in stored if isinstance(n.ctx, ast.Store))


def _title(node: ast.stmt, names: frozenset[str]) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "its imports"
    return ", ".join(sorted(names)) or "its statements"


def _mentions(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            yield one.id
        elif isinstance(one, ast.Attribute):
            yield one.attr
        elif isinstance(one, ast.alias):
            yield from one.name.split(".")
        elif isinstance(one, ast.Constant) and str(one.value).isidentifier():
            yield str(one.value)


def _is_optional(node: ast.stmt) -> bool:
    """Tells whether a statement does no more than to give names to things."""
    if isinstance(node, _FUNCTIONS):
        defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        return not node.decorator_list and not any(map(_has_effects, defaults))
    if isinstance(node, ast.Import | ast.ImportFrom):
        return all(one.name != "*" for one in node.names)
    if isinstance(node, ast.ClassDef):
        return _is_observer(node)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        plain = all(isinstance(target, ast.Name) for target in targets)
        rows = isinstance(node.value, ast.Dict) and _names(node) <= ROWS_LEFT_OUT
        return plain and (rows or not (node.value and _has_effects(node.value)))
    return False


def _is_observer(node: ast.ClassDef) -> bool:
    """Tells whether a class is a plain `Observer`: any other may change something when made."""
    bases = [base.attr if isinstance(base, ast.Attribute) else base for base in node.bases]
    names = [base.id if isinstance(base, ast.Name) else base for base in bases]
    plain = not node.decorator_list and not node.keywords and names == ["Observer"]
    return plain and all(_is_optional(one) or _is_text(one) for one in node.body)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _has_effects(node: ast.expr) -> bool:
    return any(isinstance(one, _EFFECTS) for one in ast.walk(node))


def _changes(node: ast.stmt, top: frozenset[str], assigned: frozenset[str]) -> bool:
    """Tells whether a function changes what others see: a global name, or an object behind one."""
    if not isinstance(node, _FUNCTIONS):
        return False
    parts = list(ast.walk(node))
    local = {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    local |= {n.arg for n in parts if isinstance(n, ast.arg)}

    def base(part: ast.AST) -> str:
        while isinstance(part, ast.Attribute | ast.Subscript):
            part = part.value
        return part.id if isinstance(part, ast.Name) and part.id not in local else ""

    def changes(part: ast.AST) -> bool:
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            return base(part.func) in assigned
        if isinstance(part, ast.Attribute | ast.Subscript):
            return not isinstance(part.ctx, ast.Load) and base(part) in top
        return isinstance(part, ast.Global)

    return any(map(changes, parts))


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    del node.body[0]


def _code(node: Any) -> str:
    """Returns a syntax tree as text: like `ast.dump`, the same under every version of Python."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some of its parts with an empty one
        values = [v for v in node.values if getattr(v, "value", None) != ""]
        return f"JoinedStr({_code(values)})"
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={_code(value)}"
            for name, value in ast.iter_fields(node)
            if name not in _LEFT_OUT
            and (isinstance(node, ast.Constant) or (value is not None and value != []))
        ]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_code, node))}]"
    return ascii(node)


def _digest(codes: list[str]) -> str:
    return hashlib.sha256(json.dumps(codes).encode()).hexdigest()[:16]


def _imported_beside(file: Path, tree: ast.Module, folder: Path) -> Iterator[Path]:
    """Yields the files in `folder` that a module's imports name, and those of their packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(folder, one.name.split(".")) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = folder
            if node.level:
                start = file.parents[node.level - 1]
            module = node.module.split(".") if node.module else []
            wanted = [(start, [*module, one.name]) for one in node.names]
        else:
            continue
        for place, parts in wanted:
            for end in range(len(parts) + 1):
                module_file = place.joinpath(*parts[:end])
                found = [module_file / "__init__.py"] if end or place != folder else []
                found += [module_file.with_suffix(".py")] if end else []
                for one in found:
                    if is_beside(one, folder) and one.is_file():
                        yield one
