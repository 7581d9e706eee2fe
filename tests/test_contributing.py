"""CONTRIBUTING's map is the house as it stands."""

import re
from pathlib import Path

import lth_jax

PACKAGE = Path(lth_jax.__file__).parent
TEXT = (PACKAGE.parent / "CONTRIBUTING.md").read_text()


def test_every_package_is_on_the_map_and_nothing_else_is():
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)/`", row.split("|")[1])}
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert named == there


def test_every_file_and_test_that_it_names_is_there():
    named = re.findall(r"`((?:lth_jax|tests|docs|lottery|training)/[\w/.]+)`", TEXT)
    assert named
    for name in named:
        assert (PACKAGE.parent / name).exists() or (PACKAGE / name).exists(), name


def test_no_more_than_four_modules_lie_beside_the_packages():
    flat = {path.stem for path in PACKAGE.glob("*.py")}
    assert flat == {"__init__", "__main__", "_version", "errors"}
