from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def kernels(benchmark_of):
    return benchmark_of("kernels")


def test_names_what_can_be_measured(kernels, capsys):
    for argument, said in (
        ("--kernels=fast,xla", "fast; accepted: xla, auto, sparse"),
        ("--nets=lenet", "lenet; accepted: conv2"),
        ("--densities=10%", "--densities: could not convert"),
        ("--densities=10", "numbers from 0 to 1"),
    ):
        with pytest.raises(SystemExit) as exit_:
            kernels.parse([argument])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_ratios_are_of_the_better_of_a_round(kernels):
    first = {"lth_jax auto, one run alone": 10.0, "PyTorch, a": 30.0, "PyTorch, b": 20.0}
    second = {"lth_jax auto, one run alone": 20.0, "PyTorch, a": 40.0, "PyTorch, b": 90.0}
    lines = kernels.report("conv2", 0.1, [first, second])
    assert "2.00  2.00–2.00" in lines[0]
    assert lines[0].endswith("≥ 3.5×")
    assert not any("×" in line for line in lines[1:])


def test_a_call_is_long_enough_to_be_like_training(kernels):
    options = kernels.parse([])

    assert (options.steps, options.warmup) == (20, 5)


@pytest.mark.parametrize(("density", "of_dense"), [(1.0, 1.0), (0.5, 0.1)])
def test_dense_layers_have_a_fifth_of_what_convolutions_have(kernels, density, of_dense):
    params = {"conv": np.ones((3, 3, 16, 32)), "fc": np.ones((80, 100)), "bias": np.ones(100)}
    mask = kernels.random_mask(SimpleNamespace(params=params), density)

    assert mask["conv"].mean() == pytest.approx(density, abs=0.03)
    assert mask["fc"].mean() == pytest.approx(of_dense, abs=0.02)
    assert mask["bias"].all()
