import pytest


@pytest.fixture
def conv_layers(benchmark_of):
    return benchmark_of("conv_layers")


def test_names_what_can_be_measured(conv_layers, capsys):
    for argument, said in (
        ("--nets=lenet", "lenet; accepted: conv2"),
        ("--densities=10", "numbers from 0 to 1"),
        ("--rounds=0", "--rounds: accepted: 1 or more"),
    ):
        with pytest.raises(SystemExit) as exit_:
            conv_layers.parse([argument])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_ratios_are_of_least_times_beside_the_rules(conv_layers):
    wide = next(case for case in conv_layers.layers_of("conv2") if case.layer.winograd)
    rounds = [
        {"definition": 9.0, "winograd": 4.0, "0.1": 2.0},
        {"definition": 6.0, "winograd": 3.0, "0.1": 6.0},
    ]
    line = conv_layers.report(wide, [0.1], rounds)
    assert line.split()[-5:-2] == ["6.000", "3.000", "2.00×"]
    assert line.split()[-2] == "0.67"
    assert 0.5 < float(line.split()[-1].strip("()")) < 1
