"""A trunk that is asked for more, or less, than it has."""

import pytest

from lth_jax.lottery.plan import planned_runs
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK

from ..tiny import Recorder, arrays, assert_same_run, finished_run, results, tiny_spec, train
from .trunk_runs import SPEC


def test_a_finished_experiment_trains_nothing(tmp_path):
    finished_run(SPEC, tmp_path / "run")
    before = (tmp_path / "run" / "results.csv").read_bytes()
    recorder = Recorder()
    train(tmp_path / "run", SPEC, observer=recorder)
    assert recorder.events == []
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


SMALL = {"levels": 1, "replicates": 1, "branches": ("reinit",)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        ["levels", "replicates", "branches", "draws"],
        ["draws", "branches", "replicates", "levels"],
        ["replicates", "draws", "levels", "branches"],
    ],
    ids="-".join,
)
def test_grown_step_by_step_is_the_same_as_at_once(tmp_path, big, order):
    """Levels, replicates, branches and draws; old rows stay to the byte, seconds too."""
    fields = dict(SMALL)
    finished_run(tiny_spec(**fields), tmp_path)
    growth = {
        "levels": {"levels": 2},
        "replicates": {"replicates": 3},
        "branches": {"branches": ("reinit", "random_mask")},
        "draws": {"branch": {"random_mask": {"draws": 2}}},
    }
    for what in order:
        fields |= growth[what]
        spec = tiny_spec(**fields)
        old = (tmp_path / "results.csv").read_text().splitlines()
        known = set(RunDirectory.read(tmp_path).rows)
        kept = {
            folder: (folder / "manifest.json").read_bytes()
            for folder in tmp_path.glob("checkpoints/replicate_*/*")
        }
        recorder = Recorder()
        train(tmp_path, spec, observer=recorder)
        new = (tmp_path / "results.csv").read_text().splitlines()
        assert [line for line in new if line in set(old)] == old
        assert recorder.trained() == [
            run_id for run_id in planned_runs(spec) if run_id not in known
        ]
        for folder, manifest in kept.items():
            assert (folder / "manifest.json").read_bytes() == manifest
    assert_same_run(tmp_path, big)


def test_more_replicates_at_once_change_nothing_of_the_first(whole, big):
    """Bit for bit the same with two replicates and one draw beside it, or three and two."""
    wanted = results(whole)
    found = [row for row in results(big) if row["replicate"] in "01" and row["draw"] == "0"]
    assert found == wanted
    mine, others = arrays(whole), arrays(big)
    assert [name for name in mine if mine[name] != others[name]] == []


def test_asking_for_less_deletes_nothing(tmp_path, whole):
    path = finished_run(SPEC, tmp_path / "run")
    train(path, tiny_spec(**SMALL))
    assert_same_run(path, whole)
    assert (path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_branch_at_chosen_levels_only(tmp_path, whole):
    spec = tiny_spec(branches=("random_mask",), branch={"random_mask": {"levels": (2,)}})
    train(tmp_path, spec)
    assert results(tmp_path) == [
        row
        for row in results(whole)
        if row["branch"] == TRUNK or (row["branch"], row["level"]) == ("random_mask", "2")
    ]
