"""`inspect`: what a run directory holds, read without loading an array."""

import pytest
from tiny import data_file, flip_byte, tiny_spec, train

from lth_jax.commands import inspect, main
from lth_jax.store import checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "run"
    train(path, tiny_spec(levels=1, replicates=1))
    return path


def test_it_shows_progress_layers_and_checkpoints_without_loading_arrays(
    finished, capsys, monkeypatch
):
    monkeypatch.setattr(checkpoints, "load", lambda *_: pytest.fail("an array was loaded"))
    monkeypatch.setenv("COLUMNS", "120")
    assert inspect.main([str(finished), "--level=1"]) == 0
    out = capsys.readouterr().out
    assert "status: finished, 4 of 4 runs" in out
    # 64 × 8 weights less 30%; the output layer, 8 × 10, less 15%.
    assert "fc1/kernel 64×8 359 512 0.7012" in " ".join(out.split())
    assert "output/kernel 8×10 68 80 0.8500" in " ".join(out.split())
    assert "params/fc1/kernel  float32[64, 8]  2,048 bytes" in out
    assert "mask/fc1/kernel  bool[64, 8]  512 bytes" in out


def test_it_shows_what_each_layer_keeps_at_each_level(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert inspect.main([str(finished)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "replicate 0 level fc1 output all 0 512 80 592 1 359 68 427" in words
    monkeypatch.setenv("COLUMNS", "20")
    assert inspect.main([str(finished)]) == 0
    assert "see --level" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_lacks_branches_is_not_finished(tmp_path, capsys):
    train(tmp_path, tiny_spec(levels=0, replicates=1, branches=()))
    record = tmp_path / "spec.json"
    record.write_text(record.read_text().replace('"levels": 0', '"levels": 1'))
    assert inspect.main([str(tmp_path)]) == 0
    assert "status: stopped, 1 of 2 runs" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_named(tmp_path, capsys):
    train(tmp_path, tiny_spec(levels=0, replicates=1, branches=()))
    flip_byte(data_file(tmp_path / "checkpoints/replicate_0/level_00"))
    assert inspect.main([str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "DAMAGED" in line]
    assert "replicate_0/level_00" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere holds no run"),
        (["RUN", "--level=7"], "no level 7 of replicate 0; accepted: replicate_0 level_00"),
        (["RUN", "--replicate=4", "--level=0"], "no level 0 of replicate 4; accepted"),
        (["RUN", "--level=x"], "--level"),
        ([], "RUN"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(finished, arguments, said, capsys):
    arguments = [str(finished) if argument == "RUN" else argument for argument in arguments]
    assert main(["inspect", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
