"""The pages of the site are true: what they run runs, and what the code has is in them."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import lth_jax
from docs import draw_concepts
from lth_jax.analysis.verdicts import Standard, verdict_of
from lth_jax.cli import run, sweep
from lth_jax.config import TRANSFERS, BranchSpec, Spec, declared, from_config
from lth_jax.config.files import DEFAULT, load_config, split_arguments
from lth_jax.lottery.branches import BRANCHES
from lth_jax.models import MODELS
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.store.tables import CURVATURE, CURVES, PATHS, RESULTS
from lth_jax.sweep.grid import cells_of
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES
from lth_jax.training.tasks import TASKS

from ..registries import kept_registries

ROOT = Path(__file__).parents[2]
DOCS, PACKAGE = ROOT / "docs", ROOT / "lth_jax"
PAGES = sorted(path for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def generate():
    """The module that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_field_of_the_config_is_in_its_reference(generate):
    page = generate.config()
    options = declared(BranchSpec, "branch.<name>.")
    for name, declaration in (declared(Spec) | options).items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert line.count(" | ") == 5
        assert line.endswith("| yes |" if declaration.identity else "| no |")


def test_every_row_of_a_registry_is_said_what_it_is(generate):
    page = generate.registries()
    said = {}
    for name in (*CRITERIA, *BRANCHES, *MASK_RULES, *OPTIMIZERS, *SCHEDULES, *MODELS):
        row = re.search(rf"^\| `{name}` \| (\S+ .*[.)`].*) \|$", page, re.MULTILINE)
        assert row, name
        alike = said.setdefault(row[1], name)
        # Conv-2 has two names.
        assert {alike, name} in ({name}, {"conv2", "lenet5_wide"}), f"{name} reads as {alike} does"
    assert "et al. |" not in page
    how_to = (DOCS / "how_to.md").read_text(encoding="utf-8")
    for name, task in TASKS.items():
        (line,) = re.findall(rf"^\| `{name}` \| (?:\w.*)\|$", how_to, re.MULTILINE)
        assert f"| `{name}` | " in page
        for metric in task.metrics:
            assert f"`{metric.name}`" in line
            assert f"`{metric.name}`" in page


def test_every_public_name_is_in_the_api_reference(generate):
    page = generate.api()
    for name in set(lth_jax.__all__) - {"__version__"}:
        assert f"## `{name}`" in page
        assert getattr(lth_jax, name).__doc__


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("`results.csv`", RESULTS),
        ("Curves", CURVES),
        ("`paths.csv`", PATHS),
        ("Curvature", CURVATURE),
    ],
)
def test_every_column_of_a_table_is_explained(heading, table):
    page = (DOCS / "run_directory.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}")[1].split("## ")[0]
    named = re.findall(r"`(\w+)`", "".join(first_cells(section)))
    assert tuple(named) == table.columns


def first_cells(text):
    """What stands in the first column of the tables of a text, their heads included."""
    return re.findall(r"^\| (`.*?|.*?) \|", text, re.MULTILINE)


def test_what_is_looked_up_by_its_message_is_said_somewhere():
    """The fragments of messages in the first column of the troubleshooting page."""
    code = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # parts of a string on several lines
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    fragments = re.findall(r"`(.*?)`", " ".join(first_cells(page)))
    shells = {"command not found: lth-jax"}
    ours = set(fragments) - shells - {"reinit", "--config="}
    assert len(ours) > 25
    assert [fragment for fragment in ours if fragment not in code] == []


def test_the_verdicts_of_the_concepts_are_those_of_their_differences():
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([−\d., ]+) \| .*? \| \*\*(\w+)\*\*", page, re.MULTILINE)
    standard = Standard()
    for text, verdict in rows:
        points = np.array([float(x) for x in text.replace("−", "-").split(",")]) / 100
        mean, half = points.mean(), half_width(points, standard)
        assert verdict_of(mean - half, mean + half, standard).name.lower() == verdict
    assert [verdict for _, verdict in rows] == ["matches", "below", "undecided"]


def half_width(points, standard):
    """Of a one-sided t-interval of the mean, reckoned apart from the code."""
    error = points.std(ddof=1) / len(points) ** 0.5
    return error * scipy.stats.t.ppf(standard.confidence, len(points) - 1)


def test_the_picture_of_the_concepts_is_what_its_script_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(draw_concepts, "TARGET", tmp_path / "concepts.svg")
    layer = draw_concepts.layer()
    gone = np.isnan(layer["ticket"])
    assert gone.sum() == gone.size // 2
    assert np.array_equal(gone, np.isnan(layer["reinit"]))
    assert np.array_equal(layer["ticket"][~gone], layer["initial"][~gone])
    other = ~np.isnan(layer["random_mask"])
    assert other.sum() == (~gone).sum()
    assert np.array_equal(layer["random_mask"][other], layer["initial"][other])
    draw_concepts.main()
    assert (tmp_path / "concepts.svg").stat().st_size > 10_000


def test_the_comparison_counts_what_there_is():
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    controls = set(BRANCHES) - set(TRANSFERS)
    assert f"| {len(controls)} branches |" in page
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count(" |") for line in table.splitlines()}) == 1


def test_every_page_is_in_the_table_of_contents():
    contents = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {line for block in re.findall(r"```\{toctree\}\n(.*?)```", contents, re.S)
              for line in block.splitlines()}  # fmt: skip
    assert {path.stem for path in PAGES} - {"index"} <= listed


def test_what_the_page_of_the_library_lists_is_public():
    page = (DOCS / "library.md").read_text(encoding="utf-8")
    table = page.split("| name | what it does |")[1].split("\n\n")[0]
    names = re.findall(r"`(\w+)\(", " ".join(first_cells(table)))
    assert len(names) > 10
    assert set(names) <= set(lth_jax.__all__)


@pytest.fixture
def registries():
    """The registries, as they were before, after the test."""
    with kept_registries():
        yield


class Wandb:
    """What the page uses of it."""

    def __init__(self):
        self.config, self.logged, self.finished = {}, [], False

    def init(self, project, config):
        self.config = config
        return self

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.mark.slow
def test_the_rows_of_the_how_tos_are_an_experiment(tmp_path, monkeypatch, capsys, registries):
    """One of every kind, in one config: it trains, and Weights & Biases hears of it."""
    text = (DOCS / "how_to.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    file = tmp_path / "mine.py"
    last = "neutral = get_config\n\ndef get_config():\n    config = neutral()\n"
    last += "    with_branches(config)\n    return config\n"
    file.write_text("\n\n".join([*blocks, last]))
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("lth_jax.report.figures.FIGURES", {})
    fields = {
        "data.name": "stripes", "pruning.criterion": "kept_and_moved", "levels": 1,
        "replicates": 1, "train.optimizer": "clipped_lion", "train.schedule": "halved",
        "train.steps": 4, "eval.every": 2, "custom.depth": 2, "custom.times": 2, "custom.b1": 0.8,
        "branch.half.custom.factor": 0.4,
    }  # fmt: skip
    changes = [f"--config.{name}={value}" for name, value in fields.items()]
    assert run.main([str(file), *changes, f"--workdir={tmp_path / 'run'}"]) == 0
    assert wandb.finished
    assert wandb.config["custom"] == {"depth": 2, "times": 2, "b1": 0.8}
    assert [[*values][1] for values in wandb.logged] == ["ticket", "ticket", "half", "tenth"]
    tenth, half = (wandb.config["branch"][name]["custom"]["factor"] for name in ("tenth", "half"))
    assert (tenth, half) == (0.1, 0.4)
    assert capsys.readouterr().err.count("warning") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "own"), [(0, "after"), (1, "sharpness")])
def test_what_is_one_s_own_in_sparse_training_is_an_experiment(tmp_path, registries, number, own):
    page = (DOCS / "sparse_training.md").read_text(encoding="utf-8")
    block = re.findall(r"```python\n(# mine\.py.*?)```", page, re.S)[number]
    (tmp_path / "mine.py").write_text(block)
    fields = {"train.steps": 120, "levels": 1, "replicates": 1, f"branch.mine.custom.{own}": 5}
    changes = [f"--config.{name}={value}" for name, value in fields.items()]
    workdir = tmp_path / "run"
    assert run.main([str(tmp_path / "mine.py"), *changes, f"--workdir={workdir}"]) == 0
    ticket, mine = RESULTS.from_csv((workdir / "results.csv").read_text())[1:]
    assert (mine.branch, mine.kept) == ("mine", ticket.kept)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_python_parses(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```(?:python|\{code-cell\})[^\n]*\n(.*?)```", text, re.S):
        compile(block, page.name, "exec")


def commands():
    """The experiments that the pages show, but for those of configs that they show as well."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?:    )?(?:python run\.py|lth-jax run)\b(.*)$", text, re.M):
            arguments = shlex.split(line, comments=True)
            if not re.search(r"(^|=)\w+\.py$|:STUDY|\$", " ".join(arguments[:1])):
                yield pytest.param(arguments, id=f"{page.stem} {' '.join(arguments)}"[:60])


@pytest.mark.parametrize("arguments", commands())
def test_every_run_names_a_config_and_fields_that_exist(arguments):
    config, overrides, others = split_arguments([a for a in arguments if "$" not in a])
    words = [word for word in others if not word.startswith("-")]
    from_config(load_config(config or (words[0] if words else DEFAULT), overrides, ()))


def sweeps():
    """The sweeps that the pages show, but for those of configs that they show as well."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^lth-jax sweep\b(.*)$", text, re.M):
            arguments = shlex.split(line.partition(" > ")[0], comments=True)
            if not any(re.fullmatch(r"\w+\.py", argument) for argument in arguments):
                yield pytest.param(arguments, id=f"{page.stem} {' '.join(arguments)}"[:60])


@pytest.mark.parametrize("arguments", sweeps())
def test_every_sweep_names_flags_a_config_and_fields_that_exist(arguments):
    named, overrides, others = split_arguments(arguments)
    options = sweep.parser().parse(others)
    config = named or options.word
    assert (config and len(cells_of(config, overrides, options.grid)) > 1) or options.status


def test_the_version_that_is_cited_is_this_one():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {lth_jax.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    day = re.search(r"\ndate-released: (\S+)\n", citation)[1]
    assert f"\n## {lth_jax.__version__} – {day}\n" in changes
