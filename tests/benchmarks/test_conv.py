import pytest


@pytest.fixture
def conv(benchmark_of):
    return benchmark_of("conv")


def test_names_what_can_be_measured(conv, capsys):
    for argument, said in (
        ("--kernels=sparse", "sparse; accepted: xla, auto"),
        ("--nets=lenet", "lenet; accepted: conv2"),
        ("--rounds=0", "accepted: 1 or more"),
    ):
        with pytest.raises(SystemExit) as exit_:
            conv.parse([argument])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_ratios_are_to_the_better_of_a_round(conv):
    ours = {"lth_jax xla, one run alone": 30.0, "lth_jax auto, one run alone": 10.0}
    first = {**ours, "PyTorch, a": 20.0, "PyTorch, b": 40.0}
    second = {**ours, "PyTorch, a": 90.0, "PyTorch, b": 20.0}

    lines = conv.report("conv2", [first, second])

    assert "0.67  0.67–0.67" in lines[0]
    assert lines[0].endswith("× as fast as PyTorch")
    assert "2.00  2.00–2.00" in lines[1]
    assert lines[1].endswith("≥ 1.6×")
    assert not any("×" in line for line in lines[2:])
