import pytest

pytest.importorskip("grain")


@pytest.mark.slow
def test_measures_the_loader_alone_and_beside_training(benchmark_of, capsys):
    found = benchmark_of("loader").main(
        ["--data=synthetic", "--nets=lenet", "--steps=3", "--rounds=2", "--seconds=0.05"]
    )
    output = capsys.readouterr().out
    assert "in memory" in output
    assert "JPEGs of 500×375, cropped:" in output
    assert "losses equal: True" in output
    assert [set(one) for one in found["lenet"]] == [{"device", "stream"}] * 2
