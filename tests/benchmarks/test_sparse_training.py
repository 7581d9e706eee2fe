import importlib.util

import numpy as np
import pytest

from lth_jax.pruning.trees import named_leaves


@pytest.fixture
def sparse(benchmark_of):
    return benchmark_of("sparse_training")


def test_names_what_can_be_measured(sparse, capsys):
    for argument, said in (
        ("--nets=vgg16", "vgg16; accepted: lenet, conv2"),
        ("--rules=rigl,gmp", "gmp; accepted: rigl, set, static"),
        ("--pytorch=set", "set; accepted: rigl, static"),
        ("--densities=95%", "--densities: could not convert"),
        ("--every=0", "--rounds and --every: accepted: 1 or more"),
        ("--steps=150", "--steps: 150; accepted: multiples of --every=100"),
    ):
        with pytest.raises(SystemExit) as exit_:
            sparse.parse([argument])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_turns_hold_whole_periods(sparse):
    options = sparse.parse(["--every=50"])
    assert options.turns == {"lenet": 500, "conv2": 100}
    assert options.densities == [0.1, 0.05, 0.02]


def test_ratios_are_to_the_dense_step_and_the_better_of_pytorch(sparse):
    first = {"lth_jax rigl": 1.0, "lth_jax dense, native": 3.0, "PyTorch rigl a": 9.0}
    second = {"lth_jax rigl": 2.0, "lth_jax dense, native": 6.0, "PyTorch rigl a": 16.0}
    more = {"PyTorch rigl b": 8.0, "PyTorch static a": 1.0, "SparseLab rigl": 20.0}
    rounds = [one | more for one in (first, second)]
    ours, *others = sparse.report("lenet", 0.05, rounds)
    assert "3.00  3.00–3.00     × as fast as dense ≥ 2.0×" in ours
    assert "6.00  4.00–8.00     × as fast as PyTorch ≥ 8.0×" in ours
    assert "15.00  10.00–20.00   × as fast as SparseLab ≥ 8.0×" in ours
    assert not any("×" in line for line in others)


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_masks_move_in_whole_runs(sparse, monkeypatch, capsys):
    tiny = ("model.hidden=(30,20)", "eval.every=2")
    monkeypatch.setattr(sparse, "OVERRIDES", (*sparse.OVERRIDES, *tiny))
    made = []

    def noted(*arguments):
        made.append(whole(*arguments))
        return made[-1]

    whole = sparse.Whole
    monkeypatch.setattr(sparse, "Whole", noted)
    arguments = ["--data=synthetic", "--nets=lenet", "--densities=0.2", "--rounds=1", "--steps=4"]

    found = sparse.main([*arguments, "--every=2", "--runs=1"])

    assert "RANDOM" in capsys.readouterr().out
    ((one,),) = found.values()
    names = ["rigl", "set", "static", "dense, native"]
    peers = []
    if importlib.util.find_spec("torch"):
        peers = ["PyTorch", "SparseLab"] if importlib.util.find_spec("sparselab") else ["PyTorch"]
    theirs = [f"{peer} {rule}" for rule in ("rigl", "static") for peer in peers]
    assert list(one) == [*(f"lth_jax {name}" for name in names), *theirs]
    assert min(one.values()) > 0
    rigl, set_, static, dense = (contender.groups[0] for contender in made)
    assert static.masks == dense.masks == [None]
    start = named_leaves(static.runs[0].start.mask)
    for group in (rigl, set_):
        (mask,) = group.masks
        assert [counts.step for counts in mask.history] == [0, 2, 4]
        now = named_leaves(mask.mask)
        assert any(np.any(now[name] != start[name]) for name in start)
        assert all(int(now[name].sum()) == int(start[name].sum()) for name in start)


@pytest.mark.slow
def test_pytorch_exchanges_small_weights_for_large_gradients(benchmark_of):
    torch = pytest.importorskip("torch")
    sparse = benchmark_of("pytorch_sparse")

    class Loop:
        model = torch.nn.Linear(4, 2, bias=False)
        optimizer = torch.optim.Adam(model.parameters())

    weight = Loop.model.weight
    weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    masks = sparse.Masks(Loop(), 1, 0.25)
    for step, gradient in enumerate(([0.0] * 4, [0.0, 5.0, 1.0, 0.0])):
        weight.grad = torch.tensor([[0.1] * 4, gradient])
        masks.freeze()
        if step == 0:
            assert weight.grad[1].tolist() == [0.0] * 4
            Loop.optimizer.step()
    assert masks.masks[weight].tolist() == [[True] * 3 + [False], [False, True, False, False]]
    assert weight.data[0, 3] == weight.data[1, 1] == 0
    assert Loop.optimizer.state[weight]["exp_avg"][0, 3] == 0
