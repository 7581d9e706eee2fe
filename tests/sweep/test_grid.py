"""Which experiments a grid, or a function, asks for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.api.choice import choose
from lth_jax.errors import SpecError
from lth_jax.sweep.grid import axis_of, cells_of, check_cells

MANY = ",".join(map(str, range(100)))
VALUES = st.sampled_from(
    ["1e-3", "0", "mlp", "(300,100)", "()", "('a, b',)", "{'a': (1, 2)}", '","']
)


@given(st.lists(VALUES, min_size=1, max_size=5, unique=True))
def test_commas_part_values_unless_brackets_or_quotes_hold_them(values):
    axis = axis_of("config.model.hidden=" + ",".join(values))
    assert axis == ("model.hidden", tuple(values))


@pytest.mark.parametrize("text", ["seed", "seed=", "=1", "seed=1,,2", "a-b=1", "seed=1,1", ""])
def test_what_is_no_axis_is_refused(text):
    with pytest.raises(SpecError, match="--grid="):
        axis_of(text)


@pytest.mark.slow
def test_a_grid_is_all_combinations_each_the_experiment_of_its_own_command():
    grid = ["model.hidden=(8,),(8,4)", "train.optimizer=sgd,adam", "seed=0,3"]
    cells = cells_of("lenet_digits", ["levels=1"], grid)
    fields = ("model.hidden", "train.optimizer", "seed")
    values = [("(8,)", "(8,4)"), ("sgd", "adam"), ("0", "3")]
    wanted = [
        tuple(f"{name}={value}" for name, value in zip(fields, each, strict=True))
        for each in itertools.product(*values)
    ]
    assert [cell.changes for cell in cells] == wanted
    for cell in cells:
        alone = choose("lenet_digits", ["levels=1", *cell.changes])
        assert cell.chosen.spec == alone.spec
        assert cell.name == alone.path(None).name


def test_more_values_leave_the_directories_of_those_that_were():
    few = cells_of("lenet_digits", [], ["seed=0,1"])
    more = cells_of("lenet_digits", [], ["pruning.fraction=0.2,0.5", "seed=0,1"])
    assert [cell.name for cell in few] == [cell.name for cell in more[:2]]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (["sead=0,1"], "config.sead: no such field; did you mean 'seed'"),
        (["seed=0,a"], "config.seed='a': accepted: an integer"),
        (["train.steps=0,5"], "config.train.steps"),
        (["seed=0,1", "seed=2,3"], "seed, seed: accepted: each field once"),
        (["levels=1,2"], "'levels=2' is the experiment .* once more"),
        (["seed=" + MANY, "levels=" + MANY, "replicates=" + MANY], "1,000,000 experiments"),
        ([], "accepted: --grid FIELD=VALUE,VALUE…, or a file whose get_configs"),
    ],
)
def test_a_wrong_grid_is_refused_in_one_line(grid, said):
    with pytest.raises(SpecError, match=said) as raised:
        cells_of("lenet_digits", [], grid)
    assert len(str(raised.value)) < 250


def test_names_are_checked_before_anything_is_started():
    cells = cells_of("lenet_digits", [], ["model.name=mlp,mlpp"])
    with pytest.raises(SpecError, match="did you mean 'mlp'"):
        check_cells(cells)


FUNCTION = """
from lth_jax import default_config

def get_configs(sizes="8,4"):
    for size in map(int, sizes.split(",")):
        config = default_config()
        config.model.hidden = (size,)
        config.train.learning_rate = 0.1 / size
        yield config
"""


def test_a_function_yields_configs_that_overrides_change_too(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    cells = cells_of(f"{tmp_path}/mine.py", ["seed=7"], [])
    assert [cell.chosen.spec.model.hidden for cell in cells] == [(8,), (4,)]
    assert {cell.chosen.spec.seed for cell in cells} == {7}
    assert all(cell.name.startswith("mine-") for cell in cells)
    (three,) = cells_of(f"{tmp_path}/mine.py:3", [], [])
    assert three.chosen.spec.model.hidden == (3,)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return []", "yields none"),
        ("return [1]", "gave 1, which is no ConfigDict"),
        ("raise KeyError('x')", "KeyError in"),
        ("yield 1; raise KeyError('x')", "KeyError in"),
    ],
)
def test_a_function_that_fails_is_told_in_one_line(tmp_path, body, said):
    (tmp_path / "bad.py").write_text(f"def get_configs():\n    {body}\n")
    with pytest.raises(SpecError, match=said):
        cells_of(str(tmp_path / "bad.py"), [], [])
