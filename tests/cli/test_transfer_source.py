"""Sources of transfers: finished runs, and what is refused."""

import pytest

from lth_jax import data
from lth_jax.data.directories import resolve
from lth_jax.lottery import building

from ..tiny import arguments, results
from .transfers import HALVES, SMALL, SOURCE


@pytest.fixture
def untrained(monkeypatch):
    """Fails if data is loaded: before that, nothing is trained."""

    def load(*_, **__):
        raise AssertionError("data was loaded")

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(building, "build", load)


@pytest.fixture
def finished(main, tmp_path):
    """A finished run of the first half."""
    plain = SMALL | {"branches": "()"}
    assert main(*arguments(**plain, data__part="1/2"), "--workdir=done")[0] == 0
    return tmp_path / "done"


@pytest.mark.slow
def test_a_finished_run_is_a_source(main, tmp_path, finished):
    before = {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()}
    assert main(*HALVES, "--config.source.run=done", "--workdir=x")[0] == 0
    assert not (tmp_path / "x" / "source").exists()
    assert {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()} == before
    assert main(*HALVES, *SOURCE, "--workdir=y")[0] == 0
    assert results(tmp_path / "x") == results(tmp_path / "y")


WRONG_SOURCES = {
    "a level": (["--config.levels=2"], "it has no whole ticket of level 2, replicate 0; accepted"),
    "a replicate": (["--config.replicates=2"], "it has no whole ticket of level 1, replicate 1"),
    "shapes": (["--config.model.hidden=(9,)"], "fc1/bias is 8 in the source and 9 here; accepted"),
}


@pytest.mark.parametrize("name", WRONG_SOURCES)
def test_a_source_that_does_not_fit_is_refused_before_training(
    main, tmp_path, finished, untrained, name
):
    given, message = WRONG_SOURCES[name]
    status, out, err = main(*HALVES, *given, "--config.source.run=done", "--workdir=x")
    assert (status, out) == (2, "")
    assert err.startswith("error: config.source")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_source_that_is_no_run_is_refused(main, tmp_path, untrained):
    status, _, err = main(*HALVES, "--config.source.run=nowhere", "--workdir=x")
    assert status == 2
    assert "nowhere holds no run" in err
    assert err.count("\n") == 1


def test_data_that_cannot_be_had_is_said_before_the_source_is_trained(main, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    places = [f"--config.data.{name}={tmp_path}" for name in ("data_dir", "cache_dir")]
    target = ["--config.data.name=fashion_mnist", "--config.data.side=8"]
    status, _, err = main(
        *HALVES, *target, *places, "--config.source.data.name=digits", "--workdir=x"
    )
    assert status == 2
    assert "fashion_mnist 3.0.1 is nowhere to be had" in err
    assert not (tmp_path / "x" / "source").exists()


@pytest.mark.parametrize("known", [True, False])
def test_other_shapes_are_refused_before_the_source_is_trained(
    main, tmp_path, untrained, monkeypatch, known
):
    """Also where nothing is known of a dataset before it is loaded."""
    if not known:
        monkeypatch.setattr("lth_jax.data.facts", lambda _: None)
        digits = data.DATASETS["digits"].load("digits", resolve())
        monkeypatch.setattr("lth_jax.data.load", lambda _, **__: digits)
    status, _, err = main(*HALVES, "--config.source.data.side=16", "--workdir=x")
    assert status == 2
    assert "config.source: fc1/kernel is 256×8 in the source and 64×8 here" in err
    assert err.count("error: ") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_another_source_in_the_same_directory_is_refused(main, tmp_path):
    assert main(*HALVES, *SOURCE, "--workdir=x")[0] == 0
    status, _, err = main(*HALVES, "--config.source.data.part=1/3", "--workdir=x")
    assert status == 2
    assert "holds another experiment" in err or "holds a branch 'transfer' with other" in err
    assert err.count("\n") == 1
