"""A whole experiment, computed again in NumPy: masks, training curves and every row of results.

Masks are ranked again from the weights that the run keeps, and are equal. Training starts again
from the initial weights alone, in float64: losses are equal to float32's rounding, accuracies and
early stops exactly.
"""

import csv
from fractions import Fraction

import jax
import numpy as np
import pytest

from lth_jax.models import MODELS
from lth_jax.pruning import schedules
from lth_jax.pruning.trees import named_leaves

from ..lottery.trunk_runs import load, part
from ..tiny import FIELDS, tiny_spec, train
from .recomputed import Adam, batches, digits, evaluated, loss_and_gradient

LEVELS, REPLICATES, STEPS, EVERY, BATCH, RATE, SEED = 2, 2, 12, 5, 20, 0.2, 0
SIZES = FIELDS["data.validation_size"], FIELDS["data.train_size"], FIELDS["data.test_size"]

# What a level is pruned by: of the weights at the end of the level before, and the rewind point's.
SCORES = {
    "magnitude": lambda final, initial: np.abs(final),
    "small_final": lambda final, initial: -np.abs(final),
    "large_init": lambda final, initial: np.abs(initial),
    "small_init": lambda final, initial: -np.abs(initial),
    "large_init_large_final": lambda final, initial: np.minimum(np.abs(final), np.abs(initial)),
    "magnitude_increase": lambda final, initial: np.abs(final) - np.abs(initial),
    "movement": lambda final, initial: np.abs(final - initial),
    "large_final_same_sign": lambda final, initial: np.sign(initial) * final,
}
# Criterion, scope, multiple of the output layer's fraction, rewind step. Step 7 is in the second
# epoch, and at no evaluation.
CASES = {
    **{name: (name, "layerwise", "0.5", 0) for name in SCORES},
    "global": ("magnitude", "global", "0.5", 0),
    "global, all alike": ("magnitude", "global", "1", 0),
    "late": ("magnitude", "layerwise", "0.5", 7),
    "global, movement, late": ("movement", "global", "1", 7),
    "Erdős–Rényi": ("magnitude", "erdos_renyi", "1", 0),
}
TRAINED = ("magnitude", "global, movement, late", "Erdős–Rényi")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Gives the run directory of a case, trained when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("experiments"), {}

    def path(case):
        if case not in done:
            criterion, scope, multiple, rewind = CASES[case]
            spec = tiny_spec(
                seed=SEED, levels=LEVELS, replicates=REPLICATES, branches=(),
                data__standardize=False, train__steps=str(STEPS), train__batch_size=BATCH,
                train__learning_rate=RATE, eval__every=str(EVERY), rewind__step=str(rewind),
                pruning__criterion=criterion, pruning__scope=scope,
                pruning__layer_rates=(("output", float(multiple)),),
            )  # fmt: skip
            done[case] = train(folder / str(len(done)), spec).path
        return done[case]

    return path


# --- Masks --------------------------------------------------------------------------------------


def kept_next(case, sizes, before):
    """How many weights each ranked group keeps at the next level: {names: count}."""
    _, scope, multiple, _ = CASES[case]
    fraction = {name: Fraction("0.3") for name in sizes}
    fraction["output/kernel"] *= Fraction(multiple)
    if scope == "erdos_renyi":
        total = sum(before.values())
        total -= int(Fraction("0.3") * total)
        return {(name,): count for name, count in erdos_renyi(sizes, total).items()}
    together = scope == "global" and len(set(fraction.values())) == 1
    groups = [tuple(sizes)] if together else [(name,) for name in sizes]
    return {
        names: (total := sum(before[name] for name in names)) - int(fraction[names[0]] * total)
        for names in groups
    }


def erdos_renyi(shapes, total):
    """Shares out `total` weights in proportion to the layers' sums of dimensions.

    Layers fill up in a known order, the smallest product by sum first: it is tried how many are
    full, until none of the others would be.
    """
    shapes = {name: tuple(map(int, shape)) for name, shape in shapes.items()}
    size = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    order = sorted(shapes, key=lambda name: Fraction(size[name], sum(shapes[name])))
    for full in range(len(order) + 1):
        rest = order[full:]
        left = total - sum(size[name] for name in order[:full])
        scale = Fraction(left, max(1, sum(sum(shapes[name]) for name in rest)))
        if all(scale * sum(shapes[name]) < size[name] for name in rest):
            break
    share = {name: size[name] if name not in rest else scale * sum(shapes[name]) for name in shapes}
    kept = {name: int(number) for name, number in share.items()}
    for name in sorted(share, key=lambda name: kept[name] - share[name]):
        kept[name] += sum(kept.values()) < total
    return kept


def pruned(scores, mask, kept):
    """The mask whose groups keep their best survivors; of equal ones the earlier goes first."""
    new = dict(mask)
    for names, count in kept.items():
        alive = np.concatenate([mask[name].ravel() for name in names])
        score = np.concatenate([scores[name].ravel() for name in names])[alive]
        best = np.argsort(score, kind="stable")[len(score) - count :]
        flat = np.zeros(len(alive), bool)
        flat[np.flatnonzero(alive)[best]] = True
        ends = np.cumsum([mask[name].size for name in names])[:-1]
        for name, chosen in zip(names, np.split(flat, ends), strict=True):
            new[name] = chosen.reshape(mask[name].shape)
    return new


def level(path, replicate, number):
    """(parameters at its end, mask) of a level, by name."""
    arrays = load(path, replicate, f"level_{number:02}")
    return part(arrays, "params/"), part(arrays, "mask/")


@pytest.mark.parametrize("case", CASES)
def test_masks_are_those_of_numpy(case, run):
    path, (criterion, *_, rewind) = run(case), CASES[case]
    for replicate in range(REPLICATES):
        point = part(load(path, replicate, "rewind" if rewind else "initial"), "params/")
        mask = {name: np.ones(leaf.shape, bool) for name, leaf in point.items()}
        for number in range(LEVELS + 1):
            final, found = level(path, replicate, number)
            for name, wanted in mask.items():
                np.testing.assert_array_equal(found[name], wanted, f"{name}, level {number}")
                assert (final[name][~wanted] == 0).all()
            prunable = [name for name in mask if name.endswith("kernel")]
            before = {name: int(mask[name].sum()) for name in prunable}
            shapes = {name: mask[name].shape for name in prunable}
            scores = {
                name: SCORES[criterion](final[name], np.where(mask[name], point[name], 0))
                for name in prunable
            }
            mask = pruned(scores, mask, kept_next(case, shapes, before))


@pytest.mark.parametrize("network", ["mlp", "conv2", "vgg11", "resnet20"])
@pytest.mark.parametrize("density", ["0.8", "0.33", "0.1", "0.02"])
def test_erdos_renyi_counts_are_those_of_numpy(network, density):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    params = jax.eval_shape(MODELS[network].make(10).init, jax.random.key(0), images)["params"]
    shapes = {name: leaf.shape for name, leaf in named_leaves(params).items() if leaf.ndim > 1}
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    total = int(Fraction(density) * sum(sizes.values()))
    wanted = erdos_renyi(shapes, total)
    assert schedules.erdos_renyi(shapes, total) == wanted
    assert sum(wanted.values()) == total
    if density == "0.8":
        assert any(wanted[name] == size for name, size in sizes.items()), "no layer is full"


# --- Training, early stop, results --------------------------------------------------------------


def trained(params, mask, optimizer, start, splits, replicate):
    """Trains to the end: the row that it gives, its curve, and its parameters on the way."""
    validation, (images, labels), test = splits
    curve, at, losses = [], {start: (params, optimizer.masked(mask))}, []
    order = iter(batches(SEED, replicate, len(labels), BATCH, start, STEPS))
    for step in range(start, STEPS + 1):
        if step in (start, STEPS) or step % EVERY == 0:
            train_loss = np.mean(losses) if losses else np.nan
            curve.append((step, *evaluated(params, *validation), train_loss))
            losses = []
        if step < STEPS:
            batch = next(order)
            loss, gradient = loss_and_gradient(params, images[batch], labels[batch])
            params = optimizer.step(params, gradient, mask, RATE)
            losses.append(loss)
            at[step + 1] = params, optimizer.masked(mask)
    best = min(curve, key=lambda point: point[1])  # the earliest of equals
    kept = [leaf for name, leaf in mask.items() if name.endswith("kernel")]
    counts = sum(int(leaf.sum()) for leaf in kept), sum(leaf.size for leaf in kept)
    row = {
        "density": counts[0] / counts[1],
        "kept": counts[0],
        "prunable": counts[1],
        "early_stop_step": best[0],
        "early_stop_val_loss": best[1],
        "early_stop_val_accuracy": best[2],
        "early_stop_test_accuracy": evaluated(at[best[0]][0], *test)[1],
        "final_val_accuracy": curve[-1][2],
        "final_test_accuracy": evaluated(params, *test)[1],
        "final_train_loss": curve[-1][3],
        "steps": STEPS - start,
        "diverged": -1,
        "last_step": STEPS,
    }
    return row, curve, at


def read(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def assert_row(found, wanted, what):
    """Losses to float32's rounding; everything else is exact, an accuracy as a float32."""
    for name, value in wanted.items():
        if "loss" in name:
            assert float(found[name]) == pytest.approx(value, rel=1e-4, nan_ok=True), (what, name)
        elif "accuracy" in name:
            assert float(found[name]) == float(np.float32(value)), (what, name)
        else:
            assert float(found[name]) == value, (what, name)


@pytest.mark.parametrize("case", TRAINED)
def test_results_are_those_of_numpy(case, run):
    path, rewind = run(case), CASES[case][3]
    splits = digits(*SIZES)
    rows, stops = read(path / "results.csv"), set()
    assert len(rows) == (LEVELS + 1) * REPLICATES
    for replicate in range(REPLICATES):
        point = part(load(path, replicate, "initial"), "params/")
        point, step = {name: leaf.astype(np.float64) for name, leaf in point.items()}, 0
        optimizer = Adam(point)
        for number in range(LEVELS + 1):
            _, mask = level(path, replicate, number)
            start = {name: np.where(mask[name], leaf, 0) for name, leaf in point.items()}
            wanted, curve, at = trained(
                start, mask, optimizer.masked(mask), step, splits, replicate
            )
            what = f"{case}, level {number}, replicate {replicate}"
            (found,) = (
                row
                for row in rows
                if (int(row["level"]), int(row["replicate"])) == (number, replicate)
            )
            assert (found["branch"], found["draw"]) == ("ticket", "0")
            assert_row(found, wanted, what)
            points = read(path / "metrics" / "ticket" / f"level_{number:02}.csv")
            points = [one for one in points if int(one["replicate"]) == replicate]
            for one, values in zip(points, curve, strict=True):
                names = ("step", "val_loss", "val_accuracy", "train_loss")
                assert_row(one, dict(zip(names, values, strict=True)), what)
            stops.add(wanted["early_stop_step"])
            if number == 0 and rewind:
                (point, optimizer), step = at[rewind], rewind
    assert len(stops) > 1, "an early stop that is always the last evaluation says nothing"
