"""`run.py`: exit statuses, what is printed where, and what wrong input is answered with."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import command_line
import pytest
from tiny import (
    StopAt,
    arguments,
    assert_same_run,
    data_file,
    flip_byte,
    results,
    tiny_spec,
    train,
)

from lth_jax import build, data
from lth_jax.commands import running
from lth_jax.results import from_csv
from lth_jax.spec import default_config, flatten
from lth_jax.store import RunDirectory

QUICK = arguments(levels=1, replicates=1, branches="reinit,random_mask")
# Enough steps that a signal finds it training: chunks of a second, many of them.
LONG = arguments(
    levels=1, replicates=1, branches="()", train__steps="2000000", eval__every="250000"
)


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """Fails if data is loaded or anything is written."""

    def load(*_, **__):
        raise AssertionError("data was loaded before the input was checked")

    monkeypatch.setattr(data, "load", load)
    before = sorted(tmp_path.rglob("*"))
    yield
    assert sorted(tmp_path.rglob("*")) == before


# Done


@pytest.mark.slow
def test_an_experiment_runs_to_its_table_and_files(main, tmp_path, with_figures):
    status, out, err = main(*QUICK, "--workdir=out/x")
    assert status == 0
    path = tmp_path / "out" / "x"
    rows = from_csv((path / "results.csv").read_text())
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
    monkeypatch.setattr(build, "build", None)
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


# Wrong input

WRONG = {
    "unknown field": (["--config.levles=3"], ["config.levles", "did you mean 'levels'"]),
    "unknown field in a group": (
        ["--config.train.learning_rat=1"],
        ["config.train.learning_rat", "did you mean 'learning_rate'", "batch_size"],
    ),
    "unknown group": (["--config.trian.steps=1"], ["config.trian.steps", "'train'"]),
    "field of a field": (["--config.seed.x=1"], ["config.seed.x", "config.seed is no group"]),
    "group": (["--config.train=5"], ["config.train", "config.train.steps"]),
    "no field": (["--config.=5"], ["no such field", "levels"]),
    "integer": (["--config.levels=many"], ["config.levels='many'", "an integer"]),
    "integer from float": (["--config.levels=1.5"], ["config.levels='1.5'", "an integer"]),
    "empty integer": (["--config.levels="], ["config.levels=''", "an integer"]),
    "number": (["--config.train.learning_rate=fast"], ["learning_rate='fast'", "a number"]),
    "not finite": (["--config.train.learning_rate=nan"], ["learning_rate=nan", "above 0"]),
    "bool": (["--config.execution.compilation_cache=perhaps"], ["'perhaps'", "True or False"]),
    "tuple": (["--config.model.hidden=(1,"], ["config.model.hidden='(1,'", "a tuple"]),
    "tuple elements": (["--config.model.hidden=('a',)"], ["config.model.hidden", "'a'", "integer"]),
    "branches": (["--config.branches=(1,)"], ["config.branches", "1", "a string"]),
    "pairs": (["--config.pruning.layer_rates=('output',0.5)"], ["layer_rates", "pairs"]),
    "duration": (["--config.train.steps=3epochs"], ["train.steps='3epochs'", "40ep"]),
    "negative duration": (["--config.train.steps=-3"], ["train.steps='-3'", "40ep"]),
    "no steps": (["--config.train.steps=0"], ["train.steps='0'", "at least one step"]),
    "no value": (["--config.levels"], ["--config.levels", "VALUE"]),
    "negative": (["--config.seed=-1"], ["config.seed=-1", "0 to 4294967295"]),
    "negative with a space": (["--config.levels", "-1"], ["config.levels=-1", "0 to 1000"]),
    "no replicates": (["--config.replicates=0"], ["config.replicates=0", "1 to 1000"]),
    "negative rate": (
        ["--config.pruning.layer_rates=(('output',-1),)"],
        ["pruning.layer_rates", "0 or more"],
    ),
    "fraction": (["--config.pruning.fraction=1"], ["config.pruning.fraction=1.0", "below 1"]),
    "scope": (["--config.pruning.scope=local"], ["'local'", "layerwise or global"]),
    "model": (["--config.model.name=mpl"], ["config.model.name='mpl'", "did you mean 'mlp'"]),
    "optimizer": (["--config.train.optimizer=adm"], ["train.optimizer='adm'", "'adam'", "sgd"]),
    "criterion": (
        ["--config.pruning.criterion=size"],
        ["criterion='size'", "magnitude, magnitude_increase"],
    ),
    "branch": (["--config.branches=reinit,random"], ["branches='random'", "'random_mask'"]),
    "the trunk's name": (["--config.branches=ticket"], ["config.branches", "'ticket'"]),
    "a branch twice": (["--config.branches=reinit,reinit"], ["config.branches", "once"]),
    "a branch's name": (["--config.branches=../x"], ["config.branches", "letters"]),
    "a branch's kind": (
        ["--config.branches=a", "--config.branch.a.kind=renit"],
        ["config.branch.a.kind='renit'", "did you mean 'reinit'"],
    ),
    "options of no branch": (["--config.branch.other.draws=2"], ["branch.other", "reinit"]),
    "option of a branch": (
        ["--config.branch.reinit.draw=2"],
        ["'draws'", "kind, learning_rate, levels"],
    ),
    "no draws": (["--config.branch.reinit.draws=0"], ["branch.reinit.draws=0", "at least 1"]),
    "level 0 of a branch": (["--config.branch.reinit.levels=0"], ["(0,)", "levels from 1"]),
    "dataset": (["--config.data.name=digit"], ["data.name", "digit", "did you mean 'digits'"]),
    "pattern": (
        ["--config.pruning.layer_rates=(('outputs',0.5),)"],
        ["config.pruning.layer_rates", "'outputs'", "output/kernel"],
    ),
    "batch": (["--config.train.batch_size=1301"], ["batch_size=1301", "1300 training examples"]),
    "batch of part": (
        ["--config.train.batch_size=60", "--config.data.train_size=50"],
        ["batch_size=60", "50 training examples"],
    ),
    "validation": (["--config.data.validation_size=1500"], ["validation_size=1500", "1499"]),
    "training": (["--config.data.train_size=1400"], ["train_size=1400", "1300"]),
    "rewind": (["--config.rewind.step=500"], ["config.rewind.step='500'", "500"]),
    "rewind in epochs": (["--config.rewind.step=24ep"], ["config.rewind.step='24ep'", "500"]),
    "file": (["--config=configs/lenet_digit.py"], ["lenet_digit.py", "configs/lenet_digits.py'?"]),
    "folder": (["--config=configs"], ["--config=configs", "no such file"]),
    "no file": (["--config="], ["--config=''", "configs/lenet_digits.py"]),
    "config alone": (["--config"], ["--config=VALUE"]),
    "variant": (["--config=configs/lenet_mnist.py:big"], ["'big'", "laptop, paper"]),
    "no variants": (["--config=configs/lenet_digits.py:big"], ["big", "no variants"]),
    "flag": (["--wrokdir=x"], ["--wrokdir", "did you mean '--workdir'"]),
    "argument": (["configs/lenet_mnist.py"], ["configs/lenet_mnist.py", "--config"]),
    "workdir alone": (["--workdir"], ["--workdir", "a folder"]),
    "empty workdir": (["--workdir="], ["--workdir", "a folder"]),
    "separator": (["--", "--config.levels=1"], ["--"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_answered_in_one_line_before_anything_is_done(main, untouched, name):
    given, fragments = WRONG[name]
    start = time.perf_counter()
    status, out, err = main(*given)
    assert time.perf_counter() - start < 10
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for fragment in fragments:
        assert fragment in err


def test_wrong_input_wins_over_a_workdir_and_leaves_it_alone(main, untouched):
    status, _, err = main("--workdir=x", "--config.train.batch_size=1301")
    assert status == 2
    assert "batch_size" in err


def test_a_workdir_that_cannot_be_is_answered_in_one_line(main, tmp_path):
    (tmp_path / "file").write_text("mine")
    status, out, err = main(*QUICK, "--workdir=file")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: cannot write file/lock: a file lies where .*\n", err)


def test_another_experiment_s_workdir_is_refused(main):
    fields = {"levels": 0, "replicates": 1, "branches": "()"}
    assert main(*arguments(**fields), "--workdir=x")[0] == 0
    status, _, err = main(*arguments(**fields), "--workdir=x", "--config.seed=3")
    assert status == 2
    assert "seed: 0 there, 3 here" in err
    assert err.count("\n") == 1


def test_the_process_exits_2_with_one_line(tmp_path):
    status, out, err = command_line.run("--config.levles=3", cwd=tmp_path)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: config\.levles: no such field; did you mean 'levels'\?.*\n", err)
    assert os.listdir(tmp_path) == []


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
        "from lth_jax.commands.run import main\n"
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


# Signals


def wait_until_training(process):
    """Until the first level is told of on standard error."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "level 0" in line:
            return line
    raise AssertionError("".join(lines))


def stop(process, signum):
    """Sends the signal; gives the line that says how to go on."""
    start = time.perf_counter()
    process.send_signal(signum)
    status, out, err = command_line.finish(process)
    assert time.perf_counter() - start < 10
    assert (status, out) == (128 + signum, "")
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if "to go on" in line]
    return line


@pytest.mark.slow
def test_ctrl_c_stops_it_within_seconds_and_the_same_command_goes_on(main, tmp_path, monkeypatch):
    with command_line.start(*LONG, "--workdir=x y", cwd=tmp_path) as process:
        wait_until_training(process)
        # Meanwhile a second process, this one, is refused, and leaves the first alone.
        status, out, err = main(*LONG, "--workdir=x y")
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert re.match(rf"error: x y is in use by process {process.pid} on \S+; ", err)
        line = stop(process, signal.SIGINT)
    again = shlex.split(line.partition("to go on: ")[2])
    assert again == ["python", str(command_line.RUN), *LONG, "--workdir=x y"]
    step = int(re.search(r"level 0, step (\d+) of 2000000", line)[1])
    assert step > 0
    monkeypatch.setattr(running, "_signals", lambda: contextlib.nullcontext(StopAt(1)))
    status, out, err = main(*again[2:])
    assert status == 128 + signal.SIGINT
    assert f"level 0 goes on from step {step} of 2000000" in err


@pytest.mark.slow
def test_sigterm_stops_it_within_seconds_too(tmp_path):
    with command_line.start(*LONG, "--workdir=x", cwd=tmp_path) as process:
        wait_until_training(process)
        assert "level 0, step" in stop(process, signal.SIGTERM)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_training_is_an_interruption_too(tmp_path, signum):
    """A config file that is slow stands in for data that is."""
    (tmp_path / "slow.py").write_text(
        "import time\ndef get_config():\n    print('here', flush=True)\n    time.sleep(60)\n"
    )
    with command_line.start("--config=slow.py", cwd=tmp_path) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signum)
        status, _, err = command_line.finish(process)
    assert status in (128 + signum, -signum)  # a shell says 128 + signum of both
    assert "Traceback" not in err


def test_an_interruption_in_process_exits_with_its_signal(main, tmp_path, monkeypatch):
    """The same without a process of its own: at the second pause of level 1."""
    calls = []

    class Signals:
        def __enter__(self):
            calls.append("enter")
            return StopAt(4, signal.SIGTERM)

        def __exit__(self, *_):
            calls.append("exit")

    with monkeypatch.context() as patch:
        patch.setattr(running, "_signals", Signals)
        status, out, err = main(*QUICK, "--workdir=x")
    assert status == 143
    assert out == ""
    assert calls == ["enter", "exit"]
    assert "stopped at level 0, step" in err
    assert main(*QUICK, "--workdir=x")[0] == 0
    train(tmp_path / "y", tiny_spec(levels=1, replicates=1))
    assert_same_run(tmp_path / "x", tmp_path / "y")


def test_handlers_are_given_back(main):
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with running._signals() as came:
        assert came() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert came() == signal.SIGTERM
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.slow
def test_started_from_elsewhere_it_finds_its_configs_and_writes_here(tmp_path):
    status, out, err = command_line.run(
        *arguments(levels=0, replicates=1, branches="()"), cwd=tmp_path
    )
    assert status == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"runs/{folder.name}/results.csv" in out
    assert os.listdir(tmp_path) == ["runs"]
