"""What is compiled for a GPU is what trains, and counts that are worse fail."""

import contextlib
import dataclasses
import re
import subprocess
import sys

import jax
import pytest

from lth_jax.errors import SpecError
from lth_jax.lottery.run import Run
from lth_jax.lottery.runs import RunGroup
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.masks import ones_mask
from lth_jax.store.tables import RunId
from lth_jax.training.keys import data_key

from ..tiny import experiment, tiny_spec
from .conftest import FOLDER


@pytest.fixture
def gpu(benchmark_of):
    return benchmark_of("gpu")


@pytest.fixture
def compiled(gpu):
    """The module of the table, as `gpu` has it."""
    return gpu.gpu_compiled


@pytest.fixture
def row(compiled):
    counts = compiled.Counts
    return compiled.Compiled("lenet", 9, 4, counts(91, 2, 1), counts(28, 2, 1), 112, 66, 49)


def test_arguments_that_fit_nothing_are_refused(gpu, capsys):
    for arguments, said in (
        (["--programs=vgg16"], "vgg16; accepted: lenet, conv2"),
        (["--check"], "accepted: with --compile-only"),
        (["--compile-only", "--record", "--block=1"], "as it is, 4, in the record"),
        (["--block=0"], "--block: accepted: 1 or more"),
        (["--rounds=0"], "--rounds and --minutes"),
    ):
        with pytest.raises(SystemExit) as exit_:
            gpu.parse(arguments)
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_programs_are_compiled_for_the_states_that_an_experiment_trains(gpu):
    """Shapes, types and structure of a group of level 0 are those of the real one."""
    e = experiment(tiny_spec(levels=0, train__kernel="xla", execution__group_size=3))
    runs = []
    for replicate in range(3):
        state = e.initial(replicate)
        start = StartPoint(ones_mask(state.params), state, 0)
        run_id, key = RunId("ticket", 0, replicate, 0), data_key(0, replicate)
        runs.append(Run(run_id, start, e, e.steps, key))
    group = RunGroup(runs, 3, {})
    group.begin()

    made = gpu.gpu_measured.beginnings(e, 3)

    def form(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]

    assert form(made) == form((group.state, group.inputs))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), made, (group.state, group.inputs))
    assert all(jax.tree.leaves(same))


def test_every_program_is_recorded_by_one_version_in_the_blocks_that_train(gpu, compiled):
    table = compiled.recorded()
    assert list(table) == gpu.PROGRAMS
    assert len({row.jax for row in table.values()}) == 1
    assert {row.block for row in table.values()} == {gpu.experiments.BLOCK}


def test_a_record_is_read_back_and_keeps_other_rows(compiled, row, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "RECORDED", tmp_path / "counts.csv")
    assert compiled.recorded() == {}
    other = dataclasses.replace(row, net="conv2")
    order = [("lenet", 9), ("conv2", 9)]
    compiled.record([other], order)
    compiled.record([row], order)
    assert compiled.recorded() == {("lenet", 9): row, ("conv2", 9): other}
    assert row.step == (91 / 4, 0.5, 0.25)


def test_worse_counts_are_told_apart_from_better_ones(compiled, row):
    assert compiled.compare(row, row) == ([], [])
    worse = dataclasses.replace(row, turn=row.turn._replace(kernels=92), evaluate_bytes=67)
    found, better = compiled.compare(worse, row)
    assert found == [
        "lenet, 9 runs: evaluate_bytes 67, recorded 66",
        "lenet, 9 runs: turn_kernels 92, recorded 91",
    ]
    assert better == []
    assert compiled.compare(row, worse) == (
        [],
        [
            "lenet, 9 runs: evaluate_bytes 66, recorded 67",
            "lenet, 9 runs: turn_kernels 91, recorded 92",
        ],
    )
    # Less than a hundredth more memory is no other program.
    large = dataclasses.replace(row, train_bytes=100_000_000)
    assert compiled.compare(dataclasses.replace(large, train_bytes=100_900_000), large) == ([], [])


@pytest.mark.parametrize("kernels", [90, 91, 92])
def test_a_check_fails_where_a_count_is_worse(gpu, compiled, row, monkeypatch, capsys, kernels):
    class Card:
        device_kind = "a card"

    class Nets:
        runs = (9,)

    found = dataclasses.replace(row, turn=row.turn._replace(kernels=kernels))
    monkeypatch.setattr(gpu, "NETS", {"lenet": Nets})
    monkeypatch.setattr(gpu, "build", lambda *_: None)
    monkeypatch.setattr(compiled, "target", Card)
    monkeypatch.setattr(compiled, "compile_for", lambda *_: found)
    monkeypatch.setattr(compiled, "recorded", lambda: {("lenet", 9): row})
    monkeypatch.setattr(gpu.experiments, "BLOCK", gpu.experiments.BLOCK)
    worse = kernels > 91
    with pytest.raises(SystemExit) if worse else contextlib.nullcontext() as stopped:
        gpu.main(["--compile-only", "--programs=lenet", "--check"])
    output = capsys.readouterr().out
    assert f"{kernels / 4:.1f}" in output
    assert ("better (--record keeps it): lenet" in output) == (kernels < 91)
    if worse:
        assert str(stopped.value) == "WORSE: lenet, 9 runs: turn_kernels 92, recorded 91"


def test_products_that_are_less_exact_are_worse(compiled, row):
    exact = "  %a = f32[9]{0} dot(%b, %c), operand_precision={highest,highest}, metadata={}"
    tf32 = "  ROOT %d = f32[9]{0} dot(%b, %c), lhs_contracting_dims={1}"
    library = (
        '  %e = (f32[9]{0}, u8[0]{0}) custom-call(%f), custom_call_target="__cudnn$convForward"'
    )
    other = '  %g = f32[9]{0} add(%a, %d), metadata={op_name="dot_general"}'
    assert compiled.loose_products("\n".join([exact, tf32, library, other])) == 2
    worse, better = compiled.compare(dataclasses.replace(row, loose=2), row)
    assert worse == ["lenet, 9 runs: 2 products less exact than `highest`"]
    assert better == []


def test_what_cannot_be_compared_is_refused(compiled, row):
    with pytest.raises(SpecError, match=r"lenet, 9 runs: not in gpu_compiled.csv; --record adds"):
        compiled.compare(row, None)
    with pytest.raises(SpecError, match=r"jax 1\.2; accepted: .*, as in gpu_compiled.csv"):
        compiled.compare(dataclasses.replace(row, jax="1.2"), row)


def test_protocols_are_reckoned_from_their_programs(gpu):
    measured = gpu.gpu_measured
    e = experiment(tiny_spec(levels=2, replicates=2, branches=("reinit",), train__kernel="xla"))

    def timed(microseconds):
        return measured.Timed([microseconds], 2.0, 10.0, 0.0, None, 4, 0.0)

    assert measured.groups_of(e.spec) == [(1, 2), (2, 4)]
    # 12 steps, evaluated at 0, 5, 10 and 12, and tested: of level 0, and of two others.
    first, other = 12 * 1e-3 + 4 * 2e-3 + 10e-3, 12 * 3e-3 + 4 * 2e-3 + 10e-3
    times = {2: timed(1000.0), 4: timed(3000.0)}
    assert measured.reckoned(e, times) == pytest.approx(first + 2 * other)


@pytest.mark.slow
def test_everything_but_the_gpu_is_tried(gpu, capsys, monkeypatch):
    monkeypatch.setattr(gpu.gpu_measured, "TURN_SECONDS", 0.01)
    arguments = ["--platform=cpu", "--quick", "--programs=lenet", "--data=synthetic", "--rounds=1"]

    found = gpu.main(arguments)

    output = capsys.readouterr().out
    assert "at highest" in output
    assert "OTHER NUMBERS" not in output
    assert "lenet         1" in output
    assert "≤ 50" in output
    assert "minutes of training and evaluation, reckoned; aim, all included: under 10" in output
    assert set(found) == {("lenet", 1), ("lenet", 5)}


@pytest.mark.slow
def test_without_a_gpu_one_line_says_what_there_is():
    if jax.default_backend() != "cpu":
        pytest.skip("there is a GPU")
    command = [sys.executable, str(FOLDER / "gpu.py"), "--programs=lenet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.fullmatch(
        r"no GPU can be used here \(.*\); accepted: --compile-only.*\n", done.stderr
    )
