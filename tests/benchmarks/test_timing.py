import pytest


@pytest.fixture
def timing(benchmark_of):
    return benchmark_of("timing")


class Counting:
    """A contender whose steps take no time to speak of."""

    def __init__(self, seconds):
        self.seconds, self.calls = seconds, []

    def train(self, steps):
        self.calls.append(steps)
        return self.seconds * steps, 0.5


def test_everyone_has_a_turn_in_each_round(timing):
    slow, fast = Counting(0.02), Counting(0.001)

    rounds, closing = timing.compete(
        {"slow": slow, "fast": fast}, rounds=2, steps=10, warmup=3, first=4
    )

    assert rounds == [{"slow": pytest.approx(20), "fast": pytest.approx(1)}] * 2
    assert slow.calls == fast.calls == [4, 3, 10, 3, 10]
    assert "first 4 steps, on equal batches: 0.5000, 0.5000" in closing
    assert "other processes kept" in closing


def test_ratios_are_of_the_best_of_either_side_in_a_round(timing):
    rounds = [{"a": 2.0, "b": 3.0, "c": 1.0}, {"a": 6.0, "b": 2.0, "c": 4.0}]
    assert timing.ratios(rounds, ["a", "b"], ["c"]) == [2.0, 0.5]
    assert timing.ratios(rounds, ["c"], ["a", "b"]) == [0.5, 2.0]
    assert timing.ratios(rounds, ["a"], []) == []
