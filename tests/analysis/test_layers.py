"""Layers by name and shape, their densities, and the pixels of the first."""

import numpy as np
import pytest

from lth_jax.analysis.layers import (
    connections_by_pixel,
    first_layer,
    initial_weight_histograms,
    layer_densities,
    layer_order,
    short_name,
)


def test_layers_are_in_the_order_of_the_data():
    names = ["output/kernel", "block10/kernel", "block2/kernel", "patches/kernel"]
    ordered = ["patches/kernel", "block2/kernel", "block10/kernel", "output/kernel"]
    assert layer_order(names, first="patches/kernel") == ordered
    assert short_name("block2/kernel") == "block2"


def test_densities_are_over_replicates():
    counts = {(0, 1): {"a": (8, 10)}, (1, 1): {"a": (6, 10)}, (0, 0): {"a": (10, 10)}}
    found = layer_densities(counts)
    assert found["a"][0].mean == 1
    assert (found["a"][1].mean, found["a"][1].minimum, found["a"][1].maximum) == (0.7, 0.6, 0.8)


@pytest.mark.parametrize(
    ("kernels", "image", "found"),
    [
        ({"fc1": (784, 300), "fc2": (300, 100)}, (28, 28, 1), ("fc1", (28, 28, 1))),
        ({"fc1": (784, 300), "output": (300, 10)}, None, ("fc1", (28, 28, 1))),
        ({"fc1": (3072, 10)}, None, ("fc1", (32, 32, 3))),
        ({"fc1": (784, 300)}, (8, 8, 1), None),
        ({"fc1": (7, 3)}, None, None),
        ({"conv2": (3, 3, 64, 64), "conv1": (3, 3, 3, 64)}, (32, 32, 3), ("conv1", None)),
        ({"conv": (3, 3, 1, 16), "a": (3, 3, 16, 16), "output": (16, 10)}, None, ("conv", None)),
        ({"conv": (3, 3, 16, 16), "output": (16, 10)}, None, None),
        ({}, None, None),
    ],
)
def test_the_first_layer_is_told_by_shapes(kernels, image, found):
    assert first_layer(kernels, image) == found


def test_connections_are_counted_by_pixel_with_channels_summed():
    mask = np.zeros((2 * 3 * 2, 4), bool)
    mask[0] = True  # row 0, column 0, channel 0
    mask[1, 0] = True  # the same pixel's channel 1
    mask[-1, :2] = True  # row 1, column 2, channel 1
    assert connections_by_pixel(mask, (2, 3, 2)).tolist() == [[5, 0, 0], [0, 0, 2]]


def test_histograms_count_all_and_what_is_kept_in_the_same_bins():
    weights = [np.array([[-1.0, -0.4], [0.4, 1.0]]), np.array([[0.3, 0.3], [0.3, 0.3]])]
    found = initial_weight_histograms(weights, {1: [weights[0][:1].ravel(), np.array([0.3])]}, 4)
    assert found.edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert found.all.tolist() == [1, 1, 5, 1]
    assert found.kept[1].tolist() == [1, 1, 1, 0]
    assert (found.shares(found.all) * 0.5).sum() == pytest.approx(1)
    assert found.shares(np.zeros(4, int)).tolist() == [0] * 4


def test_weights_that_are_all_zero_have_a_histogram():
    found = initial_weight_histograms([np.zeros(3)], {})
    assert found.all.sum() == 3
