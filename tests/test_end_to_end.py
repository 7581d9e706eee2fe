"""The whole of it, as processes: killed without warning again and again, it ends the same."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import arguments, assert_same_run, tiny_spec, train

from lth_jax.data.places import resolve
from lth_jax.plan import planned_runs
from lth_jax.store import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
KILLS = 3


def tell_or_kill(process, delay, pattern, saved=lambda: True):
    """Kills it `delay` seconds after it tells `pattern` and has `saved`; gives what it told."""
    told = []
    for line in process.stderr:
        told.append(line)
        if re.search(pattern, line) and delay is not None:
            while not saved() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
            delay = None
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
    # Level 0 is dense. Later ones have programs to compile before there is anything to kill.
    packed = kernel == "sparse"
    midst = (r"level [12],", saved_progress(tmp_path / "run")) if packed else (r"level \d",)
    chance = random.Random(0)
    kills, told = 0, ""
    while True:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with process:
            told += tell_or_kill(process, chance.uniform(0, 1.2) if kills < KILLS else None, *midst)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, told
        kills += 1
    assert kills >= 2, "it was finished before it was killed"
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
def test_the_default_experiment_shows_the_ticket_effect_in_small(tmp_path):
    """`python run.py` cut down to a few levels at a harsh rate, on the real network and data."""
    process = subprocess.run(
        [
            sys.executable,
            str(ROOT / "run.py"),
            "--config.levels=2",
            "--config.pruning.fraction=0.8",
            "--config.train.steps=250",
            "--config.eval.every=50",
            f"--workdir={tmp_path}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    rows = RunDirectory.read(tmp_path).sorted_rows()

    def mean(branch, level):
        values = [
            r.early_stop_test_accuracy for r in rows if (r.branch, r.level) == (branch, level)
        ]
        assert len(values) == 3
        return sum(values) / 3

    assert mean("ticket", 0) > 0.93
    assert rows[-1].density < 0.05
    assert mean("ticket", 2) > mean("reinit", 2) + 0.02
    assert mean("ticket", 2) > mean("random_mask", 2) + 0.02
    assert "matches the dense network" in " ".join(process.stdout.split())
