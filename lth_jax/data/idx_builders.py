"""TFDS builders for datasets in MNIST's own format that need no TensorFlow.

They write what the stock builders write, under the same name and version: either reads the data of
the other. The stock ones extract the archives with `tf.io.gfile`, into a folder by file name, and
MNIST and Fashion-MNIST share their file names. These read the archives where they lie.

Imports TFDS: import this module inside a function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from lth_jax.data import idx


# `skip_registration`: TFDS has builders of these names. Type checkers do not know of it.
class _IdxBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    """Downloads (or takes from a manual folder) four archives, and checks their SHA-256.

    TFDS finds their checksums beside this module, in `checksums.tsv`.
    """

    VERSION = tfds.core.Version(idx.VERSION)
    SOURCE: idx.Source

    def _info(self) -> tfds.core.DatasetInfo:
        names = list(self.SOURCE.label_names)
        labels: dict[str, Any] = {"names": names} if names else {"num_classes": 10}
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(**labels),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.SOURCE.description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.SOURCE.homepage,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        # Never `download_and_extract`: see above.
        paths = dl_manager.download({file: self.SOURCE.url + file for file in idx.ARCHIVES})
        return {
            split: self._generate_examples(*(paths[file] for file in files))
            for split, files in idx.SPLITS.items()
        }

    def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        pairs = zip(idx.read_archive(images), idx.read_archive(labels), strict=True)
        # TFDS orders the examples by a hash of these keys: they must be the stock builder's.
        for key, (image, label) in enumerate(pairs):
            # As a PIL image: TFDS encodes these without TensorFlow, and arrays with it.
            yield key, {"image": Image.fromarray(image), "label": int(label)}


class Mnist(_IdxBuilder, skip_registration=True):  # pyright: ignore
    """MNIST, as `tfds.builder("mnist")`."""

    name = "mnist"
    SOURCE = idx.SOURCES["mnist"]


class FashionMnist(_IdxBuilder, skip_registration=True):  # pyright: ignore
    """Fashion-MNIST, as `tfds.builder("fashion_mnist")`."""

    name = "fashion_mnist"
    SOURCE = idx.SOURCES["fashion_mnist"]


BUILDERS = {builder.name: builder for builder in (Mnist, FashionMnist)}
