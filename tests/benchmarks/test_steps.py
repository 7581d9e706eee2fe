import sys

import pytest


@pytest.fixture
def steps(benchmark_of):
    return benchmark_of("steps")


@pytest.mark.slow
def test_times_our_step_and_the_floor(steps, capsys):
    rounds = steps.main(
        [
            "--what=ours,floor",
            "--kernel=xla",
            "--data=synthetic",
            "--rounds=2",
            "--steps=2",
            "--check-steps=1",
        ]
    )

    output = capsys.readouterr().out
    assert "RANDOM" in output
    assert "ours ÷ floor" in output
    assert len(rounds) == 2
    for one in rounds:
        assert one.milliseconds["ours"] > 0
        assert one.floor.milliseconds > 0


@pytest.mark.usefixtures("steps")
def test_products_of_the_floor_are_those_of_a_step():
    operands = sys.modules["floor"].make_operands((784, 300, 100, 10), 60)

    shapes = [(a.shape[0], a.shape[1], b.shape[1]) for a, b in operands]
    assert shapes == [
        (60, 784, 300), (60, 300, 100), (60, 100, 10),
        (784, 60, 300), (300, 60, 100), (100, 60, 10),
        (60, 100, 300), (60, 10, 100),
    ]  # fmt: skip


def test_names_what_can_be_measured(steps, capsys):
    with pytest.raises(SystemExit) as exit_:
        steps.parse(["--what=fused,flour"])

    assert exit_.value.code == 2
    assert "flour; accepted: ours, alone, xla, eager" in capsys.readouterr().err
