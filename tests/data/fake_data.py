"""Tiny datasets in the formats of the real ones: prepared by TFDS, and as original archives."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
from PIL import Image

from lth_jax.data import archive_formats as formats
from lth_jax.data.archives import SOURCES
from lth_jax.data.records import Files


def prepare(
    folder, *, train, test, features=None, version="1.0.0", name="tiny", supervised=True,
    test_split="test",
):  # fmt: skip
    """Writes the examples as a TFDS dataset with a throw-away builder, and returns its folder."""
    import tensorflow_datasets as tfds

    features = features or {
        "image": tfds.features.Image(shape=(5, 5, 1)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    named, _, config = name.partition("/")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = named
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label") if supervised else None,
            )

        def _split_generators(self, dl_manager):
            splits = {"train": train, test_split: test}
            return {k: enumerate(v) for k, v in splits.items() if v is not None}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Builder(data_dir=folder, config=config or None)
    builder.download_and_prepare(file_format="array_record")
    return folder / name / version


def examples(count, *, classes=3, first=0, shape=(5, 5), seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, *shape), np.uint8)
    return [
        {"image": Image.fromarray(image), "label": first + index % classes}
        for index, image in enumerate(images)
    ]


def photographs(count, *, classes=3, seed=0):
    """Examples as ImageNet has them: JPEG files, each image of a size of its own."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        width, height = random.integers(40, 90, 2)
        # Smooth ones, which a JPEG keeps nearly as they are.
        coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(file, "JPEG")
        example = {"label": index % classes, "file_name": f"n{index:08d}.JPEG"}
        found.append({"image": file.getvalue(), **example})
    return found


def prepare_imagenet(folder, train, test, classes=1000):
    """Writes photographs as TFDS's `imagenet2012` is prepared, and returns its folder."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=classes),
        "file_name": tfds.features.Text(),
    }
    # As open files, which TFDS reads to their end.
    files = [[{**e, "image": io.BytesIO(e["image"])} for e in part] for part in (train, test)]
    return prepare(
        folder, train=files[0], test=files[1], features=features, version="5.1.0",
        name="imagenet2012", test_split="validation",
    )  # fmt: skip


def as_tfrecord(folder, *, drop=0):
    """Turns a prepared dataset into one of TFRecord files, the last `drop` records left out."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    for split in builder.info.splits:
        records = list(Files.of(builder, split).read())
        (path,) = folder.glob(f"*{split}.array_record*")
        path.unlink()
        blob = io.BytesIO()
        for record in records[: len(records) - drop]:
            blob.write(struct.pack("<Q4x", len(record)) + record + bytes(4))
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(blob.getvalue())
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def multiset(images, labels):
    """The examples in an order of their own, to compare."""
    return sorted(
        (int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)
    )


def random_images(name, count, seed=0):
    """uint8 images of the shape of the dataset `name`, and labels of as many of its classes."""
    facts = SOURCES[name].facts
    images = np.random.default_rng(seed).integers(0, 256, (count, *facts.shape), np.uint8)
    return images, (np.arange(count) % facts.classes).astype(np.uint8)


def write_archives(folder, name, train, test):
    """Writes (images, labels) `train` and `test` as the original archives of `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in formats.CIFAR_LAYOUTS:
        write_tar(folder / archive_names(name)[0], cifar_files(name, train, test))
        return
    for files, (images, labels) in zip(formats.IDX_SPLITS.values(), (train, test), strict=True):
        for file, array in zip(files, (images[..., 0], labels), strict=True):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / file).write_bytes(gzip.compress(head + array.tobytes(), 1))


def cifar_files(name, train, test, label_names=None):
    """What is in the archive of `name`: file name -> bytes."""
    layout, classes = formats.CIFAR_LAYOUTS[name], SOURCES[name].facts.classes
    names = {"label": label_names or [f"class{n}" for n in range(classes)]}
    names["coarse_label"] = [f"group{n}" for n in range(20)]
    files = {file: "\n".join([*names[key], "", ""]) for key, file in layout.labels.items()}
    contents = {f"{layout.folder}/{file}": text.encode() for file, text in files.items()}
    for split, (images, labels) in (("train", train), ("test", test)):
        # The coarse label that we write is the last digit of the fine one.
        by_key = {"label": labels, "coarse_label": labels % 10}
        columns = np.stack([by_key[key] for key in layout.labels], axis=1)
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.concatenate([columns, planes], axis=1)
        parts = layout.splits[split]
        for file, part in zip(parts, np.array_split(records, len(parts)), strict=True):
            contents[f"{layout.folder}/{file}"] = part.tobytes()
    return contents


def write_tar(path, contents):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def trust(monkeypatch, name, folder, **facts):
    """Has the archives in `folder` taken for those of `name`, of which the `facts` are others."""
    source, known = SOURCES[name], {}
    for file in source.archives:
        content = (folder / file).read_bytes()
        known[file] = len(content), hashlib.sha256(content).hexdigest()
    changed = source._replace(archives=known, facts=source.facts._replace(**facts))
    monkeypatch.setitem(SOURCES, name, changed)


def archive_names(name):
    return list(SOURCES[name].archives)
