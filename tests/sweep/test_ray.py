"""The engine of Ray, in its local mode, where Ray is installed: it is no requirement."""

import sys

import pytest

from lth_jax.errors import SpecError
from lth_jax.sweep import ray_cluster
from lth_jax.sweep.tasks import Task


def task(tmp_path, name, code):
    path = tmp_path / name
    path.mkdir()
    return Task(name, (sys.executable, "-c", code), str(path), path, tmp_path / f"{name}.log")


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match="Ray is not installed: pip install ray"):
        ray_cluster.run([], "auto", lambda *_: None, cores=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tasks_run_are_retried_when_killed_and_told_when_they_fail(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    killed = "import os; open('starts', 'a').write('x'); n = len(open('starts').read())\n"
    killed += "n < 3 and os.kill(os.getpid(), 9)"
    every = [
        task(tmp_path, "good", "open('done', 'w').close()"),
        task(tmp_path, "bad", "raise SystemExit(2)"),
        task(tmp_path, "killed", killed),
    ]
    told = []
    failed = ray_cluster.run(every, "local", lambda task, what: told.append(task.name), cores=1)
    assert list(failed) == ["bad"]
    assert sorted(told) == ["bad", "good", "killed"]
    assert (every[0].path / "done").exists()
    assert (every[2].path / "starts").read_text() == "xxx"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_address_where_no_cluster_is_is_refused():
    pytest.importorskip("ray")
    with pytest.raises(SpecError, match="--ray=auto: "):
        ray_cluster.run([], "auto", lambda *_: None, cores=1)
