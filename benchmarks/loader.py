"""Examples that are streamed from the host: how fast they are read, and what training pays for it.

    python benchmarks/loader.py                      # alone, and beside LeNet and ResNet-20
    python benchmarks/loader.py --nets=lenet --steps=300

First the loader alone: batches of CIFAR-10, which is in memory, put on the device; and JPEGs of the
size that ImageNet's have, decoded, a random part scaled to 224×224. Then steps of training with all
examples on the device, and streamed, in turns. Their losses are equal, or a line says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from options import add_data, names_of, parser_of, start
from problem import load as load_data
from problem import synthetic
from timing import load, ratios, spread, versions

from lth_jax import data
from lth_jax.config import from_config
from lth_jax.config.files import load_config
from lth_jax.data.records import Files, Records, index_of
from lth_jax.data.stored import StoredImages
from lth_jax.lottery import building
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.placement import Streaming
from lth_jax.pruning.masks import ones_mask
from lth_jax.training import keys
from lth_jax.training.devices import ONE_DEVICE
from lth_jax.training.states import Examples, Inputs, new_loop_state, stack_runs

# Of each network its overrides of ResNet-20's config, and how many steps a turn has.
NETS = {"lenet": (("model.name=mlp", "pruning.layer_rates=()"), 50), "resnet20": ((), 4)}
BATCH, JPEGS, SIZE = 128, 64, (500, 375)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--nets", default=",".join(NETS), help="to train beside, by commas")
    parser.add_argument("--steps", type=int, default=0, help="in a turn; 0: the net's own")
    parser.add_argument("--seconds", type=float, default=3.0, help="that the loader reads alone")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="that read"
    )
    add_data(parser)
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, tuple(NETS))
    if min(options.threads, options.rounds) < 1 or options.steps < 0 or options.seconds <= 0:
        parser.error("--threads and --rounds: accepted: 1 or more; --steps: 0 or more")
    return options


def images_a_second(train: Examples, threads: int, seconds: float, crops: bool = False) -> float:
    """Returns how many images of a split the loader alone brings to the device in a second."""
    streaming = Streaming(jax.random.permutation, threads, crops)
    batch_size = min(BATCH, len(train.targets))
    feed = streaming.feed(
        train, [jax.random.key(0)], batch_size=batch_size, last=10**6, devices=ONE_DEVICE
    )
    feed.block(0)  # with it threads begin, and the first order is drawn
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        steps += feed.steps
        jax.block_until_ready(feed.block(steps)[0])
    taken = time.perf_counter() - began
    feed.close()
    return steps * batch_size / taken


def photographs(folder: Path) -> Examples:
    """Writes some JPEGs as a TFRecord file, and returns them as images that stay on disk."""
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    random, blob = np.random.default_rng(0), io.BytesIO()
    messages: Any = tf_example_pb2
    for index in range(JPEGS):
        coarse = random.integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(file, "JPEG")
        example = messages.Example()
        example.features.feature["image"].bytes_list.value.append(file.getvalue())
        example.features.feature["label"].int64_list.value.append(index)
        record = example.SerializeToString()
        blob.write(struct.pack("<Q4x", len(record)) + record + bytes(4))
    path = folder / "some.tfrecord"
    path.write_bytes(blob.getvalue())
    files = Files((path,), (JPEGS,), "tfrecord")
    index = index_of(files, lambda _: 0)
    return Examples(StoredImages(Records(files, index), "image"), index.labels)  # pyright: ignore


class Trainer:
    """Trains one run of an experiment."""

    def __init__(self, e: Experiment):
        state, key = e.initial(0), keys.data_key(0, 0)
        held = 1 if e.streaming else len(e.train.targets)
        self.run = stack_runs([new_loop_state(state, held)])
        self.inputs = stack_runs([Inputs(ones_mask(state.params), key)])
        self.train: Any = e.training_examples([key], 10**6, ONE_DEVICE)
        self.program, self.step = e.program(1), 0

    def on(self, steps: int) -> tuple[float, float]:
        """Trains on for some steps; returns their seconds, and the loss so far."""
        began, stop = time.perf_counter(), self.step + steps
        run = self.program.train(self.run, self.inputs, self.train, self.step, stop)
        self.run, self.step = jax.block_until_ready(run), stop
        return time.perf_counter() - began, float(run.loss_sum[0])


def beside_training(
    options: argparse.Namespace, net: str, whole: data.Dataset
) -> list[dict[str, float]]:
    """Prints milliseconds a step of both placements, and returns them of each round."""
    overrides, steps = NETS[net]
    steps = options.steps or steps
    config = load_config("configs/resnet20_cifar10.py", overrides, ())
    found: dict[str, Trainer] = {}
    for place in ("device", "stream"):
        spec = from_config(config)
        spec = dataclasses.replace(
            spec, branches=(), data=dataclasses.replace(spec.data, placement=place)
        )
        with mock.patch.object(building, "load", return_value=whole):
            found[place] = Trainer(building.build(spec))
    rounds, losses = [], set()
    for one in found.values():  # compiles, and fills what is read ahead
        one.on(steps)
    for _ in range(options.rounds):
        times, last = {}, []
        for place, one in found.items():
            seconds, loss = one.on(steps)
            times[place] = 1000 * seconds / steps
            last.append(loss)
        losses.add(len(set(last)))
        rounds.append(times)
    found["stream"].train.close()
    for place in found:
        print(f"{net:<10}{place:<8}{spread([one[place] for one in rounds])} ms a step")
    ratio = spread(ratios(rounds, ["stream"], ["device"]), "{:.2f}")
    print(f"{net:<10}streamed takes{ratio}times as long; losses equal: {losses == {1}}", flush=True)
    return rounds


def main(arguments: Sequence[str] | None = None) -> dict[str, list[dict[str, float]]]:
    options = parse(arguments)
    print(f"{versions()}; {os.cpu_count()} cores; load average {load()}")
    whole = (
        synthetic("cifar10")
        if options.data == "synthetic"
        else load_data("cifar10", options.data_dir, options.data == "auto")
    )
    in_memory: Any = whole.train_images, whole.train_labels
    rate = images_a_second(Examples(*in_memory), options.threads, options.seconds)
    size = whole.train_images[0].nbytes
    print(f"in memory ({whole.origin}): {rate:,.0f} images a second, {rate * size / 1e6:,.0f} MB/s")
    with tempfile.TemporaryDirectory() as folder:
        stored = photographs(Path(folder))
        rate = images_a_second(stored, options.threads, options.seconds, crops=True)
    print(f"JPEGs of {SIZE[0]}×{SIZE[1]}, cropped: {rate:,.0f} images a second", flush=True)
    print(f"{options.threads} threads\n")
    return {net: beside_training(options, net, whole) for net in options.nets}


if __name__ == "__main__":
    start(main)
