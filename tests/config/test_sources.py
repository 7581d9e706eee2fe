"""Fingerprints of a user's source: exact in code, blind to words and to what gives the fields."""

from pathlib import Path

import pytest

from lth_jax.config.files import read_config, read_rows
from lth_jax.config.sources import differences, gather

MAIN = '''"""My network."""
import numpy as np
import lth_jax
from scores import negative

WIDTH = 5
STEPS = "40"


def twice(x):
    """Doubles."""
    return np.abs(2 * x)  # the double


def _levels():
    return 3


MODELS = {"mine": lambda classes: (twice(WIDTH), classes)}
CRITERIA = {"negative": negative}


def get_config():
    config = lth_jax.default_config()
    config.train.steps = STEPS
    config.levels = _levels()
    return config
'''
SCORES = """import tools.signs


def negative(scoring):
    return tools.signs.flip(scoring)
"""
FILES = {
    "mine.py": MAIN,
    "scores.py": SCORES,
    "tools/__init__.py": "",
    "tools/signs.py": "from . import constants\n\ndef flip(x):\n    return constants.MINUS * x\n",
    "tools/constants.py": "MINUS = -1\n",
    "unused.py": "raise SystemExit\n",
}
ROOTS = ("MODELS", "CRITERIA")


@pytest.fixture
def digests(tmp_path):
    """The digests of the files, some of them changed."""

    def digests(**edits):
        for name, content in FILES.items():
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            old, new = edits.get(name.replace("/", "__").removesuffix(".py"), ("", ""))
            assert old in content
            file.write_text(content.replace(old, new) if old else content)
        return gather(tmp_path / "mine.py").digests(ROOTS)

    return digests


def changed(digests, **edits):
    return differences(digests(), digests(**edits), "mine.py", "mine.py")


def test_the_modules_beside_it_are_found_however_they_are_imported(digests):
    assert [*digests()] == sorted(set(FILES) - {"unused.py"})


@pytest.mark.parametrize(
    "edit",
    [
        ("  # the double", "  # twice as much"),
        ('"""Doubles."""', '"""Gives twice its argument."""'),
        ('"""My network."""', '"""A network."""'),
        ("np.abs(2 * x)", "(np.abs(2 *\n        x))"),
        ("\n\n\ndef twice", "\n\n\n\n# it doubles\ndef twice"),
        ("return 3", "return 5"),
        ('STEPS = "40"', 'STEPS = "400"'),
        ("    config.levels = _levels()\n", '    config.branches = ("reinit",)\n'),
    ],
)
def test_words_layout_and_fields_are_no_code(digests, edit):
    assert changed(digests, mine=edit) == []


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (("2 * x", "3 * x"), "twice"),
        (("2 * x", "2.0 * x"), "twice"),
        (("WIDTH = 5", "WIDTH = 6"), "WIDTH"),
        (("lambda classes: (twice", "lambda classes: (3 + twice"), "MODELS"),
        (("import numpy as np", "import jax.numpy as np"), "its imports"),
        (("config.train.steps = STEPS", "MODELS.clear()"), "its imports"),
        (("config.train.steps = STEPS", "global WIDTH; WIDTH = 7"), "its imports"),
        (("config.train.steps = STEPS", "lth_jax.WIDTH = 7"), "its imports"),
        (
            ("def twice", "import os\nos.environ['A'] = 'b'\ndef twice"),
            "its imports, its statement",
        ),
    ],
)
def test_code_counts_and_is_named(digests, edit, name):
    (found,) = changed(digests, mine=edit)
    assert found.startswith(f"mine.py: {name}")


def test_what_nobody_mentions_counts_where_names_may_be_computed(digests):
    added = "\ndef quiet():\n    return 3\n\n\nWIDTH = 5"
    assert changed(digests, mine=("WIDTH = 5", added)) == []
    computed = "WIDTH = getattr(lth_jax, 'WIDTH', 5)"
    before = digests(mine=("WIDTH = 5", computed))
    after = digests(mine=("WIDTH = 5", added.replace("WIDTH = 5", computed)))
    assert differences(before, after, "mine.py", "mine.py") == ["mine.py: quiet"]


def test_an_order_counts(digests):
    edit = ("WIDTH = 5\n", "print(1)\nWIDTH = 5\n")
    one = digests(mine=edit)
    other = digests(mine=("WIDTH = 5\n", "WIDTH = 5\nprint(1)\n"))
    assert differences(one, other, "mine.py", "mine.py") == ["mine.py: the order of its lines"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"scores": ("flip(scoring)", "flip(2 * scoring)")}, "scores.py: negative"),
        ({"tools__constants": ("-1", "-2")}, "tools/constants.py: MINUS"),
        (
            {"scores": ("import tools.signs", "import tools.signs, unused")},
            "scores.py: its imports",
        ),
    ],
)
def test_modules_beside_it_count(digests, edit, said):
    assert said in changed(digests, **edit)


def test_a_renamed_config_is_the_same(digests):
    there = digests()
    here = {{"mine.py": "ours.py"}.get(name, name): parts for name, parts in there.items()}
    assert differences(there, here, "mine.py", "ours.py") == []
    assert differences(there, here, "mine.py", "mine.py") == ["mine.py is gone", "ours.py is new"]


def test_what_another_file_uses_is_code(digests):
    """A constant that `get_config` uses, too, and that a module beside it imports."""
    edit = {"scores": ("import tools.signs", "import tools.signs, mine; mine.STEPS")}
    before = digests(**edit)
    after = digests(**edit, mine=('STEPS = "40"', 'STEPS = "400"'))
    assert differences(before, after, "mine.py", "mine.py") == ["mine.py: STEPS"]


def test_versions_of_python_write_the_same(tmp_path):
    """A golden value: of a digest that other versions of Python wrote into run directories."""
    file = tmp_path / "mine.py"
    file.write_text(
        "class A(B, c=1):\n    x: int = None\n    def f(self, *a, k=1e-3, **kw):\n"
        "        return [f'{x!r:>{w}}é' for x in a if x] or {**kw, 'a': ...}\n"
    )
    assert gather(file).digests(())["mine.py"]["A"] == "621acd1c0bafe137"


def test_a_module_is_found_where_its_name_is_computed(tmp_path):
    (tmp_path / "hidden.py").write_text("VALUE = 3\n")
    (tmp_path / "mine.py").write_text(
        "import importlib\nVALUE = importlib.import_module('hid' + 'den').VALUE\n"
        "import lth_jax\nget_config = lth_jax.default_config\n"
    )
    file = read_config(str(tmp_path / "mine.py"))
    assert [*file.sources.files] == ["hidden.py", "mine.py"]
    assert not (tmp_path / "__pycache__").exists()


def test_each_config_gets_the_modules_beside_itself(tmp_path):
    """Also where a module of that name was imported before, or was edited since."""
    for value, folder in ((1, "a"), (2, "b"), (3, "b")):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "beside_config.py").write_text(f"VALUE = {value}\n")
        (place / "mine.py").write_text("from beside_config import VALUE\n")
        assert read_rows(str(place / "mine.py")).namespace["VALUE"] == value


def test_nothing_of_a_package_is_one_s_own(tmp_path):
    installed = tmp_path / "venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "other.py").write_text("")
    (tmp_path / "mine.py").write_text("import venv.lib\n")
    assert [*gather(tmp_path / "mine.py", [installed / "other.py"]).files] == ["mine.py"]
    sources = gather(Path(__file__).parents[2] / "run.py")
    assert not [file for file in sources.files if file.startswith("lth_jax")]
