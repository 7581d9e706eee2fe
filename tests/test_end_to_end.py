"""The whole of it, as processes: killed without warning again and again, it ends the same."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lth_jax.cli import run
from lth_jax.data.directories import resolve
from lth_jax.lottery.plan import planned_runs
from lth_jax.store import RunDirectory

from .tiny import arguments, assert_same_run, tiny_spec, train

ROOT = Path(__file__).resolve().parents[1]
# Each kill comes after this is told: later levels of packed runs have programs to compile first.
KILLS = {
    "xla": (r"level \d of", r"level [12] of"),
    "sparse": (r"level [12] of", r"level [12] of"),
}


def tell_or_kill(process, pattern, delay, saved):
    """Kills it `delay` seconds after it tells `pattern` and has `saved`; gives what it told.

    Without a pattern it is not killed.
    """
    told = []
    for line in process.stderr:
        told.append(line)
        if pattern and re.search(pattern, line):
            while not saved() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
            pattern = None
    return "".join(told)


def saved_progress(path):
    """A function that tells whether the level that is running has a checkpoint."""
    return lambda: any((path / "checkpoints").glob("progress_*"))


@pytest.fixture(params=["xla", "sparse"])
def kernel(request):
    """What computes; tests of native kernels are skipped where there is no compiler."""
    if request.param != "xla":
        request.getfixturevalue("built")
    return request.param


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, kernel):
    """SIGKILL at random moments, most of them in or around a save."""
    fields = {
        "replicates": 1,
        "train__steps": "2000",
        "eval__every": "250",
        "rewind__step": "700",
        "branches": ("random_mask",),
        "checkpoint__every_seconds": 0,
        "train__kernel": kernel,
    }
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        *arguments(**fields | {"branches": "random_mask"}),
        "--workdir=run",
        "--config.execution.compilation_cache=True",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
    ]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kernels").symlink_to(resolve().cache_dir / "kernels")
    chance, told = random.Random(kernel), ""
    for pattern in (*KILLS[kernel], None):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with process:
            delay = chance.uniform(0, 0.8)
            told += tell_or_kill(process, pattern, delay, saved_progress(tmp_path / "run"))
        assert process.returncode == (-signal.SIGKILL if pattern else 0), told
    assert "goes on from step" in told
    assert "Traceback" not in told
    assert "warning" not in told, "a killed save was taken for a checkpoint"
    train(tmp_path / "whole", tiny_spec(**fields | {"checkpoint__every_seconds": 1e6}))
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    run = RunDirectory.read(tmp_path / "run")
    assert list(run.rows) == planned_runs(run.spec())
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert run.progress_checkpoints() == []


@pytest.mark.slow
def test_the_default_experiment_shows_the_ticket_effect_in_small(tmp_path, capsys, without_figures):
    """`run.py` cut down to one level at a harsh rate, on the real network and data."""
    status = run.main(
        [
            "--config.levels=1",
            "--config.pruning.fraction=0.98",
            "--config.train.steps=250",
            "--config.eval.every=50",
            f"--workdir={tmp_path}",
        ]
    )
    out, err = capsys.readouterr()
    assert status == 0, err
    rows = RunDirectory.read(tmp_path).sorted_rows()

    def mean(branch, level):
        values = [
            r.early_stop_test_accuracy for r in rows if (r.branch, r.level) == (branch, level)
        ]
        assert len(values) == 5
        return sum(values) / 5

    assert mean("ticket", 0) > 0.93
    assert rows[-1].density < 0.05
    assert mean("ticket", 1) > mean("reinit", 1) + 0.01
    assert mean("ticket", 1) > mean("random_mask", 1) + 0.02
    assert "random_mask from 3.0% on" in " ".join(out.split())
