"""The package as a user has it: installed from its wheel, called by its command, from elsewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from lth_jax.config.files import known_configs

from .shown import PAGES, ROOT, commands, experiments
from .tiny import arguments

pytestmark = pytest.mark.slow

EXAMPLES = (
    "prune_flax_loop",
    "prune_nnx_loop",
    "prune_plain_loop",
    "run_in_threads",
    "train_ticket_elsewhere",
)
TINY = arguments(levels=1, replicates=1, branches="()", train__steps="40", model__hidden=(20, 10))
# How `RUN`, and a run by its directory's name, are called in what is shown.
RUN = re.compile(r"runs/[\w-]+…|\bRUN\b|runs/digits\b")


class Installed:
    """An environment with the package, and a folder to work in.

    Attributes:
      folder: which is empty at first, and no part of the repository.
    """

    def __init__(self, environment: Path, folder: Path):
        self.folder = folder
        self._environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
        self._environment["PATH"] = f"{environment / 'bin'}:{os.environ['PATH']}"

    def __call__(self, command: str) -> str:
        """Runs a line of a shell; returns what it printed, having checked its exit status."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, installed beside the dependencies that are here: nothing is fetched."""
    pytest.importorskip("setuptools", minversion="70.1")  # older ones need `wheel`
    place = tmp_path_factory.mktemp("installed")
    project = place / "project"
    for name in ("lth_jax", "configs"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, project)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    alone = ["--no-deps", "--no-index"]
    wheel = [*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", str(place / "wheel")]
    subprocess.run([*wheel, "."], cwd=project, check=True)
    shutil.rmtree(project)
    environment = place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (file,) = (place / "wheel").iterdir()
    subprocess.run([*pip, "--python", python, "install", *alone, str(file)], check=True)
    (home,) = environment.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (home / "dependencies.pth").write_text("\n".join(sorted(paths)))
    folder = place / "folder"
    folder.mkdir()
    return Installed(environment, folder)


@pytest.fixture(scope="module")
def run(installed):
    """A run directory, made by the command."""
    installed(f"lth-jax run {shlex.join(TINY)} --workdir=runs/tiny")
    return "runs/tiny"


def test_it_is_the_wheel_that_is_tried(installed):
    place = installed("python -c 'import lth_jax; print(lth_jax.__file__)'")
    assert "environment" in place
    assert installed("lth-jax --version") == installed("lth-jax report --version")
    assert {line.split()[0] for line in installed("lth-jax configs").splitlines()} == {
        *known_configs()
    }
    assert "\nmlp " in "\n" + installed("lth-jax models")


def test_every_experiment_that_is_shown_is_one(installed):
    """All in one process, up to where a network would be built: fields and spec are resolved."""
    shown = [[filled_in(word) for word in words] for words in experiments()]
    assert len(shown) > 60
    code = (
        "from lth_jax.cli.run import main\n"
        "from lth_jax.config import from_config\n"
        "from lth_jax.config.files import load_config, split_arguments\n"
        f"for words in {shown!r}:\n"
        "    assert main([*words, '--help']) == 0, words\n"
        "    config, overrides, others = split_arguments(words)\n"
        "    names = [word for word in others if not word.startswith('-')]\n"
        "    from_config(load_config(config or (names or ['lenet_digits'])[0], overrides))\n"
    )
    (installed.folder / "every.py").write_text(code)
    for name, content in files_of_a_user().items():
        (installed.folder / name).write_text(content)
    installed("python every.py")


def filled_in(word):
    """A word of a command with what a reader would put there."""
    word = re.sub(r":(NAME|STUDY)$", ":noise", word.replace("CONFIG", "lenet_digits"))
    return re.sub(r"\$\w+", "3", word)


def files_of_a_user():
    """The files that pages show, by the name that stands in their first line."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    files = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.S))
    how_to = (ROOT / "docs/how_to.md").read_text(encoding="utf-8")
    files["mine.py"] = "\n".join(re.findall(r"```python\n(.*?)```", how_to, re.S))
    return files


def on(run, line):
    """Returns a command for the run of one level that there is."""
    line = re.sub(r"--level=\d+", "--level=1", RUN.sub(run, line))
    return " ".join(dict.fromkeys(line.split()))


def test_what_is_shown_of_a_run_works(installed, run):
    picture = "Image.new('L', (8, 8)).save('my_digit.jpg')"
    installed(f'python -c "from PIL import Image; {picture}"')
    shown = {on(run, str(one)): None for one in commands() if one.kind == "command"}
    assert {line.split()[1] for line in shown} >= {"inspect", "list", "report", "export"}
    for line in shown:
        installed(line)


def test_an_example_runs_as_it_is_shown(installed, run):
    shutil.copytree(ROOT / "examples", installed.folder / "examples")
    shown = [one for one in commands() if one.kind == "example"]
    assert {one.words[1] for one in shown} >= {f"examples/{name}.py" for name in EXAMPLES}
    for one in shown:
        out = installed(on(run, str(one)))
        if one.words[1].startswith("examples/prune_"):
            rows = re.findall(r"([\d.]+)% of the weights: test accuracy ([\d.]+)%", out)
            densities, accuracies = np.array(rows, float).T
            assert densities[0] == 100
            assert 69 < densities[1] < 83
            assert list(densities) == sorted(densities, reverse=True)
            assert min(accuracies[:3]) > 80


def test_the_loop_of_the_readme_prunes(installed):
    """It learns from few weights what holds for other examples, and from too few less."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    loop = [block for block in blocks if not re.match(r"# \w+\.py\n", block)]
    (installed.folder / "loop.py").write_text("\n".join(loop))
    lines = installed("python loop.py").splitlines()
    shares = [int(line.split("%")[0]) for line in lines]
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert shares == [100, 80, 64, 51, 41, 33, 26, 21, 17, 14]
    assert losses[7] < losses[0] / 2
    assert losses[7] == min(losses)
