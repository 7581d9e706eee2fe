"""An experiment of one's own after an edit, as a new user would meet it, and a stranger's run."""

import contextlib
import json
import shutil

import numpy as np
import pytest

import lth_jax
from lth_jax import cli as commands
from lth_jax.cli import run as run_command
from lth_jax.store.tables import TRUNK

from ..registries import kept_registries
from ..tiny import results

FILES = {
    "mine.py": """
import os
import flax.linen as nn
import numpy as np
import lth_jax
import scores

LEVELS = 1


class Net(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(6, name="fc1")(x.reshape(len(x), -1)))
        return nn.Dense(self.classes, name="output")(x)


def stripes():
    given = np.load(os.environ["STRIPES"])
    labels = given["labels"]
    return (given["images"][:60], labels[:60]), (given["images"][60:], labels[60:])


def opposite(scoring):
    return scores.opposite(scoring)


MODELS = {"net": Net}
DATASETS = {"stripes": stripes}
CRITERIA = {"opposite": opposite}


def get_config():
    config = lth_jax.default_config()
    config.model.name = "net"
    config.data.name = "stripes"
    config.data.validation_size = 10
    config.train.steps = "4"
    config.train.batch_size = 10
    config.train.kernel = "xla"
    config.eval.every = "2"
    config.levels = LEVELS
    config.replicates = 1
    config.branches = ()
    config.pruning.criterion = "opposite"
    return config
""",
    "scores.py": """
import jax


def opposite(scoring):
    return jax.tree.map(lambda leaf: -leaf, scoring.final)
""",
}


def stripes(change=0.0):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    images = random.normal(size=(90, 6, 6)).astype(np.float32)
    images[np.arange(90), labels] += 3
    images[0, 0, 0] += change
    return {"images": images, "labels": labels}


@contextlib.contextmanager
def other_process(monkeypatch):
    """As in a process of its own: the registries are the package's."""
    monkeypatch.setattr("lth_jax.report.figures.FIGURES", {})
    with kept_registries():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of one's own, in `run`, beside its config."""
    folder = tmp_path_factory.mktemp("edited")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    np.savez(folder / "stripes.npz", **stripes())
    with pytest.MonkeyPatch.context() as patch, other_process(patch):
        patch.setenv("STRIPES", str(folder / "stripes.npz"))
        assert run_command.main([f"--config={folder / 'mine.py'}", f"--workdir={folder}/run"]) == 0
    return folder


@pytest.fixture
def mine(trained, tmp_path, monkeypatch):
    """A copy of it to edit; the current folder is another."""
    folder = shutil.copytree(trained, tmp_path / "mine")
    monkeypatch.setenv("STRIPES", str(folder / "stripes.npz"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments):
        with other_process(monkeypatch):
            status = commands.main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines(keepends=True) if not line.startswith("loading ")]
        return status, out, "".join(said)

    return call


def edit(file, old, new):
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))


def again(mine, *arguments):
    return ("run", f"--config={mine / 'mine.py'}", f"--workdir={mine / 'run'}", *arguments)


EDITS = {
    "MODELS": ("mine.py", "nn.Dense(6, name", "nn.Dense(7, name", "mine.py: Net"),
    "DATASETS": ("mine.py", '["images"][60:]', '["images"][61:]', "mine.py: stripes"),
    "CRITERIA": ("mine.py", "scores.opposite(scoring)", "scoring.final", "opposite"),
    "a module": ("scores.py", "-leaf", "-2 * leaf", "scores.py: opposite"),
}


@pytest.mark.parametrize("more", [(), ("--config.levels=2",)], ids=["again", "grown"])
@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_is_refused_and_named(mine, call, kind, more):
    file, old, new, said = EDITS[kind]
    before = (mine / "run" / "spec.json").read_bytes()
    edit(mine / file, old, new)
    status, out, err = call(*again(mine, *more))
    assert (status, out) == (2, "")
    assert "holds another experiment (the source of model.name 'net', data.name 'stripes'" in err
    assert said in err
    assert err.endswith("; choose another --workdir\n")
    assert err.count("\n") == 1
    assert (mine / "run" / "spec.json").read_bytes() == before


def test_a_run_keeps_its_config_and_says_what_its_data_are(trained):
    kept = sorted(file.name for file in (trained / "run" / "config").iterdir())
    assert kept == ["mine.py", "scores.py"]
    record = json.loads((trained / "run" / "spec.json").read_text())
    assert record["own"]["rows"] == {
        "model.name": "net", "data.name": "stripes", "pruning.criterion": "opposite",
    }  # fmt: skip
    assert record["data"]["name"] == "stripes"
    assert len(record["data"]["digest"]) == 16


@pytest.mark.parametrize("more", [(), ("--config.levels=2",)], ids=["again", "grown"])
def test_other_arrays_are_refused(mine, call, more):
    before = (mine / "run" / "spec.json").read_bytes()
    np.savez(mine / "stripes.npz", **stripes(change=1e-3))
    status, out, err = call(*again(mine, *more))
    assert (status, out) == (2, "")
    assert "holds another experiment (the examples of data.name 'stripes' differ: " in err
    assert err.count("\n") == 1
    assert (mine / "run" / "spec.json").read_bytes() == before


def test_words_and_what_may_grow_are_no_other_experiment(mine, call):
    edit(mine / "mine.py", "def opposite", "# What it says.\ndef opposite")
    edit(mine / "mine.py", "LEVELS = 1", "LEVELS = 2")
    assert call(*again(mine))[0] == 0
    assert [row["level"] for row in results(mine / "run")] == ["0", "1", "2"]
    assert "# What it says." in (mine / "run" / "config" / "mine.py").read_text()


def test_a_run_begun_before_sources_were_recorded_goes_on_with_a_line(mine, call):
    file = mine / "run" / "spec.json"
    record = json.loads(file.read_text())
    kept = {name: record.pop(name) for name in ("config", "own", "data")}
    file.write_text(json.dumps(record))
    shutil.rmtree(mine / "run" / "config")
    status, _, err = call(*again(mine))
    assert status == 0
    assert err.count("\n") == 1
    assert "was begun before the source of model.name 'net'" in err
    assert json.loads(file.read_text()).items() >= kept.items()
    assert call(*again(mine))[2] == ""


def test_a_config_of_another_name_is_the_same_experiment(mine, call):
    (mine / "mine.py").rename(mine / "ours.py")
    assert call("run", f"--config={mine / 'ours.py'}", f"--workdir={mine / 'run'}")[0] == 0


# --- Reading a run --------------------------------------------------------------------------------


NETWORK = [["export", "--format=torch"], ["predict", "--index=0"]]


def reading(command, run, out, *arguments):
    return (command[0], run, "--level=1", *command[1:], f"--out={out}", *arguments)


@pytest.mark.parametrize("command", NETWORK, ids=" ".join)
def test_a_run_is_read_by_its_own_copy_or_a_named_file(mine, call, tmp_path, command):
    run = shutil.move(mine / "run", tmp_path / "elsewhere" / "moved")
    config = shutil.copytree(mine, tmp_path / "own")
    (mine / "mine.py").unlink()
    out = tmp_path / "out.png"
    for way in (f"--config={config / 'mine.py'}", "--trust"):
        status, _, err = call(*reading(command, run, out, way))
        assert (status, err) == (0, "")
        assert out.stat().st_size > 100
        out.unlink()


@pytest.mark.parametrize("command", NETWORK, ids=" ".join)
def test_an_edited_file_is_not_taken_for_the_run_s(mine, call, tmp_path, command):
    edit(mine / "scores.py", "-leaf", "leaf")
    edit(mine / "run" / "config" / "mine.py", "Dense(6", "Dense(5")
    for way, said in {
        f"--config={mine / 'mine.py'}": "scores.py: ",
        "--trust": "mine.py: Net",
    }.items():
        status, _, err = call(*reading(command, mine / "run", tmp_path / "out.png", way))
        assert status == 2
        assert "its source is not what" in err
        assert said in err
        assert err.count("\n") == 1


@pytest.fixture
def stranger(mine):
    """A run from elsewhere, whose code would leave a marker wherever it ran."""
    marker = mine / "marker"
    for file in (mine / "mine.py", mine / "run" / "config" / "mine.py"):
        file.write_text(f"import os\nos.mkdir({str(marker)!r})\n{file.read_text()}")
    return mine


def test_a_stranger_s_code_is_never_run_unasked(stranger, call, tmp_path):
    run, out = stranger / "run", tmp_path / "out.png"
    for command in (["inspect", run, "--level=1"], ["list", stranger], ["report", run]):
        assert call(*command)[0] == 0
    for command in NETWORK:
        status, _, err = call(*reading(command, run, out))
        assert status == 2
        assert err.count("\n") == 1
        assert "--config=FILE that has it, or --trust" in err
        assert "config.model.name='net', config.data.name='stripes'" in err
        assert not out.exists()
    status, _, err = call(*reading(["export", "--format=compact"], run, out))
    assert (status, err[:24]) == (2, "error: --format=compact:")
    assert call(*reading(["export", "--format=npz"], run, out))[0] == 0  # arrays, as they lie there
    ticket = lth_jax.load_ticket(run, 1)
    assert lth_jax.load_trained(out)[0].keys() == ticket.state.params.keys()
    out.unlink()
    assert not (stranger / "marker").exists()
    assert call(*reading(NETWORK[1], run, out, "--trust"))[0] == 2  # it is not what was trained
    assert (stranger / "marker").exists()  # but it was run, as asked


def test_an_older_run_without_a_copy_says_so(stranger, call, tmp_path):
    record = json.loads((stranger / "run" / "spec.json").read_text())
    for name in ("config", "own", "data"):
        del record[name]
    for name in ("../mine.py", "mine.py", 3):
        (stranger / "run" / "spec.json").write_text(json.dumps({**record, "config": name}))
        shutil.rmtree(stranger / "run" / "config", ignore_errors=True)
        status, _, err = call(*reading(NETWORK[1], stranger / "run", tmp_path / "out", "--trust"))
        assert status == 2
        assert ("keeps no copy of its config; accepted: --config=FILE" in err) or name == 3
    assert not (stranger / "marker").exists()


@pytest.mark.slow
def test_tickets_of_a_stranger_are_transferred_without_its_code(stranger, call, tmp_path):
    fields = {
        "model.name": "mlp", "model.hidden": "(6,)", "data.name": "digits", "data.side": 6,
        "data.validation_size": 10, "data.train_size": 40, "data.test_size": 20, "levels": 1,
        "replicates": 1, "branches": "transfer", "train.steps": "4", "train.batch_size": 10,
        "eval.every": "2", "train.kernel": "xla", "source.run": str(stranger / "run"),
    }  # fmt: skip
    changes = [f"--config.{name}={value}" for name, value in fields.items()]
    assert call("run", *changes, f"--workdir={tmp_path / 'target'}")[0] == 0
    assert "transfer" in {row["branch"] for row in results(tmp_path / "target")} - {TRUNK}
    assert not (stranger / "marker").exists()
    record = json.loads((tmp_path / "target" / "spec.json").read_text())
    source = json.loads((stranger / "run" / "spec.json").read_text())
    assert record["branches"]["transfer"]["science"]["source"].startswith(source["identity"] + "+")
