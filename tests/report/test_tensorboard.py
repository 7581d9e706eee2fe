"""TensorBoard's event files, read again record by record."""

import io
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from lth_jax.analysis.layers import FirstLayer
from lth_jax.report.tensorboard import (
    FILE,
    OLD_FILE,
    mask_image,
    read_events,
    write_events,
    write_level,
)
from lth_jax.store.tables import CURVES

from ..tiny import finished_run, tiny_spec, train

FIRST = FirstLayer("fc1/kernel", (8, 8, 1))


def events(path):
    """The events of a file, with both checksums of each record checked."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        head = content[at : at + 8]
        (length,) = struct.unpack("<Q", head)
        data = content[at + 12 : at + 12 + length]
        sums = content[at + 8 : at + 12], content[at + 12 + length : at + 16 + length]
        assert sums == tuple(struct.pack("<I", masked_crc32c(part)) for part in (head, data))
        event = Event()
        event.ParseFromString(data)
        found.append(event)
        at += 16 + length
    assert found[0].file_version == "brain.Event:2"
    return found[1:]


def scalars(path):
    """Tag -> [(step, value)]."""
    found = {}
    for event in events(path):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def write(store):
    write_events(store, FIRST)
    return store.path / "tensorboard"


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    from lth_jax.store import RunDirectory

    return write(RunDirectory.read(shutil.copytree(finished, tmp_path_factory.mktemp("t") / "c")))


def test_a_run_is_a_branch_or_a_replicate_of_it_and_levels_are_tags(folder, finished, read):
    store = read(finished)
    runs = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*tfevents*")}
    branches = ("ticket", "reinit", "random_mask")
    assert runs == {f"{b}{r}" for b in branches for r in ("", "/replicate_0", "/replicate_1")}
    for branch, level, replicate in {(r.branch, r.level, r.replicate) for r in store.rows.values()}:
        points = [p for p in store.curve(branch, level) if p.replicate == replicate]
        found = scalars(folder / branch / f"replicate_{replicate}" / FILE.format(level=level))
        for tag, column in {"accuracy": "val_accuracy", "loss": "val_loss"}.items():
            wanted = [(p.step, np.float32(getattr(p, column))) for p in points]
            assert found[f"validation_{tag}/level_{level:02d}"] == wanted
        # The first has no minibatches behind it.
        trained = [step for step, _ in found[f"train_loss/level_{level:02d}"]]
        assert trained == [p.step for p in points[1:]]


def test_a_branch_has_the_mean_of_its_networks(folder, finished, read):
    store = read(finished)
    found = scalars(folder / "reinit" / FILE.format(level=2))
    points = store.curve("reinit", 2)
    for step, mean in found["validation_loss/level_02"]:
        losses = [p.val_loss for p in points if p.step == step]
        assert len(losses) == 2
        assert mean == pytest.approx(np.mean(losses))
    rows = [r for r in store.rows.values() if (r.branch, r.level) == ("reinit", 2)]
    wanted = np.mean([row.early_stop_test_accuracy for row in rows])
    assert found["early_stop/test_accuracy"] == [(2, pytest.approx(wanted))]


def test_what_diverged_is_in_no_mean(copy, read):
    store = read(copy)
    points = store.curve("ticket", 1)
    nan = float("nan")
    changed = [p._replace(val_loss=nan) if p.replicate else p for p in points]
    store.write_points(CURVES, "ticket", 1, changed)
    write_level(store, "ticket", 1)
    found = scalars(copy / "tensorboard" / "ticket" / FILE.format(level=1))
    wanted = [(p.step, np.float32(p.val_loss)) for p in points if not p.replicate]
    assert found["validation_loss/level_01"] == wanted


def test_results_and_the_mask_are_there_by_level(folder, finished, read):
    rows = [r for r in read(finished).sorted_rows() if (r.branch, r.replicate) == ("ticket", 1)]
    paths = [folder / "ticket" / "replicate_1" / FILE.format(level=row.level) for row in rows]
    found = [scalars(path)["early_stop/test_accuracy"] for path in paths]
    assert found == [[(row.level, np.float32(row.early_stop_test_accuracy))] for row in rows]
    pictures = [v for e in events(paths[-1]) for v in e.summary.value if v.tag == "mask/fc1"]
    image = Image.open(io.BytesIO(pictures[-1].image.encoded_image_string))
    assert image.size == (pictures[-1].image.width, pictures[-1].image.height) == (224, 224)
    control = events(folder / "reinit" / "replicate_1" / FILE.format(level=1))
    assert not any(value.tag == "mask/fc1" for event in control for value in event.summary.value)


def test_the_dashboard_of_custom_scalars_has_all_levels_in_one_chart(folder):
    first, *_ = events(folder / "ticket" / FILE.format(level=0))
    (value,) = first.summary.value
    assert value.tag == "custom_scalars__config__"
    assert b"validation_accuracy/level_.*" in value.tensor.string_val[0]


def test_what_is_complete_is_not_touched(copy, read):
    written = {path: path.stat().st_mtime_ns for path in write(read(copy)).rglob("*tfevents*")}
    assert written
    write(read(copy))
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.parametrize("cut", [0, 30, -1, -400])
def test_a_file_that_was_cut_off_is_written_anew_record_for_record(copy, read, cut):
    file = write(read(copy)) / "ticket" / "replicate_0" / FILE.format(level=1)
    whole, content = scalars(file), file.read_bytes()
    file.write_bytes(content[:cut])
    write(read(copy))
    assert scalars(file) == whole
    assert len(file.read_bytes()) == len(content), "a reader goes on where it was"


def test_a_mean_of_fewer_networks_is_written_anew(tmp_path, read):
    finished_run(tiny_spec(levels=1, replicates=1, branches=()), tmp_path)
    write(read(tmp_path))
    train(tmp_path, tiny_spec(levels=1, replicates=2, branches=()))
    store = read(tmp_path)
    found = scalars(write(store) / "ticket" / FILE.format(level=1))
    losses = [p.val_loss for p in store.curve("ticket", 1) if p.step == 12]
    assert len(losses) == 2
    assert found["validation_loss/level_01"][-1] == (12, pytest.approx(np.mean(losses)))


def test_files_of_earlier_versions_go(copy, read):
    old = copy / "tensorboard" / "ticket" / "level_01" / "replicate_0" / OLD_FILE
    mine = copy / "tensorboard" / "ticket" / "by_level" / "replicate_0" / "mine"
    for file in (old, mine.with_name(OLD_FILE), mine):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    write(read(copy))
    assert not old.parent.parent.exists()
    assert list(mine.parent.iterdir()) == [mine]


def test_a_session_appends_what_is_new(copy, read):
    store = read(copy)
    store.rows.clear()
    points = store.curve("ticket", 1)
    file = copy / "tensorboard" / "ticket" / "replicate_0" / FILE.format(level=1)
    mean = copy / "tensorboard" / "ticket" / FILE.format(level=1)
    store.write_points(CURVES, "ticket", 1, [p for p in points if p.step <= 5 * (1 - p.replicate)])
    write_level(store, "ticket", 1)
    before, means = file.read_bytes(), mean.read_bytes()
    assert len(read_events(file)) == 2
    assert len(read_events(mean)) == 1, "where both are"
    # As after a kill: the curve is shorter than what was told, until it has caught up.
    store.write_points(CURVES, "ticket", 1, [p for p in points if p.step <= 0])
    write_level(store, "ticket", 1)
    assert file.read_bytes() == before
    store.write_points(CURVES, "ticket", 1, points)
    write_level(store, "ticket", 1)
    assert file.read_bytes().startswith(before)
    assert mean.read_bytes().startswith(means)
    steps = [step for step, _ in scalars(file)["validation_loss/level_01"]]
    assert steps == [0, 5, 10, 12]
    store.write_points(CURVES, "ticket", 1, [p for p in points if not p.replicate])
    mean.unlink()
    write_level(store, "ticket", 1)
    assert not mean.exists(), "it would be another once the other one begins"


def test_masks_are_pictures_of_pixels_or_of_kernels():
    mask = np.zeros((64, 5), bool)
    mask[0], mask[9, :2] = True, True
    picture = mask_image(mask, FIRST)
    assert (picture.shape, picture.dtype) == ((224, 224), np.uint8)
    assert (picture[0, 0], picture[30, 30], picture[60, 60]) == (255, 102, 0)
    kernels = mask_image(np.ones((3, 3, 1, 4), bool), FirstLayer("conv/kernel", None))
    assert kernels.shape == (7 * 32, 7 * 32)
    assert set(np.unique(kernels)) == {64, 255}


def test_tensorboard_itself_reads_them(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / "ticket" / "replicate_0"))
    found.Reload()
    assert "early_stop/test_accuracy" in found.Tags()["scalars"]
    assert found.Tags()["images"] == ["mask/fc1"]
