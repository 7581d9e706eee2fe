"""`lth-jax sweep`: planned in this process, and run by real ones."""

import contextlib
import csv
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax import cli
from lth_jax.cli import sweep
from lth_jax.lottery import building
from lth_jax.sweep import local
from lth_jax.sweep.directory import SweepDirectory

from ..tiny import FIELDS, StopAtPause, assert_same_run, experiment, flip_byte
from .command_line import RUN

SMALL = {**FIELDS, "levels": 1, "replicates": 1, "branches": "()"}
ARGUMENTS = [
    "lenet_digits",
    *(f"--config.{name}={value}" for name, value in SMALL.items()),
    "--grid=train.learning_rate=0.01",
    "--grid=seed=0,1",
    "--out=s",
]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys, without_figures):
    """The command in an empty folder; (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("lth_jax"), "handlers", [])
    monkeypatch.setattr(building, "build", experiment)

    def call(*arguments):
        status = cli.main(["sweep", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def in_process(monkeypatch):
    """The engine of this machine runs workers in this process, one after another."""
    started = []

    def run(tasks, environments, told, stop_signal):
        failed = {}
        for task in tasks:
            started.append(task.name)
            command = [a for a in task.command[task.command.index("sweep") :] if "take-c" not in a]
            with contextlib.redirect_stdout(io.StringIO()):
                status = cli.main([a for a in command if a != "--ends-with-parent"])
            if status:
                failed[task.name] = f"exit status {status}"
        return failed

    monkeypatch.setattr(local, "run", run)
    return started


@pytest.mark.slow
def test_a_grid_is_run_once_and_only_what_is_new_or_unfinished_again(call, in_process):
    status, out, err = call(*ARGUMENTS)
    assert status == 0, err
    assert len(in_process) == 2
    assert out.count(" finished ") == 2
    assert "2 experiments, to run: 2" in err
    table = Path("s/sweep.csv").read_bytes()
    # Once more: nothing is started. With a value more: its experiments alone.
    status, _, err = call(*ARGUMENTS)
    assert (status, len(in_process)) == (0, 2)
    assert "2 experiments, finished: 2, to run: 0" in err
    assert Path("s/sweep.csv").read_bytes() == table
    rates = "grid=train.learning_rate=0.01"
    status, out, _ = call(*[a.replace(rates, f"{rates},0.1") for a in ARGUMENTS])
    assert (status, len(in_process)) == (0, 4)
    with open("s/sweep.csv") as file:
        assert len({row["experiment"] for row in csv.DictReader(file)}) == 4
    # What `run` makes of the same fields is the same experiment, and goes on there.
    name = in_process[0]
    fields = [a for a in ARGUMENTS if a.startswith("--config.")]
    line = ["run", "lenet_digits", *fields, "--config.train.learning_rate=0.01"]
    assert cli.main([*line, "--config.seed=0", "--workdir=s/" + name]) == 0


@pytest.mark.slow
def test_one_that_fails_takes_no_other_with_it_and_says_why(call, in_process, monkeypatch):
    def build(spec, network=None):
        if spec.seed == 0:
            raise MemoryError("too much")
        return experiment(spec, network)

    monkeypatch.setattr(building, "build", build)
    status, out, err = call(*ARGUMENTS)
    assert status == 1
    assert out.count(" finished ") == 1
    assert "error: 1 of 2 experiments failed, lenet_digits-" in err
    assert "too much" in out
    status, out, _ = call("--status", "--out=s")
    assert status == 1
    assert " failed " in out
    monkeypatch.setattr(building, "build", experiment)
    status, out, _ = call(*ARGUMENTS)
    assert (status, len(in_process), out.count(" finished ")) == (0, 3, 2)


@pytest.mark.slow
def test_one_experiment_alone_by_number_or_name(call, tmp_path):
    assert call(*ARGUMENTS, "--only=1")[0] == 0
    (name,) = [path.name for path in (tmp_path / "s").iterdir() if path.name != "failed"]
    assert call(*ARGUMENTS, f"--only={name}")[0] == 0
    status, _, err = call(*ARGUMENTS, "--only=2")
    assert status == 2
    assert "--only=2: accepted: 0 to 1" in err


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_saves_and_goes_on(call, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "listening", lambda: contextlib.nullcontext(StopAtPause(2, 15)))
        status, _, err = call(*ARGUMENTS, "--only=1")
    assert status == 143
    assert "stopped at level 0" in err
    assert not (tmp_path / "s" / "failed").exists()
    assert call(*ARGUMENTS, "--only=1")[0] == 0
    assert call(*[a.replace("--out=s", "--out=t") for a in ARGUMENTS], "--only=1")[0] == 0
    (one,), (other,) = (list((tmp_path / folder).glob("lenet*")) for folder in "st")
    assert_same_run(one, other)


@pytest.mark.slow
def test_a_function_of_configs_is_a_sweep(call, in_process, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from lth_jax import default_config\n"
        "def get_configs():\n    for size in (8, 4):\n        config = default_config()\n"
        "        config.model.hidden = (size,)\n        yield config\n"
    )
    fields = [a for a in ARGUMENTS if a.startswith("--config.") and "hidden" not in a]
    status, _, err = call("mine.py", *fields, "--out=s")
    assert status == 0, err
    assert len(in_process) == 2
    record = SweepDirectory(tmp_path / "s").members()[1].fields
    assert record == {"model.hidden": (4,)}


@pytest.mark.parametrize(("more", "each"), [([], 4), (["--jobs=1"], 8), (["--cores=3"], 3)])
def test_those_that_run_at_a_time_share_the_cores(call, monkeypatch, more, each):
    given = []
    monkeypatch.setattr(sweep, "cores", lambda: 8)
    monkeypatch.setattr(local, "run", lambda tasks, *_: given.extend(tasks) or {})
    call(*ARGUMENTS, *more)
    assert [f"--take-cores={each}" in task.command for task in given] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lenet_digits", "--grid=seed=0,1"], "--out is missing"),
        (["--grid=seed=0,1", "--out=s"], "--config is missing"),
        (["lenet_digits", "--out=s"], "there is no --grid; accepted: --grid FIELD=VALUE"),
        (["lenet_digits", "--grid=sed=0,1", "--out=s"], "did you mean 'seed'"),
        (["lenet_digits", "--grid=model.name=mlp,x", "--out=s"], "config.model.name='x'"),
        (["lenet_digits", "--grid=seed=0,1", "--out=file"], "a file is there"),
        (["lenet_digits", "--grid=seed=0,1", "--out=run"], "it is a run"),
        (["lenet_digits", "--grid=seed=0", "--out=s", "--cores=-1"], "--cores=-1: accepted"),
        (["lenet_digits", "--grid=seed=0", "--out=s", "--slurm", "--ray=auto"], "one of them"),
        (["lenet_digits", "--grid=seed=0", "--out=s", "--slurm=x"], "--slurm='x': accepted"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_started(call, tmp_path, arguments, said):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.json").touch()
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.glob("s/lenet*"))


@pytest.mark.slow
def test_the_script_of_an_array_names_what_is_not_finished(call, tmp_path):
    assert call(*ARGUMENTS, "--only=1")[0] == 0
    more = [a.replace("seed=0,1", "seed=0,1,2,3") for a in ARGUMENTS]
    status, out, _ = call(*more, "--slurm=partition=cpu", "--print", "--jobs=2")
    assert status == 0
    assert "#SBATCH --array=0,2-3%2\n" in out
    assert "#SBATCH --partition=cpu\n" in out
    assert f"--out={tmp_path / 's'}" in out or "--out=s" in out


@pytest.mark.slow
def test_a_report_is_of_one_sweep(call, tmp_path, capsys):
    for folder in "st":
        arguments = [a.replace("--out=s", f"--out={folder}") for a in ARGUMENTS]
        assert call(*arguments, "--print")[0] == 0
    assert cli.main(["report", "s"]) == 0
    assert (tmp_path / "s" / "report.html").exists()
    assert cli.main(["report", "s", "t"]) == 2
    assert "it is a sweep" in capsys.readouterr().err


@pytest.mark.slow
def test_damage_is_told_and_the_others_are_shown(call, in_process, tmp_path):
    assert call(*ARGUMENTS)[0] == 0
    flip_byte(next((tmp_path / "s").glob("lenet*")) / "results.csv")
    status, out, _ = call("--status", "--out=s")
    assert status == 1
    assert out.count(" finished ") == 1
    assert "is damaged" in out


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [3, pytest.param(20, marks=pytest.mark.paper)])
def test_workers_that_are_killed_change_no_bit_of_any_table(
    tmp_path, monkeypatch, without_figures, wanted
):
    """Real processes, pinned, each killed once it has saved; then nothing is left to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(RUN.parent))
    more = ["--config.train.steps=400", "--config.eval.every=100", "--config.levels=2"]
    saving = [*ARGUMENTS[:-2], *more, "--config.checkpoint.every_seconds=0"]
    assert cli.main(["sweep", *saving, "--out=undisturbed"]) == 0
    kills, running, real = [], [], local.run
    start = local.Task.start

    def started(task, environment=None):
        process = start(task, environment)
        running.append((task, process, task.saved()))
        return process

    def kill():
        for task, process, before in running:
            if process.poll() is None and task.saved() != before and len(kills) < wanted:
                process.kill()
                kills.append(task.name)
        return 0

    monkeypatch.setattr(local.Task, "start", started)
    monkeypatch.setattr(local, "run", lambda *arguments: real(*arguments[:3], kill))
    assert cli.main(["sweep", *saving, "--out=killed"]) == 0
    assert len(kills) == wanted
    tables = [Path(folder, "sweep.csv").read_bytes() for folder in ("undisturbed", "killed")]
    assert tables[0] == tables[1]
    for one in Path("undisturbed").glob("lenet*"):
        assert_same_run(one, Path("killed", one.name))


@pytest.mark.slow
def test_run_py_knows_it_too(tmp_path):
    environment = {**os.environ, "PYTHONPATH": ""}
    line = [sys.executable, str(RUN), "sweep", "--status", "--out=s"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no experiments yet\n")
