"""`export`: every format on a run of real digits, and what it refuses."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax
from lth_jax.cli import export, main
from lth_jax.config import from_config
from lth_jax.config.files import load_config
from lth_jax.errors import DataError
from lth_jax.export import compact, compaction, containers, sequential, shrinking
from lth_jax.export.inference import inference_of
from lth_jax.export.shrinking import shrink
from lth_jax.export.tickets import load_trained
from lth_jax.export.whole import Origin
from lth_jax.lottery import examples
from lth_jax.store.record import new_record
from lth_jax.store.tables import RunId
from lth_jax.training.pixels import Pixels

from ..tiny import tiny_spec, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spec = tiny_spec(levels=4, pruning__fraction=0.6, replicates=1, branches=())
    return train(tmp_path_factory.mktemp("export") / "run", spec).path


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(compaction, "SECONDS", 0.0)


def exported(run, file, file_format, *more):
    return export.main([str(run), "--level=4", f"--format={file_format}", f"--out={file}", *more])


def original_logits(run, what):
    from lth_jax.store import RunDirectory

    seen = inference_of(RunDirectory.read(run).spec())
    params, _ = load_trained(run, 4)
    if what == "ticket":
        params = lth_jax.load_ticket(run, 4).state.params
    x = seen.pixels.prepared(jnp.asarray(seen.images))
    return seen, np.asarray(seen.model.apply({"params": params}, x, False, {})[0])


@pytest.mark.parametrize("what", ["ticket", "trained"])
def test_a_compact_network_gives_the_same_logits(what, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert exported(run, tmp_path / "small.bin", "compact", f"--what={what}") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["small.bin"]
    network = lth_jax.load_compact(tmp_path / "small.bin")
    seen, wanted = original_logits(run, what)
    np.testing.assert_allclose(network.logits(seen.images), wanted, rtol=1e-5, atol=1e-6)
    mask = lth_jax.load_ticket(run, 4).mask["fc1"]["kernel"]
    inside, outside = network.units["inputs"], network.units["fc1"]
    np.testing.assert_array_equal(network.mask["fc1"]["kernel"], mask[inside][:, outside])
    assert network.about["metrics"]["level"] == network.about["level"] == 4
    assert network.about["what"] == what
    words = " ".join(capsys.readouterr().out.split())
    left = network.params["fc1"]["kernel"].size + network.params["output"]["kernel"].size
    left += int(outside.sum()) + 10
    assert f"parameters 610 {left} {left / 610:.1%}" in words
    assert f"bytes {610 * 4:,} {(tmp_path / 'small.bin').stat().st_size:,}" in words
    assert "FLOPs an image 1,184" in words
    assert "milliseconds, batch 1 " in words
    assert "milliseconds, batch 128 " in words
    assert "on 50 test images of digits" in words


def test_without_the_data_random_images_are_compared_and_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        examples, "load", lambda _: (_ for _ in ()).throw(DataError("they are somewhere else"))
    )
    assert exported(run, tmp_path / "x", "compact") == 0
    out = capsys.readouterr().out
    assert "on 1,000 random images, since the data cannot be had (they are somewhere else)" in out


def test_a_compact_network_of_other_logits_is_not_written(run, tmp_path, capsys, monkeypatch):
    def wrong(*arguments):
        small = shrink(*arguments)
        small.params["output"]["bias"][0] += 0.01
        return small

    monkeypatch.setattr(shrinking, "shrink", wrong)
    assert exported(run, tmp_path / "x", "compact") == 1
    assert "its logits differ from the original's by 1.0e-02" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_lenet_ticket_of_3_6_percent_takes_less_than_60_000_bytes(tmp_path):
    config = load_config(str(ROOT / "configs/lenet_mnist.py"), [], [])
    spec = from_config(config)
    random = np.random.default_rng(0)
    params, mask, layers = {}, {}, {}
    kept = {"fc1": 8275, "fc2": 1056, "output": 206}  # level 15 of the paper's protocol
    for name, shape in {"fc1": (784, 300), "fc2": (300, 100), "output": (100, 10)}.items():
        size = shape[0] * shape[1]
        chosen = np.zeros(size, bool)
        chosen[random.permutation(size)[: kept[name]]] = True
        params[name] = {
            "kernel": random.normal(size=shape).astype(np.float32),
            "bias": random.normal(size=shape[1]).astype(np.float32),
        }
        mask[name] = {"kernel": chosen.reshape(shape), "bias": np.ones(shape[1], bool)}
        layers[f"{name}/kernel"] = kept[name], size
    sequence = sequential.layers_of("mlp", list(params))
    small = shrink(sequence, params, mask, {}, (28, 28, 1))
    record = new_record(spec, "lenet_mnist", {}, ["run.py"])
    origin = Origin(record, RunId("ticket", 15, 0, 0), None, layers)
    packed = compact.pack(small, Pixels(1 / 255), (28, 28, 1))
    assert compact.save(tmp_path / "x", origin, "ticket", packed) < 60_000
    found = lth_jax.load_compact(tmp_path / "x")
    assert sum(int(found.mask[n]["kernel"].sum()) for n in kept) > 0.95 * sum(kept.values())


@pytest.mark.parametrize("what", ["ticket", "trained"])
def test_pytorch_gives_the_same_logits_on_real_images(what, run, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import pytorch_networks

    assert exported(run, tmp_path / "x", "torch", f"--what={what}") == 0
    module = pytorch_networks.load(tmp_path / "x")
    seen, wanted = original_logits(run, what)
    images = np.asarray(seen.pixels.prepared(jnp.asarray(seen.images))).transpose(0, 3, 1, 2)
    with torch.no_grad():
        found = module(torch.tensor(images)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    kept = int(module.get_buffer("fc1.weight_mask").sum())
    assert kept == lth_jax.load_ticket(run, 4).mask["fc1"]["kernel"].sum()
    del sys.modules["pytorch_networks"]


@pytest.mark.parametrize("file_format", ["safetensors", "npz"])
def test_a_whole_ticket_names_spec_versions_and_metrics(file_format, run, tmp_path, capsys):
    assert exported(run, tmp_path / "x", file_format) == 0
    out = capsys.readouterr().out
    assert f"{(tmp_path / 'x').stat().st_size:,} bytes, level 4 of replicate 0" in out
    arrays, metadata = containers.read(tmp_path / "x")
    assert json.loads(metadata["spec"])["model"]["hidden"] == [8]
    assert (
        json.loads(metadata["metrics"])["kept"]
        == json.loads(metadata["layers"])["fc1/kernel"][0]
        + json.loads(metadata["layers"])["output/kernel"][0]
    )
    assert "jax" in json.loads(metadata["versions"])
    assert arrays["mask/fc1/kernel"].dtype == np.uint8
    assert arrays["mask/fc1/kernel"].size == 64
    assert {name.split("/")[0] for name in arrays} == {"mask", "rewound", "trained"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--level=9"], "no level_09 of replicate 0: accepted: levels 0 to 4 of replicate 0"),
        (["--level=x"], "argument --level: invalid int value"),
        (["--level=1", "--replicate=3"], "no level_01 of replicate 3"),
        (["--level=1", "--format=onnx"], "argument --format: invalid choice: 'onnx'"),
        (["--level=1", "--what=mask"], "argument --what: invalid choice: 'mask'"),
        (["--level=1", "--out=."], "--out=.: a folder is there"),
        (
            ["--level=1", "--out=/proc/none/file"],
            "--out=/proc/none/file: there is no folder /proc/none",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments, complaint, run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    status = main(["export", str(run), "--format=npz", "--out=file", *arguments])
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert status == 2
    assert line.startswith("error: ")
    assert complaint in line
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_compact_form_is_refused(tmp_path, capsys, monkeypatch):
    spec = tiny_spec(levels=0, replicates=1, branches=(), train__steps="1", eval__every="1")
    path = train(tmp_path / "run", spec).path
    record = json.loads((path / "spec.json").read_text())
    record["spec"]["model"] |= {"name": "resnet20", "hidden": [300, 100]}
    (path / "spec.json").write_text(json.dumps(record))
    status = export.main([str(path), "--level=0", "--format=compact", f"--out={tmp_path / 'x'}"])
    assert status == 2
    assert "resnet20 is not a sequence of layers" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
