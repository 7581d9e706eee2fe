"""`predict`: files and test examples, shown and drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from lth_jax.cli import main
from lth_jax.cli import predict as command
from lth_jax.errors import StoreError
from lth_jax.export.inference import inference_of
from lth_jax.report import prediction
from lth_jax.store import RunDirectory

from ..tiny import tiny_spec, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spec = tiny_spec(levels=1, replicates=2, branches=(), train__steps="60", data__standardize=True)
    return train(tmp_path_factory.mktemp("predict") / "run", spec).path


@pytest.fixture
def predict(run, capsys, monkeypatch):
    """The status, the output, the errors, and the predictions made."""
    made = []
    monkeypatch.setattr(prediction, "print_prediction", lambda console, one: made.append(one))

    def predict(*arguments):
        status = main(["predict", str(run), "--level=1", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, made

    return predict


def test_the_whole_test_set_is_predicted_as_the_row_says(run, predict, tmp_path, monkeypatch):
    """The same pixels, standardized the same way: the accuracy is that of `results.csv`."""
    monkeypatch.setattr(command, "_draw", lambda *_: None)
    _, out, _, made = predict("--replicate=1", *(f"--index={i}" for i in range(50)))
    right = np.mean([one.label == one.best for one in made])
    row = next(r for r in RunDirectory.read(run).rows.values() if (r.level, r.replicate) == (1, 1))
    assert right == pytest.approx(row.final_test_accuracy, abs=1e-6)
    assert f"replicate 1, test accuracy {100 * right:.2f}%" in out
    assert [one.title for one in made[:2]] == ["test example 0", "test example 1"]


def test_a_file_of_a_test_example_is_predicted_like_it(run, predict, tmp_path):
    seen = inference_of(RunDirectory.read(run).spec())
    for name, pixels in {"own.png": seen.images[7], "inverted.png": 16 - seen.images[7]}.items():
        Image.fromarray(np.round(pixels[..., 0] * (255.0 / 16)).astype(np.uint8)).save(
            tmp_path / name
        )
    out = tmp_path / "drawn.figure"
    arguments = [tmp_path / "own.png", "--index=7", tmp_path / "inverted.png", f"--out={out}"]
    status, printed, _, made = predict(*arguments)
    assert status == 0
    own, inverted, example = made
    np.testing.assert_allclose(own.probabilities, example.probabilities, rtol=1e-4)
    np.testing.assert_allclose(inverted.image, example.image, atol=1e-6)
    assert inverted.notes == ["dark on light, the training images are light on dark: inverted"]
    assert (own.title, own.label, example.label) == ("own.png", None, seen.labels[7])
    assert f"figure {out}" in printed
    with Image.open(out) as drawn:
        assert drawn.format == "PNG"
        assert drawn.size[0] == 960


def test_the_figure_lies_with_the_runs_figures_unless_it_cannot(run, predict, monkeypatch):
    status, out, _, _ = predict("--index=0")
    file = run / "figures" / "prediction_level_01_replicate_0.png"
    assert status == 0
    assert file.exists()
    assert str(file) in out

    def refuse(path, _):
        raise StoreError(f"cannot write {path}: read-only")

    monkeypatch.setattr(command, "write_bytes", refuse)
    status, _, err, _ = predict("--index=0")
    assert status == 0
    assert "warning: no figure: cannot write" in err
    status, _, err, _ = predict("--index=0", "--out=asked.png")
    assert status == 2
    assert "error: cannot write asked.png: read-only" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to predict; accepted: image files, or --index=I"),
        (["--index=50"], "--index=50: accepted: 0 to 49, the run's test examples"),
        (["--index=-1"], "--index=-1: accepted: 0 to 49"),
        (["--index=0", "--level=5"], "no level_05 of replicate 0: accepted: levels 0 to 1"),
        (["--index=0", "--replicate=5"], "no level_01 of replicate 5"),
        (["none.png"], "none.png: no such file"),
        (["bad.png"], "bad.png is no image that can be read"),
        (["--index=0", "--out=."], "--out=.: a folder is there"),
    ],
)
def test_bad_input_is_one_line(arguments, complaint, predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_text(json.dumps("no image"))
    status, _, err, made = predict(*arguments)
    (line,) = err.splitlines()
    assert status == 2
    assert complaint in line
    assert made == []


def test_padded_images_and_class_subsets_are_seen_as_in_training():
    spec = tiny_spec(
        model__name="lenet5",
        model__hidden=(300, 100),
        data__side=28,
        data__classes=(3, 5),
        data__channels=3,
    )
    seen = inference_of(spec)
    assert (seen.image_shape, seen.shape) == ((28, 28, 3), (32, 32, 3))
    assert seen.names == ("3", "5")
    assert set(seen.labels.tolist()) == {0, 1}
    look = command.look_of(seen)
    assert (look.shape, look.grey, look.backdrop) == ((28, 28, 3), True, 0.0)
    assert seen.unpadded == (slice(2, 30), slice(2, 30))
