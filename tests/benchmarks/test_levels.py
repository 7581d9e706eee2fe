import numpy as np
import pytest

from lth_jax.pruning.masks import kept_counts


@pytest.fixture
def levels(benchmark_of):
    return benchmark_of("levels")


@pytest.fixture
def problem(levels):
    return levels.make_problem("synthetic", "", "configs/lenet_mnist.py", levels.OVERRIDES)


def test_names_what_can_be_measured(levels, capsys):
    for argument, said in (
        ("--kernels=fast,xla", "fast; accepted: xla, auto, sparse"),
        ("--nets=vgg16", "vgg16; accepted: lenet, conv2"),
        ("--levels=first", "'first'; accepted: numbers and ranges"),
        ("--levels=9-5", "'9-5'; accepted: numbers and ranges"),
        ("--group=0", "--rounds and --group: accepted: 1 or more"),
        ("--runs=-1", "--steps and --runs: 0 or more"),
    ):
        with pytest.raises(SystemExit) as exit_:
            levels.parse([argument])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_levels_are_those_of_the_table_or_as_asked_for(levels):
    assert levels.parse([]).levels == {"lenet": [5, 7, 12, 15]}
    assert levels.parse(["--levels=0,5-7"]).levels == {"lenet": [0, 5, 6, 7]}
    assert levels.parse(["--levels=all", "--nets=conv2"]).levels == {"conv2": list(range(21))}


def test_masks_keep_what_pruning_leaves(levels, problem):
    kept = levels.kept_at(problem, 15)
    one, other = (levels.random_mask(problem, kept, seed) for seed in (0, 1))

    rates = dict.fromkeys(("fc1/kernel", "fc2/kernel", "output/kernel"), 1)
    counts = kept_counts(one, rates)
    assert {(name,): count for name, (count, _) in counts.items()} == kept
    assert kept == pytest.approx(
        {
            ("fc1/kernel",): 0.8**15 * 784 * 300,
            ("fc2/kernel",): 0.8**15 * 300 * 100,
            ("output/kernel",): 0.9**15 * 100 * 10,
        },
        abs=15,
    )
    assert np.any(one["fc1"]["kernel"] != other["fc1"]["kernel"])
    assert np.all(one["fc1"]["bias"])
    assert levels.density_of(problem, 15) == pytest.approx(0.036, abs=5e-4)


def test_groups_of_several_layers_keep_the_same_share_of_each(levels, problem):
    names = ("fc1/kernel", "output/kernel")
    mask = levels.random_mask(problem, {names: 23_620}, 0)

    counts = kept_counts(mask, dict.fromkeys((*names, "fc2/kernel"), 1))
    assert counts == {
        "fc1/kernel": (23_520, 235_200),
        "output/kernel": (100, 1_000),
        "fc2/kernel": (30_000, 30_000),
    }


def test_all_runs_of_the_preset_are_trained(levels, problem):
    runs = [replicate for replicate in range(5) for _ in range(3)]
    assert levels.runs_of(problem.spec) == runs
    assert levels.Bench(problem, ["xla"], 0, 1).replicates == runs
    assert levels.Bench(problem, ["xla"], 4, 1).replicates == [0, 0, 0, 1]


def test_ratios_are_within_rounds_and_slow_levels_are_marked(levels):
    first = {"xla": 1.0, "auto": 0.5, "sparse": 2.0}
    second = {"xla": 3.0, "auto": 1.5, "sparse": 2.0}
    lines = levels.report("lenet", 5, 0.33, [first, second])
    assert "2.00  2.00–2.00" in lines[1]
    assert lines[1].endswith("× as fast as xla  ≥ 1.8×")
    assert "fast" not in lines[0]
    assert not levels.is_above([first, second])

    slow = [{"xla": 1.0, "auto": 1.06}]
    assert levels.report("lenet", 1, 0.8, slow)[1].endswith("TIME 1.06× XLA'S, ABOVE 1.05×")
    assert not levels.is_above([{"xla": 1.0, "auto": 1.05}])
    assert not levels.is_above([{"auto": 1.06}])


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_times_every_kernel_at_every_level(levels, monkeypatch, capsys):
    monkeypatch.setitem(levels.NETS, "lenet", levels.NETS["lenet"]._replace(warmup=2))
    monkeypatch.setattr(levels, "OVERRIDES", (*levels.OVERRIDES, "model.hidden=(20,10)"))
    arguments = ["--data=synthetic", "--levels=0,15", "--rounds=1", "--steps=3", "--runs=2"]

    found = levels.main([*arguments, "--kernels=xla,auto"])

    output = capsys.readouterr().out
    assert "RANDOM" in output
    assert "≥ 8.0×" in output
    assert "auto above 1.05× the time of xla: " in output
    assert "(of 2)" in output
    assert "lenet, 2 levels  auto" in output
    assert list(found) == [("lenet", 0), ("lenet", 15)]
    for (one,) in found.values():
        assert set(one) == {"xla", "auto"}
        assert min(one.values()) > 0


def test_levels_are_summed_up_round_by_round(levels):
    found = {
        ("lenet", 0): [{"layers": 4.0, "auto": 2.0}, {"layers": 4.0, "auto": 4.0}],
        ("lenet", 9): [{"layers": 2.0, "auto": 1.0}, {"layers": 2.0, "auto": 2.0}],
    }
    before, after = levels.totals(found)
    assert before.split() == ["lenet,", "2", "levels", "layers", "6.000", "6.000–6.000"]
    assert "1.50  1.00–2.00" in after
    assert after.endswith("× as fast as layers  ≥ 1.5×")
