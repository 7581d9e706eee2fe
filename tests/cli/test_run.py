"""`run.py`: exit statuses, and what is printed where."""

import errno
import io
import logging
import os
import re
import shlex
import signal
import subprocess
import sys

import jax
import pytest

import lth_jax
from lth_jax import data
from lth_jax.config import BranchSpec, Spec, declared, default_config, flatten
from lth_jax.config.files import known_configs
from lth_jax.lottery import building
from lth_jax.store import RunDirectory
from lth_jax.store.tables import RESULTS

from ..tiny import (
    arguments,
    assert_same_run,
    data_file,
    finished_run,
    flip_byte,
    results,
    tiny_spec,
)
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


@pytest.mark.slow
def test_a_finished_experiment_prints_its_table_and_trains_nothing(main, tmp_path, monkeypatch):
    status, first, _ = main(*QUICK, "--workdir=x")
    assert status == 0
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.csv")}
    monkeypatch.setattr(building, "build", None)
    monkeypatch.setattr(data, "load", None)
    assert main(*QUICK, "--workdir=x") == (0, first, "")
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.csv")} == before


@pytest.mark.slow
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
    assert_same_run(tmp_path / "x", finished_run(tiny_spec(levels=1, replicates=1)))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["jax_enable_x64", "jax_debug_nans"])
def test_what_the_environment_asks_of_jax_changes_no_bit(option, main, tmp_path):
    plain = finished_run(tiny_spec(levels=1, replicates=1))
    try:
        jax.config.update(option, True)
        status, _, err = main(*QUICK, "--workdir=x")
    finally:
        jax.config.update(option, False)
    assert status == 0
    assert ("JAX_ENABLE_X64 has no effect" in err) == (option == "jax_enable_x64")
    assert_same_run(tmp_path / "x", plain)


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


@pytest.mark.slow
def test_what_is_logged_is_said_once(main, monkeypatch):
    """Libraries give the root logger a handler of its own, as `logging.basicConfig` does."""
    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(root, "handlers", [*root.handlers, handler])
    status, _, err = main(*QUICK, "--workdir=x")
    assert status == 0
    assert err.count("drawing the figures") == 1


# Help


def test_help_lists_every_field_with_its_default(main):
    status, out, err = main("--help")
    assert (status, err) == (0, "")
    assert "usage: python -m lth_jax run" in out
    for name in flatten(default_config().to_dict()):
        assert f"--config.{name}=" in out
    assert "--config.levels=14" in out
    assert "--config.branches=('reinit', 'random_mask')" in out
    assert "--config.branch.<name>.sigma=" in out
    for flag in ("-h", "-help", "--helpfull", "--help"):
        assert main("--config=configs/lenet_mnist.py", flag, "--config.levels=9")[0] == 0
    assert "--config.levels=9\n" in main("--config.levels=9", "--help")[1]
    for config in (["lenet_mnist"], ["--config.levels=3", "configs/lenet_mnist.py"]):
        assert "--config.data.name='mnist'\n" in main(*config, "--help")[1]
    assert all(f"\n  {name} " in out for name in known_configs())


def test_help_says_of_each_field_what_it_means_and_accepts(main):
    _, out, _ = main("--help")
    words = " ".join(out.split())
    for name, declaration in (declared(Spec) | declared(BranchSpec, "branch.<name>.")).items():
        after = words.partition(f" --config.{name}")[2]
        assert declaration.means in after
        assert declaration.accepted in after or isinstance(declaration.default, dict)
    assert (
        "--config.pruning.fraction=0.2 The share of the surviving weights that a level removes. "
        "float; accepted: a number above 0 and below 1; default: 0.2; part of the identity" in words
    )
    assert "float, in seconds; accepted: 0 to 1e09; default: 20.0 " in words


def test_help_of_one_group_or_field(main):
    status, out, _ = main("lenet_mnist", "--help=pruning")
    assert status == 0
    names = re.findall(r"^  --config\.([\w.]+)=", out, re.MULTILINE)
    assert names == [name for name in declared(Spec) if name.startswith("pruning.")]
    assert out.startswith("pruning: What a level prunes.\n")
    assert main("--help=pruning.alpha")[1].count("--config.") == 1
    assert main("-help=config.seed")[1].count("--config.") == 1
    assert "--config.branch.<name>.draws=…" in main("--help=branch")[1]
    for wrong, hint in (("prunin", "did you mean 'pruning'? "), ("data.flp", "'data.flip'? ")):
        status, out, err = main(f"--help={wrong}")
        assert (status, out) == (2, "")
        assert f"error: --help={wrong}: no such group; " in err
        assert hint in err
        assert len(err) < 200
    assert main("--help=")[0] == 2


def test_the_version_is_told_before_anything_is_read(main, capsys):
    for flag in ("--version", "-version"):
        with pytest.raises(SystemExit, match="0"):
            main("--config=no/such/file.py", flag)
        assert capsys.readouterr().out == f"lth_jax {lth_jax.__version__}\n"


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


class FullDisk(io.StringIO):
    """What a file on a full disk is, and a terminal that was closed."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_nobody_has_to_see_an_experiment(main, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", FullDisk())
        patch.setattr(sys, "stdout", FullDisk())
        assert main(*QUICK, "--workdir=x")[0] == 0
    assert len(results(tmp_path / "x")) == 4
    monkeypatch.setattr(sys, "stdout", FullDisk())
    status, _, err = main(*QUICK, "--workdir=x")
    assert status == 0
    assert err == "warning: the results were not printed: No space left on device; they are in x\n"


@pytest.mark.slow
def test_a_process_without_streams_trains_to_its_end_and_writes_here_alone(tmp_path):
    small = arguments(levels=0, replicates=1, branches="()")
    line = shlex.join([sys.executable, str(command_line.RUN), *small])
    line += " <&- >&- 2>/dev/full"
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, timeout=120).returncode == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(results(folder)) == 1
    assert os.listdir(tmp_path) == ["runs"]
