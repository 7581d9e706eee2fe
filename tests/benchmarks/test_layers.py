import dataclasses
import sys
import types

import jax
import numpy as np
import pytest

from lth_jax.native.layers import Layer


@pytest.fixture
def layers(benchmark_of):
    return benchmark_of("layers")


@pytest.fixture
def strided(layers):
    return layers.Case(Layer("conv", (3, 3, 4, 6), (2, 2)), (5, 9, 9, 4), 1)


def test_names_what_can_be_measured(layers, capsys):
    for argument, said in (
        ("--nets=vgg16", "vgg16; accepted: lenet, conv2"),
        ("--densities=10%", "--densities: could not convert"),
        ("--densities=10", "numbers from 0 to 1"),
        ("--rounds=0", "--rounds: accepted: 1 or more"),
        ("--seconds=0", "--seconds: above 0"),
    ):
        with pytest.raises(SystemExit) as exit_:
            layers.parse([argument])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_layers_are_those_of_training(layers):
    assert list(map(str, layers.layers_of("lenet"))) == [
        "784 → 300, 60 examples",
        "300 → 100, 60 examples",
        "100 → 10, 60 examples",
    ]
    resnet = layers.layers_of("resnet20")
    assert len(resnet) == 22
    assert {str(case) for case in resnet if case.layer.strides != (1, 1)} == {
        "16 → 32, 3×3 by 2, 128 of 32×32",
        "32 → 64, 3×3 by 2, 128 of 16×16",
        "16 → 32, 1×1 by 2, 128 of 32×32",
        "32 → 64, 1×1 by 2, 128 of 16×16",
    }
    assert [case.first for case in resnet] == [True] + [False] * 21
    assert {case.padding for case in resnet if case.layer.shape[0] == 1} == {0}


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_ours_computes_the_layer(layers, strided):
    operands = layers.Operands(strided, 0.3)
    first = dataclasses.replace(strided, first=True)
    assert operands.inward
    assert not layers.Operands(first, 0.3, whole=False).inward

    def convolved(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=numbers
        )

    y, back = jax.vjp(convolved, operands.x, operands.kernel)
    dx, gradient = back(operands.given)
    expected = [y, np.where(operands.mask, gradient, 0), dx]
    ours = layers.Ours(operands)
    for mine, theirs in zip(ours.results(), expected, strict=True):
        assert layers.agree(np.asarray(theirs), mine)
    assert operands.mask.sum() == round(0.3 * 216)
    assert ours.train(2)[0] > 0


def test_ratios_are_to_the_better_of_a_round(layers, strided):
    first = {"ours": 1.0, "SparseProp, a": 3.0, "SparseProp, b": 2.0}
    second = {"ours": 2.0, "SparseProp, a": 4.0, "SparseProp, b": 9.0}
    line = layers.report(strided, 0.1, [first, second])
    assert line.endswith("2.00  2.00–2.00     ≥ 1.5×")
    assert layers.report(strided, 0.1, [{"ours": 1.0, "SparseProp": 1.4}]).endswith("BELOW")
    assert "target" not in layers.report(strided, 0.1, [{"ours": 1.0}])


@pytest.mark.usefixtures("built")
def test_leaves_out_what_is_not_installed(layers, monkeypatch, capsys):
    find = layers.importlib.util.find_spec
    hidden = lambda name: None if name == "sparseprop" else find(name)  # noqa: E731
    monkeypatch.setattr(layers.importlib.util, "find_spec", hidden)

    found = layers.main(["--nets=lenet", "--densities=0.1", "--rounds=1", "--seconds=0.001"])

    output = capsys.readouterr().out
    assert "SparseProp's columns are left out" in output
    assert "ratio" not in output
    assert [set(rounds[0]) for rounds in found.values()] == [{"ours"}] * 3


@pytest.mark.usefixtures("built")
def test_leaves_out_wrong_results(layers, strided, monkeypatch, capsys):
    right, wrong = (
        layers.Ours,
        lambda operands: types.SimpleNamespace(
            results=lambda: [array + 1 for array in layers.Ours(operands).results()]
        ),
    )
    theirs = types.ModuleType("sparseprop_layers")
    theirs.contenders_of = lambda operands, repacking: {
        "good": right(operands),
        "bad": wrong(operands),
    }
    monkeypatch.setitem(sys.modules, "sparseprop_layers", theirs)
    monkeypatch.setattr(layers, "missing", lambda: "")

    contenders = layers.make_contenders(layers.Operands(strided, 0.3), True)

    assert list(contenders) == ["ours", "good"]
    assert "left out, since its results are others: bad" in capsys.readouterr().out
