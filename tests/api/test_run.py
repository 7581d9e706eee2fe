"""`lth_jax.run`: an experiment from Python, quiet, stoppable, and beside others."""

import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

import lth_jax
from lth_jax.api import run as module
from lth_jax.config.files import read_config
from lth_jax.errors import DataError, SpecError, StoreError
from lth_jax.lottery import building
from lth_jax.lottery.custom import in_use, register
from lth_jax.store import RunDirectory
from lth_jax.training import backend
from lth_jax.training.loop import Program

from ..tiny import FIELDS, StopAt, assert_same_run, experiment, finished_run, tiny_spec

pytestmark = pytest.mark.usefixtures("without_figures")


def tiny_config(config=None, **fields):
    """The tiny experiment as a `ConfigDict`, made of another if one is given."""
    config = lth_jax.default_config() if config is None else config
    changed = {name.replace("__", "."): value for name, value in fields.items()}
    for name, value in {**FIELDS, **changed}.items():
        *groups, last = name.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[last] = value
    return config


@pytest.fixture
def shared(monkeypatch):
    """Lets experiments share what is compiled."""
    monkeypatch.setattr(building, "build", experiment)


@pytest.fixture(scope="module")
def alone():
    """The tiny experiment of one level, as it is trained without this function."""
    return finished_run(tiny_spec(levels=1))


@pytest.mark.usefixtures("shared")
def test_it_gives_what_the_command_gives_and_prints_nothing(tmp_path, alone, capfd, monkeypatch):
    config, before = tiny_config(levels=1), signal.getsignal(signal.SIGINT)
    asked = config.to_dict()
    found = lth_jax.run(config, workdir=tmp_path / "run")
    assert_same_run(tmp_path / "run", alone)
    assert found.path == tmp_path / "run"
    assert [row.run_id for row in found.rows] == list(RunDirectory.read(alone).rows)
    assert found.status == "finished"
    assert config.to_dict() == asked
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "run" / "report.html").exists()
    monkeypatch.setattr(building, "build", None)  # nothing is trained twice
    assert lth_jax.run(config, workdir=str(tmp_path / "run")).rows == found.rows


@pytest.mark.usefixtures("shared")
def test_progress_is_shown_on_standard_error_alone(tmp_path, capfd):
    lth_jax.run(tiny_config(levels=0, replicates=1), tmp_path / "run", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "level 0" in err
    assert not [h for h in logging.getLogger("lth_jax").handlers if isinstance(h, module._Said)]


@pytest.mark.usefixtures("shared")
def test_without_a_workdir_it_is_named_as_the_command_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(levels=0, replicates=1)
    found = lth_jax.run(config)
    assert str(found.path) == f"runs/experiment-{found.identity}"
    (tmp_path / "mine.py").write_text(
        "import lth_jax\n\n\ndef get_config():\n"
        "    config = lth_jax.default_config()\n"
        + "".join(f"    config.{k} = {v!r}\n" for k, v in FIELDS.items() if k != "branches")
        + "    config.levels = 0\n    config.replicates = 1\n    return config\n"
    )
    named = lth_jax.run("mine.py")
    assert str(named.path) == f"runs/mine-{named.identity}"
    assert named.identity == found.identity
    command = RunDirectory.read(named.path).record_of_spec()["command"]
    assert command == ["-m", "lth_jax", "run", "mine.py", f"--workdir={named.path}"]
    assert named.rows[0].early_stop_val_loss == found.rows[0].early_stop_val_loss


@pytest.mark.slow
def test_two_at_once_in_threads_give_the_bits_of_each_alone(tmp_path, alone):
    others = finished_run(tiny_spec(levels=1, seed=3))
    configs = {"first": tiny_config(levels=1), "second": tiny_config(levels=1, seed=3)}
    together = threading.Barrier(2)

    def work(name):
        together.wait()
        return lth_jax.run(configs[name], workdir=tmp_path / name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, configs))
    assert_same_run(tmp_path / "first", alone)
    assert_same_run(tmp_path / "second", others)


def test_a_directory_in_use_is_refused(tmp_path):
    spec = tiny_spec(levels=0)
    store = RunDirectory.open(tmp_path / "run", spec, "tiny", [])
    try:
        with pytest.raises(StoreError, match="is in use by process"):
            lth_jax.run(tiny_config(levels=0), workdir=tmp_path / "run")
    finally:
        store.close()


@pytest.mark.usefixtures("shared")
def test_ctrl_c_saves_and_raises_and_the_same_call_goes_on(tmp_path, alone, monkeypatch):
    class Interrupting(module._Logged):
        """Presses Ctrl-C once level 1 has begun."""

        def __init__(self):
            self.stop = StopAt(1, 20)

        def level_started(self, *event):
            self.stop.level_started(*event)

        def advanced(self, *event):
            self.stop.advanced(*event)
            if self.stop():
                os.kill(os.getpid(), signal.SIGINT)

    config = tiny_config(levels=1)
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_Logged", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            lth_jax.run(config, workdir=tmp_path / "run")
    stopped = lth_jax.read(tmp_path / "run")
    assert stopped.status == "stopped"
    assert {row.level for row in stopped.rows} == {0}
    assert RunDirectory.read(tmp_path / "run").progress_checkpoints()
    lth_jax.run(config, workdir=tmp_path / "run")
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.usefixtures("shared")
def test_it_computes_as_exactly_as_the_config_says(tmp_path, monkeypatch):
    """On a GPU, here only by its name: all that is traced for this experiment, in no other."""
    found, compile_program = [], Program.compile

    def watched(*args):
        found.append(jax.config.jax_default_matmul_precision)
        compile_program(*args)

    monkeypatch.setattr(Program, "compile", watched)
    monkeypatch.setattr(Program, "is_compiled", lambda *_: False)
    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(backend, "platform", lambda platform=platform: platform)
        config = tiny_config(levels=0, replicates=1, execution__precision="high")
        lth_jax.run(config, workdir=tmp_path / platform)
    assert found == [None, "high"]


@pytest.mark.usefixtures("shared")
def test_it_computes_in_32_bits_and_leaves_the_callers_bits_alone(tmp_path, alone, monkeypatch):
    seen = []

    class Looking(module._Logged):
        def advanced(self, *event):
            with ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(lambda: jax.numpy.ones(1).dtype.name).result())

    monkeypatch.setattr(module, "_Logged", Looking)
    jax.config.update("jax_enable_x64", True)
    try:
        lth_jax.run(tiny_config(levels=1), workdir=tmp_path / "run")
        assert jax.numpy.ones(1).dtype == "float64"
    finally:
        jax.config.update("jax_enable_x64", False)
    assert set(seen) == {"float64"}  # what others do meanwhile
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ("nope", {}, "--config=nope: no such file"),
        ("lenet_digits", {"workdir": ""}, "workdir=''"),
        ("lenet_digits", {"rows": "mine.py"}, "rows='mine.py': lenet_digits brings its own"),
        (3, {}, "config=3: accepted: a config file's name or path, or a ConfigDict"),
        ({"train": {"learning_rat": 1}}, {}, "config.train.learning_rat: no such field"),
        ({"model": {"name": "mine"}}, {}, "config.model.name='mine'"),
    ],
)
def test_what_is_wrong_is_raised_in_one_line(config, options, said, tmp_path):
    with pytest.raises(SpecError) as error:
        lth_jax.run(config, **{"workdir": tmp_path / "run", **options})
    assert said in str(error.value)
    assert len(str(error.value)) < 200
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_had_are_a_data_error(tmp_path):
    with pytest.raises(DataError):
        lth_jax.run(tiny_config(data__name="no_such_data"), workdir=tmp_path / "run")


OWN = """
import lth_jax
import flax.linen as nn


class Mine(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.classes)(nn.relu(nn.Dense(WIDTH)(x.reshape(len(x), -1))))


MODELS = {"mine": Mine}


def get_config():
    config = lth_jax.default_config()
    config.model.name = "mine"
    return config
"""


@pytest.fixture
def own_rows(monkeypatch):
    """The registry of networks, as it was, after the test."""
    from lth_jax.models import MODELS

    kept = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(kept)


@pytest.mark.slow
@pytest.mark.usefixtures("own_rows")
def test_own_rows_come_from_the_config_or_from_the_file_that_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN.replace("WIDTH", "6"))
    few = {"levels": 0, "replicates": 1, "branches": (), "pruning__layer_rates": (),
           "model__hidden": lth_jax.default_config().model.hidden}  # fmt: skip
    config = tiny_config(lth_jax.get_config(file), **few)
    assert config.model.name == "mine"
    config.branch.reinit.draws = 2  # every option is there to be changed
    found = lth_jax.run(config, workdir=tmp_path / "run", rows=file)
    record = RunDirectory.read(found.path).record_of_spec()
    assert record["own"]["rows"] == {"model.name": "mine"}
    assert (tmp_path / "run" / "config" / "mine.py").exists()
    assert record["command"] == []  # no line at a terminal says all of it


@pytest.mark.usefixtures("own_rows")
def test_a_name_means_one_thing_as_long_as_a_run_uses_it(tmp_path):
    files = []
    for width in (6, 6, 7):
        folder = tmp_path / str(len(files))
        folder.mkdir()
        (folder / "mine.py").write_text(OWN.replace("WIDTH", str(width)))
        files.append(read_config(str(folder / "mine.py")))
    first, same, other = files
    with in_use(first):
        register(same)
        with pytest.raises(SpecError, match=r"MODELS\['mine'\]: a run of this process uses"):
            register(other)
    register(other)
