"""The commands that README, docs, docstrings and examples show, and how each of them is tried.

A command stands in a block: of a page, fenced or indented, or of a docstring. In the middle of a
sentence it is a mention, which may lack what it needs; its flags must be there all the same.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
SOURCES = tuple(
    path
    for folder in ("lth_jax", "configs", "examples", "benchmarks")
    for path in sorted(ROOT.joinpath(folder).rglob("*"))
    if path.suffix in (".py", ".md")
)
PROGRAMS = "lth-jax|python|pip|tensorboard|ruff|pyright|lint-imports|clang-format|srun|scontrol"

# What no test calls, and why.
LEFT_OUT = {
    r"pip install": "it needs a network; tests install the wheel, CI what the requirements name",
    r"python -m venv|\. \.venv": "CI begins with it",
    r"python -m pytest": "it is what runs this",
    r"ruff|pyright|lint-imports|clang-format": "CI's lint",
    r"python -m sphinx": "CI's site, which has requirements of its own",
    r"tensorboard": "TensorBoard is no requirement; tests/report reads what it would read",
    r"python examples/pytorch_networks\.py": "needs PyTorch, as tests/export/test_pytorch.py does",
    r"lth-jax (sweep|report runs/rates)": (
        "some need a cluster; tests/docs looks its flags up, tests/cli runs sweeps"
    ),
    r"lth-jax connect": "it needs networks that are kept; tests/cli/test_connect.py makes them",
    r"python examples/seed_grid\.py": "takes hours; tests/examples runs a cell of it",
}
# What takes minutes to hours: the file and the flags that are shown are looked up in it.
MINUTES = r"python (benchmarks/\w+\.py|tests/native/sanitize\.py|-m (?:tests|docs)\.\w+)"


class Shown(NamedTuple):
    """A command as the installed package has it, and where it is shown."""

    words: tuple[str, ...]
    place: str

    def __str__(self):
        return shlex.join(self.words)

    @property
    def kind(self):
        """How it is tried: one of `experiment`, `command`, `example`, `minutes`, `left out`."""
        text = " ".join(self.words)
        if any(re.match(pattern, text) for pattern in LEFT_OUT):
            return "left out"
        if re.match(MINUTES, text):
            return "minutes"
        if text.startswith("lth-jax"):
            return "experiment" if self.words[1:2] == ("run",) else "command"
        return "example" if re.match(r"python examples/\w+\.py", text) else ""


def commands():
    """Every command that is shown in a block, once."""
    return _each(_blocks)


def mentions():
    """Every command within a sentence, once."""
    return _each(_sentences)


def experiments():
    """The arguments of every `run` that is shown, or mentioned with a config."""
    shown = [one for one in commands() if one.kind == "experiment"]
    return list(dict.fromkeys(one.words[2:] for one in shown))


def _each(lines):
    found = {}
    for path in (*PAGES, *SOURCES):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in lines(path, text):
            for part in re.split(r" && (?!scontrol)|; ", re.sub(r"\s+#.*", "", line)):
                words = _words(part)
                if words:
                    place = path.relative_to(ROOT).as_posix()
                    found.setdefault(words, Shown(words, place))
    return list(found.values())


def _blocks(path, text):
    if path.suffix == ".md":
        fenced = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.S)
        yield from "".join(fenced).splitlines()
        text = re.sub(r"```.*?```", "", text, flags=re.S)
    indent = " {4,}" if path.suffix == ".md" else " *"
    yield from re.findall(rf"^{indent}((?:{PROGRAMS})(?: .*|))$", text, re.M)


def _sentences(path, text):
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    for line in re.findall(r"`((?:lth-jax|python)(?: [^`]+|))`", text):
        yield " ".join(line.split())


def _words(line):
    """The words of a command as the installed package is called, without where output goes."""
    text = re.sub(r"^srun (?:--\S+ )*", "", line.strip())
    if text.startswith("#"):
        return (text,)
    text = re.sub(r" \d?> ?\S+$", "", text)
    text = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", text)  # what it is told by its environment
    text = re.sub(r"\bpython run\.py", "lth-jax run", text)
    text = re.sub(r"\bpython -m lth_jax\b", "lth-jax", text)
    return tuple(shlex.split(text))
