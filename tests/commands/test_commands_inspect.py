"""`inspect`: what a run directory holds, finished, running, killed or damaged."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny import StopAt, data_file, flip_byte, tiny_spec, train

from lth_jax.commands import inspect, main
from lth_jax.commands.inspection import kept
from lth_jax.commands.inspection.facts import gather
from lth_jax.commands.inspection.select import Selection
from lth_jax.commands.inspection.show import print_run
from lth_jax.errors import Interrupted, spans
from lth_jax.report.terminal import make_console
from lth_jax.store import checkpoints
from lth_jax.store.lock import Lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "run"
    train(path, tiny_spec(levels=1))
    return path


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def shown(capsys, monkeypatch):
    """What `inspect` prints at a width, its words one space apart."""

    def shown(path, *arguments, width=120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert inspect.main([str(path), *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return " ".join(out.split())

    return shown


@pytest.fixture
def found(capsys):
    """The object that `inspect --json` prints."""

    def found(path, *arguments):
        assert inspect.main([str(path), "--json", *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""

        def refuse(name):
            pytest.fail(f"{name} is no JSON")

        return json.loads(out, parse_constant=refuse)

    return found


def test_it_shows_spec_progress_results_and_checkpoints_without_loading_arrays(
    finished, shown, monkeypatch
):
    def loaded(*_):
        pytest.fail("an array was loaded")

    monkeypatch.setattr(checkpoints, "load", loaded)
    monkeypatch.setattr(checkpoints, "read_arrays", loaded)
    words = shown(finished)
    assert "status: finished, 8 of 8 runs" in words
    assert "command: python run.py" in words
    assert "versions: lth_jax 0" in words
    assert "model.hidden [8]" in words
    assert "pruning.fraction 0.3" in words
    assert "train.optimizer" not in words  # a default
    assert "Test accuracy at early stop" in words
    assert "The ticket matches" in words
    assert "checkpoints: 6, 17,080 bytes, checksums verified" in words
    assert "replicate_1/level_00 to level_01 2 times 8 arrays, 3,050 bytes" in words
    assert "params/fc1/kernel float32[64, 8] 2,048 bytes" in words
    assert "mask/fc1/kernel bool[64, 8] 512 bytes" in words


def test_the_layers_of_a_level_are_shown_at_any_width(finished, shown):
    wide = shown(finished, "--level=1")
    # 64 × 8 weights less 30%; the output layer, 8 × 10, less 15%.
    assert "fc1/kernel 64×8 359 512 0.7012 " in wide
    assert "output/kernel 8×10 68 80 0.8500 0/8 0/10 " in wide
    assert "all 427 592 0.7213 " in wide
    assert "layer shape kept total density dead in dead out |w| min mean max same sign" in wide
    narrow = shown(finished, "--level=1", width=72)
    assert "layer shape kept total density dead in dead out fc1/kernel 64×8 359 512" in narrow
    assert "layer |w| min mean max same sign fc1/kernel" in narrow
    tiny = shown(finished, "--level=1", width=59)
    assert "fc1 64×8 359 512" in tiny


def test_it_shows_what_each_layer_keeps_at_each_level(finished, shown):
    assert "replicate 0 level fc1 output all 0 512 80 592 1 359 68 427" in shown(finished, width=80)
    assert "level output 0 80 1 68 checkpoints" in shown(finished, "--layer=out*")
    assert "see --level" in shown(finished, width=20)


def test_the_object_says_all_of_it(finished, found):
    run = found(finished)
    assert run["identity"] == json.loads((finished / "spec.json").read_text())["identity"]
    assert run["status"] == "finished"
    assert run["problems"] == run["leftovers"] == []
    assert run["spec"]["model"]["hidden"] == [8]
    assert {"jax", "flax", "optax", "lth_jax"} <= run["versions"].keys()
    assert run["progress"] | {"done": 8, "planned": 8, "level": None} == run["progress"]
    assert len(run["results"]) == 8
    assert run["results"][0]["branch"] == "ticket"
    assert run["results"][0]["density"] == 1
    assert type(run["results"][0]["kept"]) is int
    assert "layers" not in run
    (mask,) = [
        array
        for array in run["checkpoints"]
        if array["path"] == "replicate_1/level_01/mask/fc1/kernel"
    ]
    assert (mask["shape"], mask["dtype"], mask["bytes"]) == ([64, 8], "bool", 512)


def test_the_layers_in_the_object_are_those_of_the_arrays(finished, found):
    run = found(finished, "--level=1", "--replicate=1")
    assert [layer["path"] for layer in run["layers"]] == ["fc1/kernel", "output/kernel"]
    folder = finished / "checkpoints" / "replicate_1"
    arrays = checkpoints.load(folder / "level_01")[0]
    initial = checkpoints.load(folder / "initial")[0]
    for layer in run["layers"]:
        mask = arrays[f"mask/{layer['path']}"]
        weights = arrays[f"params/{layer['path']}"][mask]
        assert layer["shape"] == list(mask.shape)
        assert layer["kept"] == mask.sum()
        assert layer["total"] == mask.size
        assert layer["density"] == mask.mean()
        assert (layer["inputs"], layer["outputs"]) == mask.shape
        assert layer["dead_in"] == sum(not row.any() for row in mask)
        assert layer["dead_out"] == sum(not column.any() for column in mask.T)
        sizes = np.abs(weights.astype(float))
        assert layer["abs_min"] == sizes.min()
        assert layer["abs_median"] == np.median(sizes)
        assert layer["abs_mean"] == pytest.approx(sizes.mean())
        assert layer["abs_max"] == sizes.max()
        kept_sign = np.sign(weights) == np.sign(initial[f"params/{layer['path']}"][mask])
        assert layer["same_sign"] == kept_sign.mean()
    assert {array["path"].split("/")[0] for array in run["checkpoints"]} == {"replicate_1"}
    other = found(finished, "--level=1")["layers"]
    assert other[0]["abs_mean"] != run["layers"][0]["abs_mean"]  # replicate 0 unless told


def test_units_that_nothing_reaches_or_leaves_are_counted_in_kernels_of_any_rank(tmp_path):
    from lth_jax.commands.inspection.layers import layers_of

    mask = np.ones((3, 3, 4, 5), bool)
    mask[:, :, 1:3] = False  # two input channels
    mask[..., 4] = False  # an output channel
    signs = np.ones(mask.shape, np.float32)
    signs[0] = -1  # a third of the survivors
    signs[~mask] = 0
    nothing = np.zeros((2, 3), bool)
    masks = {"conv": {"kernel": mask}, "fc": {"kernel": nothing}}
    weights = {"conv": {"kernel": 2 * signs}, "fc": {"kernel": np.zeros((2, 3), np.float32)}}
    before = {"conv": {"kernel": np.ones(mask.shape, np.float32)}, "fc": weights["fc"]}
    checkpoints.save(tmp_path / "level_01", {"mask": masks, "params": weights}, {"layers": {}})
    checkpoints.save(tmp_path / "initial", {"params": before})

    def look(name):
        return kept.Kept(name, tmp_path / name, {}, {}, 0.0)

    conv, fc = layers_of(look("level_01"), look("initial"), ["conv/kernel", "fc/kernel"])
    assert (conv.inputs, conv.outputs, conv.dead_in, conv.dead_out) == (4, 5, 2, 1)
    assert conv.same_sign == 2 / 3
    assert conv.abs_min == conv.abs_max == 2
    assert (fc.kept, fc.dead_in, fc.dead_out) == (0, 2, 3)
    assert (fc.abs_min, fc.abs_mean, fc.same_sign) == (None, None, None)
    (lost,) = layers_of(look("level_01"), None, ["conv/kernel"])
    assert (lost.same_sign, lost.abs_max) == (None, 2)


def test_signs_are_compared_with_the_rewind_point_where_there_is_one(tmp_path, found):
    train(tmp_path, tiny_spec(levels=1, replicates=1, branches=(), rewind__step="5"))
    run = found(tmp_path, "--level=1")
    assert run["layers_of"]["signs_since"] == "rewind"
    folder = tmp_path / "checkpoints" / "replicate_0"
    arrays = checkpoints.load(folder / "level_01")[0]
    start = checkpoints.load(folder / "rewind")[0]
    mask = arrays["mask/fc1/kernel"]
    same = [np.sign(a["params/fc1/kernel"][mask]) for a in (arrays, start)]
    assert run["layers"][0]["same_sign"] == np.mean(same[0] == same[1])
    assert found(tmp_path, "--level=0")["layers_of"]["signs_since"] == "initial"
    shutil.rmtree(folder / "rewind")
    assert "rewind is missing" in found(tmp_path)["problems"][0]


def test_a_branch_a_level_a_replicate_and_a_layer_restrict_it(finished, shown, found):
    words = shown(finished, "--branch=reinit")
    assert "status: finished, 2 of 2 runs of reinit" in words
    assert "random_mask" not in words.split("level weights", 1)[1]
    assert {row["branch"] for row in found(finished, "--branch=reinit")["results"]} == {"reinit"}
    assert found(finished, "--branch=reinit")["progress"]["planned"] == 2
    assert "no weights; the ticket's are" in shown(finished, "--branch=reinit", "--level=1")
    words = shown(finished, "--level=1", "--layer=out*", "--replicate=1")
    assert "fc1" not in words.split("layers of the ticket", 1)[1]
    assert "params/output/bias" in words
    run = found(finished, "--level=1", "--layer=*/kernel")
    assert len(run["layers"]) == 2
    assert not any("bias" in array["path"] for array in run["checkpoints"])
    (layer,) = found(finished, "--level=1", "--layer=fc1")["layers"]
    assert layer["path"] == "fc1/kernel"
    paths = [array["path"] for array in found(finished, "--replicate=1")["checkpoints"]]
    assert {path.split("/")[1] for path in paths} == {"initial", "level_00", "level_01"}
    assert all(path.startswith("replicate_1/") for path in paths)


def test_numbers_that_are_none_are_null(copy, found):
    file = copy / "results.csv"
    header, first, *rest = file.read_text().splitlines(keepends=True)
    cells = first.split(",")
    cells[8], cells[13] = "inf", "nan"
    file.write_text("".join([header, ",".join(cells), *rest]))
    row = found(copy)["results"][0]
    assert row["early_stop_val_loss"] is None
    assert row["final_train_loss"] is None


# Running, killed and damaged


def test_a_run_that_lacks_branches_is_not_finished(tmp_path, capsys):
    train(tmp_path, tiny_spec(levels=0, replicates=1, branches=()))
    record = tmp_path / "spec.json"
    record.write_text(record.read_text().replace('"levels": 0', '"levels": 1'))
    assert inspect.main([str(tmp_path)]) == 0
    assert "status: stopped, 1 of 2 runs\nnext: level 1\n" in capsys.readouterr().out


def test_a_stopped_run_says_where_and_a_running_one_who(tmp_path, shown, found, capsys):
    with pytest.raises(Interrupted):
        train(tmp_path, tiny_spec(levels=1, replicates=1), stop_signal=StopAt(12))
    words = shown(tmp_path)
    assert "status: stopped, 1 of 4 runs level 1 was under way: 3 runs saved at step" in words
    assert " of 12, 0 s ago" in words
    assert "run_*/state/params/fc1/kernel float32[64, 8] 2,048 bytes each" in words
    progress = found(tmp_path)["progress"]
    assert progress["level"] == 1
    assert [run["branch"] for run in progress["under_way"]] == ["ticket", "reinit", "random_mask"]
    assert all(0 <= run["step"] < 12 for run in progress["under_way"])
    assert len(found(tmp_path, "--branch=reinit")["progress"]["under_way"]) == 1
    lock = Lock(tmp_path / "lock")
    try:
        assert found(tmp_path)["status"] == "running"
        assert f"status: running (process {os.getpid()} on " in shown(tmp_path)
        assert "level 1 is under way" in shown(tmp_path)
    finally:
        lock.release()
    facts = gather(tmp_path)
    for folder in (tmp_path / "checkpoints").glob("progress_*"):
        shutil.rmtree(folder)  # as its next save does
    assert 0 <= facts.age() < 600
    print_run(make_console(), facts, Selection(), None)
    capsys.readouterr()
    assert found(tmp_path)["progress"]["under_way"] == []


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_no_damage(copy, found, monkeypatch):
    flip_byte(data_file(copy / "checkpoints" / "replicate_0" / "level_01"))
    gone = copy / "checkpoints" / "progress_000003"
    gone.mkdir()
    monkeypatch.setattr(kept.time, "sleep", lambda _: shutil.rmtree(gone, ignore_errors=True))
    lock = Lock(copy / "lock")
    try:
        (problem,) = found(copy)["problems"]
        assert "level_01" in problem  # what stays damaged is
    finally:
        lock.release()


def test_leftovers_of_a_killed_save_are_named_and_no_damage(copy, shown, found):
    (copy / "checkpoints" / "replicate_0" / ".level_02.7.tmp").mkdir()
    (copy / ".results.csv.x.tmp").touch()
    assert "2 leftovers of a killed save, which the next start removes" in shown(copy)
    run = found(copy)
    assert run["leftovers"] == [".results.csv.x.tmp", "checkpoints/replicate_0/.level_02.7.tmp"]
    assert run["status"] == "finished"


def test_a_damaged_checkpoint_is_named_and_the_rest_is_shown(copy, shown, found, capsys):
    flip_byte(data_file(copy / "checkpoints/replicate_0/level_01"))
    words = shown(copy)
    assert "status: damaged, 8 of 8 runs" in words
    assert "replicate_0/level_01 DAMAGED: its file arrays/" in words
    assert "1 of 6 damaged" in words
    assert "a start trains again what it needs" in words
    assert "weights kept in each layer, replicate 0 level fc1 output all 0 512" in words
    run = found(copy)
    assert run["status"] == "damaged"
    (problem,) = run["problems"]
    assert problem.startswith("checkpoints/replicate_0/level_01: its file ")
    assert len(run["results"]) == 8
    assert found(copy, "--level=0")["layers"][0]["kept"] == 512
    assert inspect.main([str(copy), "--level=1", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: checkpoint ")
    assert err.count("\n") == 1


def test_without_what_training_started_from_signs_are_unknown(copy, shown, found):
    flip_byte(copy / "checkpoints/replicate_0/initial/manifest.json")
    layer = found(copy, "--level=1")["layers"][0]
    assert layer["same_sign"] is None
    assert layer["kept"] == 359
    assert "same sign is unknown" in shown(copy, "--level=1")


def test_what_is_missing_or_cut_short_is_named_and_the_rest_is_shown(copy, found, shown):
    text = (copy / "results.csv").read_text()
    (copy / "results.csv").write_text(text[:-30])
    (copy / "metrics/ticket/level_01.csv").write_text("replicate\n0,0,5,0.25\n")
    (copy / "metrics/reinit/level_01.csv").unlink()
    shutil.rmtree(copy / "checkpoints/replicate_1/level_01")
    run = found(copy)
    assert len(run["results"]) == 7
    for part in (
        "results.csv line 9: it is cut short",
        "metrics/ticket/level_01.csv is damaged: line 2 is cut short",
        "metrics/reinit/level_01.csv is missing",
        "checkpoints/replicate_1/level_01 is missing",
    ):
        assert any(part in problem for problem in run["problems"])
    assert len(run["problems"]) == 4
    assert "until those lines are taken out" in shown(copy)
    (copy / "results.csv").unlink()
    assert "results.csv is missing" in found(copy)["problems"][0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "spec.json is damaged: "),
        ("[]", "spec.json is damaged: "),
        ('{"format": 1}', "spec.json is damaged: wrong name"),
        (None, "spec.json is missing"),
    ],
)
def test_without_a_spec_the_rest_is_shown(copy, text, said, found, shown):
    (copy / "spec.json").unlink()
    if text:
        (copy / "spec.json").write_text(text)
    run = found(copy, "--level=1")
    assert run["problems"][0].startswith(said)
    assert run["status"] == "damaged"
    assert run["identity"] is run["spec"] is run["versions"] is None
    assert len(run["results"]) == 8
    assert len(run["layers"]) == 2
    assert "status: damaged, 8 runs" in shown(copy)


def test_a_spec_of_another_version_is_looked_at(copy, found, shown):
    file = copy / "spec.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 0, "sparkle": 1'))
    run = found(copy)
    assert run["status"] == "unknown"
    assert "sparkle: no such field" in run["problems"][0]
    assert run["spec"]["sparkle"] == 1
    assert "sparkle 1" in shown(copy)


def test_a_spec_that_is_not_its_identitys_is_named(copy, found):
    file = copy / "spec.json"
    file.write_text(file.read_text().replace('"learning_rate": 0.01', '"learning_rate": 0.07', 1))
    (problem,) = found(copy)["problems"]
    assert problem.startswith("spec.json was changed: its spec has the identity ")


@pytest.mark.parametrize(("number", "age"), [(99, "a newer"), (0, "another"), ("x", "another")])
def test_a_run_of_another_format_is_refused(copy, number, age, capsys):
    file = copy / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": number}))
    assert inspect.main([str(copy)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"has format {number}; this version reads 1 (it was written by {age} lth_jax" in err
    assert err.count("\n") == 1


def test_no_damage_ends_in_a_traceback(finished, tmp_path, capsys):
    """Whatever file is cut, changed or gone: an answer, or one line."""
    files = sorted(f for f in finished.rglob("*") if f.is_file() and f.stat().st_size)
    chance = random.Random(0)
    for trial in range(18):
        copy = shutil.copytree(finished, tmp_path / str(trial))
        file = copy / chance.choice([*files[:40], *files[-6:]]).relative_to(finished)
        content = bytearray(file.read_bytes())
        if trial % 3 == 0:
            file.write_bytes(content[: chance.randrange(len(content))])
        elif trial % 3 == 1:
            content[chance.randrange(len(content))] = chance.randrange(256)
            file.write_bytes(content)
        else:
            file.unlink()
        statuses = [inspect.main([str(copy), *more]) for more in ([], ["--json", "--level=1"])]
        assert set(statuses) <= {0, 2}
        err = capsys.readouterr().err
        assert err.count("\n") == statuses.count(2)
        shutil.rmtree(copy)


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere holds no run"),
        ([__file__], "holds no run: it is a file"),
        (["PARENT"], "runs in it: "),
        (["RUN", "--level=7"], "no level 7 of replicate 0; accepted: levels 0 to 1 of replicates"),
        (["RUN", "--replicate=4", "--level=0"], "no level 0 of replicate 4; accepted: levels"),
        (["RUN", "--replicate=4"], "no replicate 4; accepted: 0 to 1"),
        (["RUN", "--branch=reini"], "did you mean 'reinit'? accepted: random_mask, reinit, ticket"),
        (["RUN", "--layer=conv*"], "accepted: a pattern for fc1/kernel, output/kernel"),
        (["RUN", "--layer=bias"], "matches no prunable layer"),
        (["RUN", "--level=x"], "--level"),
        (["RUN", "--levels=1"], "--levels"),
        ([], "RUN"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(finished, arguments, said, capsys):
    names = {"RUN": str(finished), "PARENT": str(finished.parent)}
    arguments = [names.get(argument, argument) for argument in arguments]
    assert main(["inspect", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_numbers_are_said_as_spans():
    assert spans([]) == ""
    assert spans([3, 1, 2, 0, 5, 8, 7]) == "0 to 3, 5, 7 to 8"


def test_it_imports_neither_jax_nor_orbax_and_does_not_complain_to_a_closed_pipe(finished):
    code = (
        "import sys; from lth_jax.commands import main\n"
        f"status = main(['inspect', {str(finished)!r}, '--level=1'])\n"
        "heavy = {'jax', 'orbax', 'flax', 'matplotlib', 'tensorflow'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - start < 10  # 0.5 s where nobody else is at work
    shell = f"{sys.executable} -m lth_jax inspect {finished} | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("tiny, identity ")
    assert done.stderr == ""
