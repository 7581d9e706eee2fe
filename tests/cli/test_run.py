"""`run.py`: exit statuses, and what is printed where."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lth_jax import data
from lth_jax.config import default_config, flatten
from lth_jax.lottery import experiment as experiments
from lth_jax.store import RunDirectory
from lth_jax.store.tables import RESULTS

from ..tiny import arguments, assert_same_run, data_file, flip_byte, results, tiny_spec, train
from . import command_line
from .command_line import QUICK

# Done


@pytest.mark.slow
def test_an_experiment_runs_to_its_table_and_files(main, tmp_path, with_figures):
    status, out, err = main(*QUICK, "--workdir=out/x")
    assert status == 0
    path = tmp_path / "out" / "x"
    rows = RESULTS.from_csv((path / "results.csv").read_text())
    assert [(row.branch, row.level) for row in rows] == [
        ("ticket", 0), ("ticket", 1), ("reinit", 1), ("random_mask", 1)
    ]  # fmt: skip
    for file in ("spec.json", "figures/accuracy.png", "figures/accuracy.svg"):
        assert (path / file).stat().st_size > 0
    for branch in ("ticket", "reinit", "random_mask"):
        assert (path / "metrics" / branch / "level_01.csv").exists()
        assert branch in out
    assert "out/x/results.csv" in out
    assert "%" in out
    assert "digits: 100 training, 40 validation, 50 test images" in err
    assert "Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_finished_experiment_prints_its_table_and_trains_nothing(main, tmp_path, monkeypatch):
    status, first, _ = main(*QUICK, "--workdir=x")
    assert status == 0
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.csv")}
    monkeypatch.setattr(experiments, "build", None)
    monkeypatch.setattr(data, "load", None)
    start = time.perf_counter()
    assert main(*QUICK, "--workdir=x") == (0, first, "")
    assert time.perf_counter() - start < 10
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.csv")} == before


def test_the_default_workdir_is_named_after_config_and_identity(main, tmp_path):
    status, _, _ = main(*arguments(levels=0, replicates=1, branches="()"))
    assert status == 0
    (folder,) = (tmp_path / "runs").iterdir()
    record = RunDirectory.read(folder).record_of_spec()
    assert folder.name == f"lenet_digits-{record['identity']}"
    # What may grow lands in the same folder.
    status, _, _ = main(*arguments(levels=1, replicates=1, branches="('random_mask',)"))
    assert status == 0
    assert list((tmp_path / "runs").iterdir()) == [folder]
    assert len(results(folder)) == 3


@pytest.mark.slow
def test_the_command_line_and_the_library_give_the_same_bits(main, tmp_path):
    assert main(*QUICK, "--workdir=x")[0] == 0
    train(tmp_path / "y", tiny_spec(levels=1, replicates=1))
    assert_same_run(tmp_path / "x", tmp_path / "y")


# A run that fails


@pytest.mark.slow
def test_a_run_that_diverges_exits_1_with_one_line(main, tmp_path):
    status, out, err = main(*arguments(train__learning_rate="1e30"), "--workdir=x")
    assert status == 1
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "diverged" in errors[0]
    assert "Traceback" not in err
    assert len(results(tmp_path / "x")) == 2
    # The directory is free again, and says the same again.
    assert main(*arguments(train__learning_rate="1e30"), "--workdir=x")[0] == 1


@pytest.mark.slow
def test_damaged_checkpoints_are_warned_of(main, tmp_path):
    assert main(*QUICK, "--workdir=x")[0] == 0
    flip_byte(data_file(tmp_path / "x" / "checkpoints" / "replicate_0" / "level_01"))
    grown = arguments(levels=2, replicates=1, branches="reinit,random_mask")
    status, _, err = main(*grown, "--workdir=x")
    assert status == 0
    (warning,) = [line for line in err.splitlines() if line.startswith("warning:")]
    assert "level_01" in warning
    assert "not used" in warning


# Help


def test_help_lists_every_field_with_its_default(main):
    status, out, err = main("--help")
    assert (status, err) == (0, "")
    assert "usage: run.py" in out
    for name in flatten(default_config().to_dict()):
        assert f"--config.{name}=" in out
    assert "--config.levels=16" in out
    assert "--config.branches=('reinit', 'random_mask')" in out
    assert "--config.branch.<name>.<option>" in out
    for flag in ("-h", "-help", "--helpfull", "--help"):
        assert main("--config=configs/lenet_mnist.py", flag, "--config.levels=9")[0] == 0
    assert "--config.levels=9\n" in main("--config.levels=9", "--help")[1]


def test_help_is_quick_since_it_imports_nothing_heavy(tmp_path):
    code = (
        "import sys\n"
        "from lth_jax.cli.run import main\n"
        "status = main(['--help'])\n"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'matplotlib', 'sklearn', 'rich'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(command_line.RUN.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == []


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    """`run.py --help | head -1`."""
    with command_line.start("--help", cwd=tmp_path) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.slow
def test_started_from_elsewhere_it_finds_its_configs_and_writes_here(tmp_path):
    status, out, err = command_line.run(
        *arguments(levels=0, replicates=1, branches="()"), cwd=tmp_path
    )
    assert status == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"runs/{folder.name}/results.csv" in out
    assert os.listdir(tmp_path) == ["runs"]
