"""The datasets that are prepared from their original archives, without TensorFlow."""

from __future__ import annotations

from typing import NamedTuple

from lth_jax.data import cifar, idx
from lth_jax.data.dataset import Facts


class Source(NamedTuple):
    """One such dataset. Its archives' checksums are in `checksums.tsv`.

    Attributes:
      version: of what TFDS's own builder prepares.
      url: the folder of its archives.
      archives: their file names.
      facts: of its examples.
      description: for the prepared dataset's own metadata.
      homepage: the same.
      label_names: of the classes, where the archives do not name them; empty for numbers.
      content: `archives.content_digest` of its examples; empty where nobody has computed it yet.
    """

    version: str
    url: str
    archives: tuple[str, ...]
    facts: Facts
    description: str
    homepage: str
    label_names: tuple[str, ...] = ()
    content: str = ""


_LIKE_MNIST = Facts((28, 28, 1), 10, 60_000, 10_000)

SOURCES = {
    "mnist": Source(
        version="3.0.1",
        url="https://storage.googleapis.com/cvdf-datasets/mnist/",
        archives=idx.ARCHIVES,
        facts=_LIKE_MNIST,
        content="9f1b74bb48e796b31ed0af89be552e68ec619e9ef050c7d296aa6db3040d06e9",
        description="Handwritten digits: 60,000 training and 10,000 test images of 28 by 28 pixels "
        "(LeCun, Cortes & Burges).",
        homepage="http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion_mnist": Source(
        version="3.0.1",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        archives=idx.ARCHIVES,
        facts=_LIKE_MNIST,
        content="4e203a4e2b3cd520dee22679cd6e9ab75e13db842aa00699b1c9ae64065c598b",
        description="Articles of clothing: 60,000 training and 10,000 test images of 28 by 28 "
        "pixels (Xiao, Rasul & Vollgraf, 2017).",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        label_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "kmnist": Source(
        version="3.0.1",
        url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        archives=idx.ARCHIVES,
        facts=_LIKE_MNIST,
        description="Kuzushiji: cursive Japanese characters, one for each row of Hiragana, 60,000 "
        "training and 10,000 test images of 28 by 28 pixels (Clanuwat et al., 2018).",
        homepage="http://codh.rois.ac.jp/kmnist/index.html.en",
        label_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": Source(
        version="3.0.2",
        url="https://www.cs.toronto.edu/~kriz/",
        archives=("cifar-10-binary.tar.gz",),
        facts=Facts(cifar.SHAPE, 10, 50_000, 10_000),
        content="250f3ae9f8885deb3b506b934114a4c5adf2e170db7bfd267fc2558446a0eb98",
        description="Small photographs of ten kinds of things: 50,000 training and 10,000 test "
        "images of 32 by 32 pixels (Krizhevsky, 2009).",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar100": Source(
        version="3.0.2",
        url="https://www.cs.toronto.edu/~kriz/",
        archives=("cifar-100-binary.tar.gz",),
        facts=Facts(cifar.SHAPE, 100, 50_000, 10_000),
        description="Small photographs of a hundred kinds of things, in twenty groups: 50,000 "
        "training and 10,000 test images of 32 by 32 pixels (Krizhevsky, 2009).",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
}
