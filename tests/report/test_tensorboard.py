"""TensorBoard's event files, read again record by record."""

import io
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from lth_jax.analysis.layers import FirstLayer
from lth_jax.report.tensorboard import FILE, count_records, mask_image, write_curves, write_events

from ..tiny import curves, tiny_spec, train

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


def test_every_network_has_its_curve(folder, finished, read):
    store = read(finished)
    files = {path.parent.relative_to(folder).as_posix() for path in folder.rglob(FILE)}
    networks = {(row.branch, row.level, row.replicate) for row in store.rows.values()}
    assert {f"{b}/level_{n:02d}/replicate_{r}" for b, n, r in networks} < files
    assert len(curves(finished)) * 2 == sum("level_0" in name for name in files)
    for branch, level, replicate in networks:
        points = [p for p in store.curve(branch, level) if p.replicate == replicate]
        found = scalars(folder / branch / f"level_{level:02d}" / f"replicate_{replicate}" / FILE)
        for tag, column in {"accuracy": "val_accuracy", "loss": "val_loss"}.items():
            wanted = [(p.step, np.float32(getattr(p, column))) for p in points]
            assert found[f"validation/{tag}"] == wanted
        # The first has no minibatches behind it.
        assert [step for step, _ in found["train/loss"]] == [p.step for p in points[1:]]


def test_results_and_the_mask_are_there_by_level(folder, finished, read):
    path = folder / "ticket" / "by_level" / "replicate_1" / FILE
    rows = [r for r in read(finished).sorted_rows() if (r.branch, r.replicate) == ("ticket", 1)]
    found = scalars(path)
    wanted = [(row.level, np.float32(row.early_stop_test_accuracy)) for row in rows]
    assert found["early_stop/test_accuracy"] == wanted
    pictures = [v for e in events(path) for v in e.summary.value if v.tag == "mask/fc1"]
    assert len(pictures) == 3
    image = Image.open(io.BytesIO(pictures[-1].image.encoded_image_string))
    assert image.size == (pictures[-1].image.width, pictures[-1].image.height) == (224, 224)
    assert "mask/fc1" not in scalars(folder / "reinit" / "by_level" / "replicate_1" / FILE)


def test_what_is_complete_is_not_touched(copy, read):
    written = {path: path.stat().st_mtime_ns for path in write(read(copy)).rglob(FILE)}
    write(read(copy))
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.parametrize("cut", [0, 30, -1, -400])
def test_a_file_that_was_cut_off_is_written_anew_record_for_record(copy, read, cut):
    file = write(read(copy)) / "ticket" / "level_01" / "replicate_0" / FILE
    whole, content = scalars(file), file.read_bytes()
    file.write_bytes(content[:cut])
    write(read(copy))
    assert scalars(file) == whole
    assert len(file.read_bytes()) == len(content), "a reader goes on where it was"


def test_a_grown_experiment_adds_its_levels_once(tmp_path, read):
    train(tmp_path, tiny_spec(levels=1, replicates=1, branches=()))
    write(read(tmp_path))
    train(tmp_path, tiny_spec(levels=2, replicates=1, branches=()))
    folder = write(read(tmp_path))
    found = scalars(folder / "ticket" / "by_level" / "replicate_0" / FILE)
    assert [step for step, _ in found["density"]] == [0, 1, 2]
    assert count_records(folder / "ticket" / "level_02" / "replicate_0" / FILE) == 4


def test_a_session_appends_what_is_new(copy, read):
    store = read(copy)
    points = store.curve("ticket", 1)
    file = copy / "tensorboard" / "ticket" / "level_01" / "replicate_0" / FILE
    store.write_curve("ticket", 1, [p for p in points if p.step <= 5])
    write_curves(store, "ticket", 1)
    before = file.read_bytes()
    assert count_records(file) == 2
    # As after a kill: the curve is shorter than what was told, until it has caught up.
    store.write_curve("ticket", 1, [p for p in points if p.step <= 0])
    write_curves(store, "ticket", 1)
    assert file.read_bytes() == before
    store.write_curve("ticket", 1, points)
    write_curves(store, "ticket", 1)
    assert file.read_bytes().startswith(before)
    assert [step for step, _ in scalars(file)["validation/loss"]] == [0, 5, 10, 12]


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
    found = accumulator.EventAccumulator(str(folder / "ticket" / "by_level" / "replicate_0"))
    found.Reload()
    assert "early_stop/test_accuracy" in found.Tags()["scalars"]
    assert found.Tags()["images"] == ["mask/fc1"]
