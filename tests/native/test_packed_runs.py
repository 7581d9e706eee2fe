"""Experiments whose runs are packed: the same science, the same safety, the same bits."""

import numpy as np
import pytest

from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.building import native_code
from lth_jax.native import build, choice
from lth_jax.store.tables import RunId
from lth_jax.training.parameterization import DENSE

from ..tiny import StopAt, arrays, assert_same_run, experiment, results, tiny_spec, train

pytestmark = pytest.mark.usefixtures("built")


def sparse(**fields):
    return tiny_spec(**fields | {"train__kernel": "sparse"})


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "run"
    train(path, sparse())
    return path


@pytest.fixture(scope="module")
def by_xla(tmp_path_factory):
    path = tmp_path_factory.mktemp("xla") / "run"
    train(path, tiny_spec(train__kernel="xla"))
    return path


@pytest.mark.slow
def test_both_kernels_find_the_same_masks_and_nearly_the_same_numbers(whole, by_xla):
    assert [row["kernel"] for row in results(by_xla)] == ["xla"] * 14
    levels = {(row["level"] == "0", row["kernel"]) for row in results(whole)}
    assert levels == {(True, "native"), (False, "sparse")}
    for mine, other in zip(results(whole), results(by_xla), strict=True):
        assert mine["kept"] == other["kept"]
        assert mine["early_stop_step"] == other["early_stop_step"]
        assert float(mine["final_train_loss"]) == pytest.approx(
            float(other["final_train_loss"]), rel=1e-4
        )
    ours, theirs = arrays(whole), arrays(by_xla)
    assert ours.keys() == theirs.keys()
    for name, (dtype, content) in ours.items():
        mine, other = (np.frombuffer(c, dtype) for c in (content, theirs[name][1]))
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5, err_msg=name)


def test_pruned_weights_are_exactly_zero(whole):
    found = arrays(whole)
    masked = [name for name in found if "level_02" in name and "mask/" in name and "kernel" in name]
    assert masked
    for name in masked:
        mask = np.frombuffer(found[name][1], found[name][0])
        weights = found[name.replace("mask/", "params/")]
        pruned = np.frombuffer(weights[1], weights[0])[~mask]
        assert pruned.tobytes() == bytes(pruned.nbytes)


@pytest.mark.parametrize(
    "point", [(1, 6), *(pytest.param(p, marks=pytest.mark.slow) for p in ((0, 0), (0, 6), (1, 0)))]
)
def test_stopped_anywhere_it_ends_with_the_same_bits(whole, tmp_path, point):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", sparse(), StopAt(*point))
    train(tmp_path / "run", sparse())
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
def test_bits_depend_neither_on_checkpoints_nor_on_other_runs(whole, tmp_path):
    train(tmp_path / "often", sparse(checkpoint__every_seconds=0.0, execution__workers=2))
    assert_same_run(tmp_path / "often", whole)
    train(tmp_path / "few", sparse(replicates=1, branches=()))
    alone = results(tmp_path / "few")
    assert alone == [
        row for row in results(whole) if row["branch"] == "ticket" and row["replicate"] == "0"
    ]


@pytest.mark.slow
def test_a_run_goes_on_under_another_kernel(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", sparse(), StopAt(level=1, updates=6))
    run = train(tmp_path / "run", tiny_spec(train__kernel="xla"))
    assert {row.kernel for row in run.rows.values() if row.level == 2} == {"xla"}


def test_pruned_weights_that_are_not_zero_keep_a_run_dense(tmp_path):
    fields = {"branches": ("freeze_pruned",), "levels": 1, "replicates": 1}
    run = train(tmp_path / "run", sparse(**fields))
    kernels = {run_id: row.kernel for run_id, row in run.rows.items()}
    assert kernels[RunId("ticket", 1, 0, 0)] == "sparse"
    assert kernels[RunId("freeze_pruned", 1, 0, 0)] == "native"


@pytest.mark.slow
def test_by_default_a_run_is_packed_from_the_level_on_where_that_pays(tmp_path):
    spec = tiny_spec(
        model__hidden=(200,),
        pruning__fraction=0.6,
        levels=2,
        replicates=1,
        train__steps=2,
        train__batch_size=32,
    )
    assert spec.train.kernel == "auto"
    run = train(tmp_path / "run", spec)
    kernels = {
        run_id.level: row.kernel for run_id, row in run.rows.items() if run_id.branch == "ticket"
    }
    assert kernels == {0: "native", 1: "native", 2: "sparse"}


def test_without_a_compiler_auto_goes_on_and_sparse_refuses(monkeypatch):
    built = experiment(sparse())
    shape = built.example.shape[1:]
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SpecError, match=r"config.train.kernel='sparse': no C\+\+ compiler"):
        native_code(sparse(), built.model, shape)
    monkeypatch.setattr(choice, "LEAST_WEIGHTS", 1)
    found = native_code(tiny_spec(train__kernel="auto"), built.model, shape)
    assert "no C++ compiler" in found.note
    assert (found.choice, found.layers, found.column(DENSE)) == ("xla", {}, "xla")
    assert native_code(tiny_spec(train__kernel="xla"), built.model, shape) == choice.XLA
