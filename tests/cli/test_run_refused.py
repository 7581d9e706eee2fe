"""`run.py`: what wrong input is answered with."""

import os
import re

import pytest

from lth_jax import data
from lth_jax.errors import DataError
from lth_jax.lottery import building

from ..tiny import arguments
from . import command_line
from .command_line import QUICK


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """Fails if data is loaded or anything is written."""

    def load(*_, **__):
        raise AssertionError("data was loaded before the input was checked")

    monkeypatch.setattr(data, "load", load)
    before = sorted(tmp_path.rglob("*"))
    yield
    assert sorted(tmp_path.rglob("*")) == before


WRONG = {
    "unknown field": (["--config.levles=3"], ["config.levles", "did you mean 'levels'"]),
    "unknown field in a group": (
        ["--config.train.learning_rat=1"],
        ["config.train.learning_rat", "did you mean 'learning_rate'", "batch_size"],
    ),
    "unknown group": (["--config.trian.steps=1"], ["config.trian.steps", "'train'"]),
    "field of a field": (["--config.seed.x=1"], ["config.seed.x", "config.seed is no group"]),
    "group": (["--config.train=5"], ["config.train", "such as config.train.batch_size"]),
    "no field": (["--config.=5"], ["no such field", "levels"]),
    "integer": (["--config.levels=many"], ["config.levels='many'", "an integer"]),
    "integer from float": (["--config.levels=1.5"], ["config.levels='1.5'", "an integer"]),
    "empty integer": (["--config.levels="], ["config.levels=''", "an integer"]),
    "number": (["--config.train.learning_rate=fast"], ["learning_rate='fast'", "a number"]),
    "not finite": (["--config.train.learning_rate=nan"], ["learning_rate=nan", "1e-30 to 1e30"]),
    "bool": (["--config.execution.compilation_cache=perhaps"], ["'perhaps'", "True or False"]),
    "tuple": (["--config.model.hidden=(1,"], ["config.model.hidden='(1,'", "a tuple"]),
    "tuple elements": (["--config.model.hidden=('a',)"], ["config.model.hidden", "'a'", "integer"]),
    "branches": (["--config.branches=(1,)"], ["config.branches", "1", "a string"]),
    "pairs": (["--config.pruning.layer_rates=('output',0.5)"], ["layer_rates", "pairs"]),
    "duration": (["--config.train.steps=3epochs"], ["train.steps='3epochs'", "40ep"]),
    "negative duration": (["--config.train.steps=-3"], ["train.steps='-3'", "40ep"]),
    "no steps": (["--config.train.steps=0"], ["train.steps='0'", "at least one step"]),
    "no value": (["--config.levels"], ["--config.levels", "VALUE"]),
    "negative": (["--config.seed=-1"], ["config.seed=-1", "0 to 4,294,967,295"]),
    "negative with a space": (["--config.levels", "-1"], ["config.levels=-1", "0 to 1,000"]),
    "no replicates": (["--config.replicates=0"], ["config.replicates=0", "1 to 1,000"]),
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
        ["criterion='size'", "grasp, large_final_same_sign"],
    ),
    "branch": (["--config.branches=reinit,random"], ["branches='random'", "'random_mask'"]),
    "the trunk's name": (["--config.branches=ticket"], ["config.branches", "'ticket'"]),
    "a branch twice": (["--config.branches=reinit,reinit"], ["config.branches", "once"]),
    "a branch's name": (["--config.branches=../x"], ["config.branches", "letters"]),
    "a branch's kind": (
        ["--config.branches=a", "--config.branch.a.kind=renit"],
        ["config.branch.a.kind='renit'", "did you mean 'reinit'"],
    ),
    "options of no branch": (["--config.branch.other.draws=2"], ["branch.other", "cyclic"]),
    "option of a branch": (
        ["--config.branch.reinit.draw=2"],
        ["'draws'", "accepted: ablation, align"],
    ),
    "no draws": (["--config.branch.reinit.draws=0"], ["branch.reinit.draws=0", "1 to 1,000"]),
    "level 0 of a branch": (["--config.branch.reinit.levels=0"], ["(0,)", "levels from 1"]),
    "dataset": (["--config.data.name=digit"], ["data.name", "digit", "did you mean 'digits'"]),
    "pattern": (
        ["--config.pruning.layer_rates=(('outputs',0.5),)"],
        ["config.pruning.layer_rates", "'outputs'", "output/kernel"],
    ),
    "batch": (["--config.train.batch_size=1301"], ["batch_size=1301", "1200 training examples"]),
    "batch of part": (
        ["--config.train.batch_size=60", "--config.data.train_size=50"],
        ["batch_size=60", "50 training examples"],
    ),
    "validation": (["--config.data.validation_size=1500"], ["validation_size=1500", "1499"]),
    "training": (["--config.data.train_size=1400"], ["train_size=1400", "1200"]),
    "rewind": (["--config.rewind.step=500"], ["config.rewind.step='500'", "500"]),
    "rewind in epochs": (["--config.rewind.step=25ep"], ["config.rewind.step='25ep'", "500"]),
    "file": (["--config=configs/lenet_digit.py"], ["lenet_digit.py", "'lenet_digits'?"]),
    "folder": (["--config=configs"], ["--config=configs", "no such file"]),
    "no file": (["--config="], ["--config=''", "lenet_digits"]),
    "config alone": (["--config"], ["--config=VALUE"]),
    "variant": (["--config=configs/lenet_mnist.py:big"], ["'big'", "laptop, paper"]),
    "no variants": (["--config=configs/lenet_digits.py:big"], ["big", "no variants"]),
    "flag": (["--wrokdir=x"], ["--wrokdir", "did you mean '--workdir'"]),
    "word": (["lenet_digts"], ["lenet_digts", "'lenet_digits'?"]),
    "word beside a config": (["--config=lenet_mnist", "conv2"], ["conv2: ", "one of the two"]),
    "two words": (["lenet_mnist", "conv2_cifar10"], ["conv2_cifar10", "no such flag"]),
    "workdir alone": (["--workdir"], ["--workdir", "expected one argument"]),
    "empty workdir": (["--workdir="], ["--workdir", "a folder"]),
    "a long word": (["--config.data.name=mnist", "x" * 5000], ["error: " + "x" * 50 + "…"]),
    "NUL": (["\0"], ["a NUL in an argument"]),
    "separator": (["--", "--config.levels=1"], ["--"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_answered_in_one_line_before_anything_is_done(main, untouched, name):
    given, fragments = WRONG[name]
    status, out, err = main(*given)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 200
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_data_that_cannot_be_had_leave_no_directory(main, tmp_path, monkeypatch):
    def refuse(spec, network=None):
        raise DataError("no such data")

    monkeypatch.setattr(building, "build", refuse)
    assert main(*QUICK, "--workdir=deep/runs/x") == (2, "", "error: no such data\n")
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    assert main(*QUICK, "--workdir=mine/runs")[0] == 2
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]
    assert main(*QUICK, "--workdir=mine")[0] == 2
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"


@pytest.mark.slow
def test_what_is_there_already_is_no_matter_of_data(main, tmp_path, monkeypatch):
    assert main(*QUICK, "--workdir=x")[0] == 0
    before = set((tmp_path / "x").rglob("*"))

    def refuse(spec, network=None):
        raise DataError("no such data")

    monkeypatch.setattr(building, "build", refuse)
    grown = arguments(levels=2, replicates=1, branches="reinit,random_mask")
    assert main(*grown, "--workdir=x")[0] == 2
    assert set((tmp_path / "x").rglob("*")) == before
