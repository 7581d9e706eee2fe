"""What is learned: the network and the dataset."""

from __future__ import annotations

import dataclasses
import re

from lth_jax.config.fields import below_one, between, choice, field
from lth_jax.config.spec.accepted import MOST, NAMES, negative


def _is_part(value: str) -> bool:
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", value)
    return not value or (match is not None and int(match[1]) <= int(match[2]))


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The network."""

    name: str = field("mlp", "The network.", accepted=NAMES)
    hidden: tuple[int, ...] = field(
        (300, 100),
        "The sizes of the hidden layers, of `mlp`.",
        accepted="at most 100 widths of 1 to 1,000,000",
        check=lambda values: len(values) <= 100 and all(1 <= v <= 10**6 for v in values),
        unit="units",
    )
    init: str = field(
        "glorot_normal",
        "What the kernels are drawn from at initialization.",
        accepted="the name of an initialization",
    )
    width: float = field(
        1.0,
        "The factor by which a network's layers are wider.",
        **between(1e-3, 1e3),
    )
    dropout: float | None = field(
        None,
        "The share of units that dropout removes in training; None is the network's own.",
        accepted="0 to below 1, or None for the network's own",
        check=below_one,
        unset=negative,
    )
    stem: str = field(
        "small",
        "The first layers of residual and dense networks, for small images or as for ImageNet.",
        accepted="small or imagenet",
    )
    layers: int | None = field(
        None,
        "How many layers a transformer has; None is the network's own.",
        **between(1, 1000, none="the network's own"),
        unit="layers",
    )
    features: int | None = field(
        None,
        "How many features a transformer's tokens have; None is the network's own.",
        **between(1, 10**6, none="the network's own"),
        unit="features",
    )
    heads: int | None = field(
        None,
        "How many heads a transformer's attention has; None is the network's own.",
        **between(1, 10**4, none="the network's own"),
        unit="heads",
    )
    dtype: str = field(
        "float32",
        "The type that the network computes in; its parameters are float32.",
        accepted="float32 or bfloat16",
    )


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The dataset, its splits, and the directories where it lies."""

    name: str = field("digits", "The dataset.", accepted=NAMES)
    validation_size: int = field(
        200,
        "How many training examples are kept back for validation.",
        **between(1, MOST),
        unit="examples",
    )
    train_size: int = field(
        0,
        "How many of the other examples are trained on; 0 is all.",
        **between(0, MOST, zero="all"),
        unit="examples",
    )
    test_size: int = field(
        0,
        "How many examples of the test set are used; 0 is all.",
        **between(0, MOST, zero="all"),
        unit="examples",
    )
    classes: tuple[int, ...] = field(
        (), "The classes that are kept; () is all.", accepted="classes, such as (0, 1), or ()"
    )
    labels: str = choice(
        "remapped",
        ("remapped", "original", "random"),
        "Whether the labels of the kept classes are remapped to count from 0; `random` ones are "
        "so, and each training example has one that is drawn.",
    )
    pixels: str = choice(
        "original",
        ("original", "permuted"),
        "Whether the pixels of each training image are permuted, in an order of its own.",
    )
    part: str = field(
        "",
        "A share of the training set, class by class: 1/2 is the first half, '' all of it.",
        accepted="'' or a part such as 1/2 or 2/2",
        check=_is_part,
    )
    side: int = field(
        0,
        "The height and width that images are scaled to; 0 leaves them as they are.",
        **between(0, 4096, zero="as they are"),
        unit="pixels",
    )
    channels: int = field(
        0,
        "How many channels images are repeated to; 0 leaves them as they are.",
        **between(0, 4096, zero="as they are"),
        unit="channels",
    )
    standardize: bool = field(
        False, "Whether each channel of the training set gets mean 0 and standard deviation 1."
    )
    crop: int = field(
        0,
        "By how many pixels an image is moved at most, at random, in training.",
        **between(0, 4096, zero="none"),
        unit="pixels",
    )
    flip: bool = field(False, "Whether half of the images are mirrored, at random, in training.")
    resized_crop: bool = field(
        False,
        "Whether an image is, in training, a random part of itself, scaled to its side; of "
        "datasets that stay on disk, whose images have sizes of their own.",
    )
    placement: str = choice(
        "auto",
        ("auto", "device", "stream"),
        "Where the examples are: all on the device, or on the host and streamed to it; `auto` is "
        "on the device where they fit.",
        identity=False,
    )
    data_dir: str = field(
        "", "The directory of prepared datasets; '' is the usual one.", identity=False
    )
    manual_dir: str = field(
        "",
        "The directory of archives that you loaded by hand; '' is the usual one.",
        identity=False,
    )
    cache_dir: str = field(
        "", "The directory of what can be made again; '' is the usual one.", identity=False
    )
