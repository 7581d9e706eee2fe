"""`inspect`: what a run is, in words and as an object."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lth_jax.cli import main
from lth_jax.cli.layers import layers_of
from lth_jax.errors import spans
from lth_jax.store import checkpoints

from ..tiny import change_row, finished_run, tiny_spec


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
    assert "the dense network (within 0.2 points)" in words
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

    level, start = tmp_path / "level_01", tmp_path / "initial"
    conv, fc = layers_of(level, start, ["conv/kernel", "fc/kernel"])
    assert (conv.inputs, conv.outputs, conv.dead_in, conv.dead_out) == (4, 5, 2, 1)
    assert conv.same_sign == 2 / 3
    assert conv.abs_min == conv.abs_max == 2
    assert (fc.kept, fc.dead_in, fc.dead_out) == (0, 2, 3)
    assert (fc.abs_min, fc.abs_mean, fc.same_sign) == (None, None, None)
    (lost,) = layers_of(level, None, ["conv/kernel"])
    assert (lost.same_sign, lost.abs_max) == (None, 2)


def test_signs_are_compared_with_the_rewind_point_where_there_is_one(tmp_path, found):
    finished_run(tiny_spec(levels=1, replicates=1, branches=(), rewind__step="5"), tmp_path)
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
    nan = {"early_stop_val_accuracy": math.nan, "early_stop_test_accuracy": math.nan}
    change_row(copy, 0, early_stop_step=-1, early_stop_val_loss=math.inf, **nan)
    row = found(copy)["results"][0]
    assert row["early_stop_val_loss"] is None
    assert row["early_stop_val_accuracy"] is None


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
        "import sys; from lth_jax.cli import main\n"
        f"status = main(['inspect', {str(finished)!r}, '--level=1'])\n"
        "heavy = {'jax', 'orbax', 'flax', 'matplotlib', 'tensorflow'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shell = f"{sys.executable} -m lth_jax inspect {finished} | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("tiny, identity ")
    assert done.stderr == ""
