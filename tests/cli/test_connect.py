"""`connect`: any two stored networks, of one run or of two."""

import csv
import re

import pytest

from lth_jax.cli import main
from lth_jax.store import RunDirectory
from lth_jax.store.tables import PATHS

from ..tiny import tiny_spec, train

FIELDS = {
    "levels": 1, "replicates": 2, "branches": ("reinit", "random_mask"),
    "branch.reinit.keep": True, "paths.pairs": ("levels", "ticket_branch"), "paths.points": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("connect") / "run", tiny_spec(**FIELDS)).path


@pytest.fixture
def connect(capsys):
    """The status, the output and the errors of a command."""

    def connect(*arguments):
        status = main(["connect", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return connect


def numbers(points):
    """What was measured, by place."""
    return [(p.alpha, p.train_error, p.test_error, round(p.test_loss, 5)) for p in points]


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [("ticket:0:1", "ticket:1:1", "levels"), ("ticket:1:0", "reinit:1:0:0", "ticket_branch")],
)
def test_it_gives_what_the_experiment_measured(run, connect, tmp_path, first, second, kind):
    out = tmp_path / "path.csv"
    status, printed, _ = connect(
        run, f"--first={first}", f"--second={second}", "--points=5", f"--out={out}"
    )
    assert status == 0
    points = PATHS.from_csv(out.read_text())
    known = [
        p
        for p in RunDirectory.read(run).paths()
        if p.pair == kind and (p.first, p.second) == (points[0].first, points[0].second)
    ]
    assert numbers(points) == numbers(known)
    assert {(p.l2, p.density) for p in points} == {(p.l2, p.density) for p in known}
    assert {p.pair for p in points} == {"connected"}
    assert re.search(r"barrier, test: -?\d+\.\d\d points of error: (not )?linearly", printed)


@pytest.mark.parametrize("statistics", ["interpolated", "repaired"])
def test_the_barrier_of_a_network_with_itself_is_0(run, connect, statistics):
    status, printed, _ = connect(
        run, "--first=ticket:0:0", "--second=ticket:0:0", f"--statistics={statistics}", "--points=4"
    )
    assert status == 0
    assert "barrier, test: 0.00 points" in printed
    assert "apart: 0 (Euclidean)" in printed


@pytest.mark.parametrize("kind", ["weights", "activations"])
def test_the_aligned_path_is_said_and_written_beside_the_plain_one(run, connect, tmp_path, kind):
    out, ends = tmp_path / "path.csv", ("--first=ticket:0:0", "--second=ticket:0:1")
    status, printed, _ = connect(run, *ends, f"--align={kind}", "--points=3", f"--out={out}")
    assert status == 0
    points = PATHS.from_csv(out.read_text())
    assert [point.aligned for point in points] == ["none"] * 3 + [kind] * 3
    assert [points[3 * n].test_error for n in (0, 1)] == [points[0].test_error] * 2
    assert f"ticket:0:0:0 to ticket:0:1:0, its units aligned by {kind}" in printed
    assert printed.count("barrier, test:") == 2


def test_two_runs_are_connected_on_the_data_of_the_first(run, connect, tmp_path):
    other = train(tmp_path / "other", tiny_spec(seed=5, levels=0, replicates=1, branches=())).path
    out = tmp_path / "path.csv"
    arguments = ("--first=ticket:1:0", "--second=ticket:0:0", "--points=3", f"--out={out}")
    assert connect(run, other, *arguments)[0] == 0
    with open(out, newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["first"], row["second"]) for row in rows} == {
        ("ticket:1:0:0", "other:ticket:0:0:0")
    }
    row = RunDirectory.read(run).rows
    ends = {r.run_id: r.final_test_accuracy for r in row.values()}
    assert float(rows[0]["test_error"]) == 1 - ends["ticket", 1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--first=ticket:0", "--second=ticket:1:0"), "accepted: BRANCH:LEVEL:REPLICATE"),
        (("--first=ticket:0:0", "--second=ticket:7:0"), "no finished run ticket, level 7"),
        (
            ("--first=ticket:0:0", "--second=random_mask:1:0"),
            "config.branch.random_mask.keep=True keeps it",
        ),
        (("--first=ticket:0:0", "--second=ticket:1:0", "--points=1"), "accepted: 2 to 10,000"),
        (("--first=ticket:0:0", "--second=ticket:1:0", "--statistics=anew"), "repaired"),
        (("--first=ticket:0:0", "--second=ticket:1:0", "--align=units"), "none or weights"),
        (("--first=ticket:0:0",), "--second"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run, connect, arguments, said):
    status, _, error = connect(run, *arguments)
    assert status in (1, 2)
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_networks_of_other_shapes_are_refused(run, connect, tmp_path):
    fields = {"levels": 0, "replicates": 1, "branches": (), "model.hidden": (7,)}
    other = train(tmp_path / "other", tiny_spec(**fields)).path
    status, _, error = connect(run, other, "--first=ticket:0:0", "--second=ticket:0:0")
    assert status != 0
    assert "accepted: equal shapes" in error
