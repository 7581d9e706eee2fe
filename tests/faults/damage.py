"""What happens to files: flipped bits, lost ends, edits, and other things in their place."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[random.Random, Path], str]


def flip(rng: random.Random, file: Path) -> str:
    """Flips one bit."""
    content = bytearray(file.read_bytes())
    if not content:
        return "an empty file stays"
    at, bit = rng.randrange(len(content)), rng.randrange(8)
    content[at] ^= 1 << bit
    file.write_bytes(content)
    return f"bit {bit} of byte {at}"


def cut(rng: random.Random, file: Path) -> str:
    """Takes the end of a file away."""
    size = file.stat().st_size
    left = rng.choice([0, size // 2, max(size - 1, 0), rng.randrange(size + 1)])
    os.truncate(file, left)
    return f"cut to {left} of {size} bytes"


def edit(rng: random.Random, file: Path) -> str:
    """Changes what stands in a file as a person or a program would."""
    content = file.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    if file.suffix == ".csv" and text.count("\n") > 1:
        return _edit_table(rng, file, text)
    if text:
        return _edit_text(rng, file, text)
    at = rng.randrange(max(len(content), 1))
    block = rng.choice([b"", bytes(64), content[: rng.randrange(1, 65)]])
    file.write_bytes(content[:at] + block + content[at + rng.choice([0, len(block)]) :])
    return f"{len(block)} bytes at {at}"


def _edit_table(rng: random.Random, file: Path, text: str) -> str:
    header, *rows = text.splitlines(keepends=True)
    index = rng.randrange(len(rows))
    what = rng.choice(["digit", "drop", "twice", "swap", "cell", "other newline", "mark", "blank"])
    if what == "digit":
        spots = [m.start() for m in re.finditer("[0-9]", rows[index])]
        spot = rng.choice(spots)
        rows[index] = rows[index][:spot] + rng.choice("0123456789") + rows[index][spot + 1 :]
    elif what == "drop":
        del rows[index]
    elif what == "twice":
        rows.insert(index, rows[rng.randrange(len(rows))])
    elif what == "swap":
        other = rng.randrange(len(rows))
        rows[index], rows[other] = rows[other], rows[index]
    elif what == "cell":
        cells = rows[index].rstrip("\n").split(",")
        cells[rng.randrange(len(cells))] = rng.choice(["", "7.5", "nan", "-1", "1e999", "x", "inf"])
        rows[index] = ",".join(cells) + "\n"
    whole = "".join([header, *rows])
    if what == "other newline":
        whole = whole.replace("\n", "\r\n")
    if what == "mark":  # a byte-order mark, as a spreadsheet writes it
        whole = "\ufeff" + whole
    if what == "blank":
        whole += "\n"
    file.write_bytes(whole.encode())
    return f"{what}, row {index}"


def _edit_text(rng: random.Random, file: Path, text: str) -> str:
    what = rng.choice(["digit", "value", "key", "hostile"])
    if what != "digit" and file.suffix == ".json":
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict) and value:
            done = edit_object(rng, value, what)
            file.write_text(json.dumps(value))
            return done
    spots = [m.start() for m in re.finditer("[0-9a-f]", text)] or [0]
    spot = rng.choice(spots)
    file.write_text(text[:spot] + rng.choice("0123456789abcdef") + text[spot + 1 :])
    return f"character {spot}"


def edit_object(rng: random.Random, whole: dict[str, Any], what: str) -> str:
    """Changes one entry of a JSON object, however deep: takes its `key` away, or gives it another
    plain `value` or a `hostile` one."""
    node: Any = whole
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
            node = node[key]
        else:
            break
    if what == "key":
        del node[key]
    else:
        plain = [0, -1, 2**70, "", "x", None, [], {}, True, 1.5]
        hostile = ["\x1b[2J", "../../x", {"a": {"a": {}}}, [[]] * 1000, float("nan"), "x" * 5000]
        node[key] = rng.choice(plain if what == "value" else hostile)
    return f"{what} {key}"


def replace(rng: random.Random, file: Path) -> str:
    """Puts something else in a file's place."""
    what = rng.choice(["folder", "nowhere", "loop", "pipe", "noise", "nothing", "zeros", "device"])
    content = file.read_bytes()
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "nowhere":
        file.symlink_to(file.with_name("nowhere"))
    elif what == "loop":
        file.symlink_to(file)
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "noise":
        file.write_bytes(rng.randbytes(rng.choice([1, 100, len(content)])))
    elif what == "zeros":
        file.write_bytes(bytes(len(content)))
    elif what == "device":
        file.symlink_to("/dev/full")
    return what


def exchange(rng: random.Random, file: Path) -> str:
    """Takes a file of the same name from elsewhere in the run: another level's or replicate's."""
    root = next(parent for parent in file.parents if (parent / "spec.json").exists())
    others = [one for one in root.rglob(file.name) if one.is_file() and one != file]
    if not others:
        return cut(rng, file)
    other = rng.choice(others)
    if rng.random() < 0.5 and file.parent.parent.name.startswith("replicate_"):
        shutil.rmtree(file.parent)
        shutil.copytree(other.parent, file.parent)
        return f"the folder of {other.relative_to(root)}"
    shutil.copyfile(other, file)
    return f"that of {other.relative_to(root)}"


DAMAGES: dict[str, Damage] = {
    "bit flip": flip,
    "truncation": cut,
    "plausible edit": edit,
    "something else": replace,
    "exchange": exchange,
}
