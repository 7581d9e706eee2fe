"""What the README shows is true: its example runs, and its commands name things that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.config.files import load_config, split_arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prunes_a_loop_of_ones_own():
    """In a process of its own, with JAX's defaults instead of the tests'."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    (example,) = [block for block in blocks if "lth_jax.prune" in block]
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    shares = [int(line.split("%")[0]) for line in lines]
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert shares == [100, 80, 64, 51, 41, 33, 26, 21, 17, 14, 11, 9]
    # A tenth of the inputs matters: half of the weights cost almost nothing, chance is 2.3.
    assert losses[3] < losses[0] + 0.1
    assert max(losses) < 1.5


def commands():
    text = README.replace("\\\n", " ")
    lines = [line.split("#")[0] for line in re.findall(r"^python run\.py.*$", text, re.M)]
    return [line.split()[2:] for line in lines]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_run_names_a_config_and_fields_that_exist(arguments):
    config, overrides, _ = split_arguments(arguments)
    load_config(config, overrides, ())


@pytest.mark.parametrize("place", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_every_link_and_picture_is_there(place):
    assert (ROOT / place).exists()


def test_every_row_of_a_registry_is_named():
    from lth_jax.lottery.branches import BRANCHES
    from lth_jax.pruning.criteria import CRITERIA

    assert [name for name in (*BRANCHES, *CRITERIA) if f"`{name}`" not in README] == []
