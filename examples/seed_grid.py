"""Every network of the student report on each of its datasets, trained, pruned and rewound once.

    pip install .
    python examples/seed_grid.py --out=out/grid            # all 18 cells
    python examples/seed_grid.py --datasets=mnist --models=mlp,lenet5

Flags of `run.py` are passed on, such as `--config.data.manual_dir=DIR`, where archives of datasets
that are not prepared yet lie. All cells take about half an hour on two CPU cores.

Each cell trains for 20 steps of batch 32, prunes 20% of each layer (10% of the last) and trains the
ticket: no result, but proof that the cell works. Networks have their full width. A line for each
cell; the exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lth_jax.cli.run import main as run

DATASETS = ("mnist", "fashion_mnist", "cifar10")
MODELS = ("mlp", "lenet5", "alexnet", "vgg16", "resnet18", "densenet121")


def cell(dataset: str, model: str, out: Path, others: Sequence[str]) -> str:
    """Runs one cell in a directory of its own; gives a line about it, or raises RuntimeError."""
    workdir = out / f"{model}_{dataset}"
    start = time.perf_counter()
    status = run(
        [
            "--config=lenet_digits",
            f"--config.model.name={model}",
            f"--config.data.name={dataset}",
            "--config.data.test_size=500",
            "--config.train.steps=20",
            "--config.train.batch_size=32",
            "--config.eval.every=20",
            "--config.eval.batch_size=100",
            "--config.levels=1",
            "--config.replicates=1",
            "--config.branches=()",
            f"--workdir={workdir}",
            *others,
        ]
    )
    if status:
        raise RuntimeError(f"exit status {status}")
    with (workdir / "results.csv").open() as file:
        dense, ticket = csv.DictReader(file)
    return (
        f"{int(dense['prunable']):>12,} weights, {float(ticket['density']):.1%} kept, loss "
        f"{float(dense['final_train_loss']):.2f} and {float(ticket['final_train_loss']):.2f}, "
        f"{time.perf_counter() - start:.0f} s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the grid; gives the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--datasets", default=",".join(DATASETS), help="any of these, by commas")
    parser.add_argument("--models", default=",".join(MODELS), help="any networks, by commas")
    parser.add_argument("--out", type=Path, default=Path("out/grid"), help="where runs are kept")
    options, others = parser.parse_known_args(arguments)
    lines, failed = [], 0
    for dataset in options.datasets.split(","):
        for model in options.models.split(","):
            try:
                line = cell(dataset, model, options.out, others)
            except RuntimeError as error:
                line, failed = f"FAILED: {error}", failed + 1
            lines.append(f"{dataset:<14}{model:<12}{line}")
            print(lines[-1], file=sys.stderr)
    print("\n".join(["", *lines]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
