"""Config files and overrides: what ends up in the spec."""

import dataclasses

import pytest

from lth_jax.config import files as configs
from lth_jax.config import from_config
from lth_jax.errors import SpecError
from lth_jax.lottery.branches import BRANCHES


def spec_of(*arguments):
    file, overrides, others = configs.split_arguments(arguments)
    assert others == []
    return from_config(configs.load_config(file or configs.DEFAULT, overrides, list(BRANCHES)))


DEFAULT = spec_of()


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("--config.levels=5", "levels", 5),
        ("--config.branches=()", "branches", ()),
        ("--config.branches=('reinit',)", "branches", ("reinit",)),
        ("--config.branches=reinit", "branches", ("reinit",)),
        ("--config.branches=random_mask,reinit", "branches", ("random_mask", "reinit")),
        ("--config.branches='reinit', 'random_mask'", "branches", ("reinit", "random_mask")),
        ("--config.pruning.layer_rates=()", "pruning.layer_rates", ()),
        ("--config.pruning.layer_rates=(('fc*', 0.5),)", "pruning.layer_rates", (("fc*", 0.5),)),
        (
            "--config.pruning.layer_rates=(('fc1',1),('output',0))",
            "pruning.layer_rates",
            (("fc1", 1.0), ("output", 0.0)),
        ),
        ("--config.train.steps=3ep", "train.steps", "3ep"),
        ("--config.train.steps=5000", "train.steps", "5000"),
        ("--config.rewind.step=2ep", "rewind.step", "2ep"),
        ("--config.model.hidden=(32,16)", "model.hidden", (32, 16)),
        ("--config.model.hidden=32", "model.hidden", (32,)),
        ("--config.model.hidden=()", "model.hidden", ()),
        ("--config.train.learning_rate=1e-2", "train.learning_rate", 0.01),
        ("--config.train.learning_rate=1", "train.learning_rate", 1.0),
        ("--config.execution.compilation_cache=true", "execution.compilation_cache", True),
        ("--config.data.data_dir=/some/where", "data.data_dir", "/some/where"),
        ("--config.data.data_dir=", "data.data_dir", ""),
        ("--config.model.dropout=0.5", "model.dropout", 0.5),
        ("--config.model.dropout=None", "model.dropout", None),
        ("--config.model.dropout=-1", "model.dropout", None),
        ("--config.pruning.rounds=3", "pruning.rounds", 3),
        ("--config.pruning.at=rewind", "pruning.at", "rewind"),
        ("--config.pruning.at=", "pruning.at", None),
        ("--config.checkpoint.every_seconds=0", "checkpoint.every_seconds", 0.0),
    ],
)
def test_an_override_changes_its_field_and_no_other(argument, field, value):
    spec = spec_of(argument)
    group, _, name = field.rpartition(".")
    found = getattr(getattr(spec, group) if group else spec, name)
    assert found == value
    assert type(found) is type(value)
    target = getattr(DEFAULT, group) if group else DEFAULT
    changed = dataclasses.replace(target, **{name: value})
    assert spec == (dataclasses.replace(DEFAULT, **{group: changed}) if group else changed)


def test_branch_options():
    spec = spec_of("--config.branch.reinit.draws=3", "--config.branch.reinit.levels=(1,4)")
    assert spec.branch_spec("reinit").draws == 3
    assert spec.branch_spec("reinit").levels == (1, 4)
    assert spec.branch_spec("random_mask").draws == 1
    named = spec_of("--config.branches=again", "--config.branch.again.kind=reinit")
    assert named.branch_spec("again").kind == "reinit"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("weight_decay=0.1", 0.1), ("weight_decay=0", 0.0), ("weight_decay=-1", None),
        ("momentum=0.5", 0.5), ("learning_rate=0", None), ("learning_rate=1e-2", 0.01),
        ("steps=3ep", "3ep"), ("steps=", None), ("optimizer=sgd", "sgd"), ("batch_size=7", 7),
        ("optimizer=None", None), ("batch_size=None", None),
    ],
)  # fmt: skip
def test_options_of_a_branch_that_may_be_none(option, value):
    spec = spec_of(f"--config.branch.reinit.{option}")
    found = getattr(spec.branch_spec("reinit"), option.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


def test_none_is_overridden_wherever_it_comes_from(tmp_path):
    """In a plain ConfigDict it has no type; and a later override takes an earlier one back."""
    (tmp_path / "own.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'model': {'dropout': None}, 'branch': {'x': {'momentum': 0.5}}})\n"
    )
    arguments = [f"--config={tmp_path}/own.py", "--config.branches=x"]
    spec = spec_of(*arguments, "--config.model.dropout=0.5", "--config.branch.x.momentum=None")
    assert (spec.model.dropout, spec.branch_spec("x").momentum) == (0.5, None)
    again = spec_of(*arguments, "--config.model.dropout=0.5", "--config.model.dropout=None")
    assert again.model.dropout is None
    source = spec_of(*arguments, "--config.source.model.dropout=0.25").source
    assert source == {"model.dropout": 0.25}
    with pytest.raises(SpecError, match=r"model\.dropout='x': accepted: a number or None"):
        spec_of("--config.model.dropout=x")
    with pytest.raises(SpecError, match=r"levels='None': accepted: an integer$"):
        spec_of("--config.levels=None")


def test_branch_options_that_a_config_file_leaves_out_can_be_set():
    """The paper's variant gives `reinit` its draws, and nothing else."""
    spec = spec_of("--config=configs/lenet_mnist.py:paper", "--config.branch.reinit.levels=(1,2)")
    assert spec.branch_spec("reinit").draws == 3
    assert spec.branch_spec("reinit").levels == (1, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=configs/lenet_mnist.py", "--config.levels=5"],
        ["--config.levels=5", "--config=configs/lenet_mnist.py"],
        ["--config", "configs/lenet_mnist.py", "--config.levels", "5"],
        ["--config.levels", "5", "--config", "configs/lenet_mnist.py"],
        ["-config=configs/lenet_mnist.py", "-config.levels=5"],
        ["--config.levels=7", "--config=configs/lenet_mnist.py", "--config.levels=5"],
    ],
)
def test_config_and_overrides_in_any_order_and_form(arguments):
    spec = spec_of(*arguments)
    assert spec.data.name == "mnist"
    assert spec.levels == 5


def test_a_config_is_a_file_from_here_or_else_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert spec_of("--config=configs/lenet_mnist.py").data.name == "mnist"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "lenet_mnist.py").write_text(
        "from lth_jax import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.levels = 77\n"
        "    return config\n"
    )
    assert spec_of("--config=configs/lenet_mnist.py").levels == 77
    assert spec_of(f"--config={tmp_path}/configs/lenet_mnist.py").levels == 77
    for name in ("lenet_mnist", "lenet_mnist.py", "configs/lenet_mnist"):  # of no file here
        assert spec_of(f"--config={name}:paper").levels != 77


def test_a_drive_is_no_variant():
    assert configs.split_name(r"C:\mine\two.py:9") == (r"C:\mine\two.py", "9")
    assert configs.split_name("D:/two.py") == ("D:/two.py", "")
    assert configs.split_name("d:9") == ("d", "9")


def test_every_config_of_the_package_goes_by_its_name():
    """And takes what it builds upon from `lth_jax.configs`, which a wheel has."""
    known = configs.known_configs()
    assert {"lenet_digits", "paper/figure4", "transfer/adam_to_sgd"} <= known.keys()
    for name, file in known.items():
        assert configs.find_file(name) == file
        assert "\nfrom configs" not in file.read_text(encoding="utf-8"), f"{name}: lth_jax.configs"


def test_what_is_not_there_is_answered_by_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "experiment.py").write_text("")
    (tmp_path / "mine").write_text("")
    for name, said in {
        "configs/nope.py": "no such file; accepted: char_gpt, compare/methods_conv2, ",
        "configs/paper/figur4.py": "did you mean 'paper/figure4'?",
        "figure4": "did you mean 'paper/figure4'?",
        "folder/experimnt.py": "did you mean 'folder/experiment.py'?",
        "folder/experiment": "did you mean 'folder/experiment.py'?",
        "mine": "no Python file; ",
        "folder": "no such file; ",
    }.items():
        with pytest.raises(SpecError, match="file") as error:
            configs.find_file(name)
        assert said in str(error.value)
        assert len(str(error.value)) < 200


def test_a_config_may_import_its_neighbour_and_take_a_variant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base_of_two.py").write_text(
        "from lth_jax import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.levels = 3\n"
        "    return config\n"
    )
    (tmp_path / "two.py").write_text(
        "from base_of_two import get_config as base\n"
        "def get_config(size='4'):\n"
        "    config = base()\n"
        "    config.replicates = int(size)\n"
        "    config.lock()\n"
        "    return config\n"
    )
    spec = spec_of("--config=two.py:9", "--config.branch.reinit.draws=2")
    assert (spec.levels, spec.replicates, spec.branch_spec("reinit").draws) == (3, 9, 2)
    assert spec_of("--config=two.py").replicates == 4
    assert configs.config_name("two.py:9") == "two"


BROKEN = {
    "no function": ("x = 1\n", "no function get_config"),
    "raises": ("def get_config():\n    raise RuntimeError('sorry\\nand more')\n", "RuntimeError"),
    "syntax": ("def get_config(:\n", "SyntaxError"),
    "import": ("import no_such_module_at_all\n", "no_such_module_at_all"),
    "returns nothing": ("def get_config():\n    pass\n", "None"),
    "returns a number": ("def get_config():\n    return 3\n", "3"),
    "needs a variant": ("def get_config(size):\n    return size\n", "size"),
    "exits": ("import sys\nsys.exit('bye')\n", "bye"),
    "wrong type": (
        "from lth_jax import default_config\n"
        "def get_config():\n    c = default_config()\n    c.levels = 'x'\n    return c\n",
        "TypeError",
    ),
    "unknown field": (
        "from lth_jax import default_config\n"
        "def get_config():\n    c = default_config()\n    c.levles = 2\n    return c\n",
        "did you mean 'levels'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_config_file_ends_in_one_line(tmp_path, name):
    text, fragment = BROKEN[name]
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(SpecError) as error:
        spec_of(f"--config={tmp_path}/broken.py")
    message = str(error.value)
    assert fragment in message
    assert "\n" not in message
    assert "broken.py" in message or "levels" in message


def test_a_config_of_ones_own_needs_no_default(tmp_path):
    """A plain ConfigDict with a few fields is filled up with the defaults."""
    (tmp_path / "own.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'levels': 2, 'train': {'steps': '7'}})\n"
    )
    spec = spec_of(f"--config={tmp_path}/own.py", "--config.levels=4")
    assert (spec.levels, spec.train.steps, spec.train.batch_size) == (4, "7", 60)
