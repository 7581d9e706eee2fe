"""TFDS builders that need no TensorFlow, a class for each row of `SOURCES`.

They write what the stock builders write, under the same name and version: either reads the data of
the other. The stock ones extract the archives with `tf.io.gfile`, into a folder by file name, and
MNIST, Fashion-MNIST and KMNIST share their file names. These read the archives where they lie.

Imports TFDS: import this module inside a function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lth_jax.data import cifar, idx
from lth_jax.data.sources import SOURCES, Source

Examples = Iterator[tuple[int, dict[str, Any]]]


# `skip_registration`: TFDS has builders of these names. Type checkers do not know of it.
class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    """Downloads (or takes from a manual folder) the archives, and checks their SHA-256.

    TFDS finds their checksums beside this module, in `checksums.tsv`.
    """

    SOURCE: Source

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.SOURCE.description,
            features=tfds.features.FeaturesDict(self._features()),
            supervised_keys=("image", "label"),
            homepage=self.SOURCE.homepage,
        )

    def _features(self) -> dict[str, Any]:
        names, facts = list(self.SOURCE.label_names), self.SOURCE.facts
        labels: dict[str, Any] = {"names": names} if names else {"num_classes": facts.classes}
        return {
            "image": tfds.features.Image(shape=facts.shape),
            "label": tfds.features.ClassLabel(**labels),
        }

    def _archives(self, dl_manager: Any) -> dict[str, Any]:
        """The path of each archive. Never `download_and_extract`: see above."""
        return dl_manager.download({file: self.SOURCE.url + file for file in self.SOURCE.archives})


class _IdxBuilder(_Builder, skip_registration=True):  # pyright: ignore
    """From four archives in MNIST's own format."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        paths = self._archives(dl_manager)
        return {
            split: self._generate_examples(*(paths[file] for file in files))
            for split, files in idx.SPLITS.items()
        }

    def _generate_examples(self, images: Any, labels: Any) -> Examples:
        pairs = zip(idx.read_archive(images), idx.read_archive(labels), strict=True)
        # TFDS orders the examples by a hash of these keys: they must be the stock builder's.
        for key, (image, label) in enumerate(pairs):
            # As a PIL image: TFDS encodes these without TensorFlow, and arrays with it.
            yield key, {"image": Image.fromarray(image), "label": int(label)}


class _CifarBuilder(_Builder, skip_registration=True):  # pyright: ignore
    """From CIFAR's binary archive, which names the classes too."""

    LAYOUT: cifar.Layout

    def _features(self) -> dict[str, Any]:
        return {"id": tfds.features.Text(), **super()._features()}

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        (path,) = self._archives(dl_manager).values()
        contents = cifar.read_archive(path, self.LAYOUT)
        features: Any = self.info.features
        for label, names in contents.names.items():
            features[label].names = names
        return {split: self._generate_examples(split, contents) for split in self.LAYOUT.splits}

    def _generate_examples(self, split: str, contents: cifar.Contents) -> Examples:
        pairs = zip(contents.images[split], contents.labels[split], strict=True)
        for key, (image, labels) in enumerate(pairs):  # the stock builder's keys, and its ids
            picture = Image.fromarray(np.ascontiguousarray(image))
            named = zip(contents.names, map(int, labels), strict=True)
            yield key, {"id": f"{split}_{key:05d}", "image": picture, **dict(named)}


class Mnist(_IdxBuilder, skip_registration=True):  # pyright: ignore
    """MNIST, as `tfds.builder("mnist")`."""

    name = "mnist"
    SOURCE = SOURCES["mnist"]
    VERSION = tfds.core.Version(SOURCE.version)


class FashionMnist(_IdxBuilder, skip_registration=True):  # pyright: ignore
    """Fashion-MNIST, as `tfds.builder("fashion_mnist")`."""

    name = "fashion_mnist"
    SOURCE = SOURCES["fashion_mnist"]
    VERSION = tfds.core.Version(SOURCE.version)


class Kmnist(_IdxBuilder, skip_registration=True):  # pyright: ignore
    """KMNIST, as `tfds.builder("kmnist")`."""

    name = "kmnist"
    SOURCE = SOURCES["kmnist"]
    VERSION = tfds.core.Version(SOURCE.version)


class Cifar10(_CifarBuilder, skip_registration=True):  # pyright: ignore
    """CIFAR-10, as `tfds.builder("cifar10")`."""

    name = "cifar10"
    SOURCE = SOURCES["cifar10"]
    VERSION = tfds.core.Version(SOURCE.version)
    LAYOUT = cifar.LAYOUTS["cifar10"]


class Cifar100(_CifarBuilder, skip_registration=True):  # pyright: ignore
    """CIFAR-100, as `tfds.builder("cifar100")`."""

    name = "cifar100"
    SOURCE = SOURCES["cifar100"]
    VERSION = tfds.core.Version(SOURCE.version)
    LAYOUT = cifar.LAYOUTS["cifar100"]

    def _features(self) -> dict[str, Any]:
        return {**super()._features(), "coarse_label": tfds.features.ClassLabel(num_classes=20)}


BUILDERS = {builder.name: builder for builder in (Mnist, FashionMnist, Kmnist, Cifar10, Cifar100)}
