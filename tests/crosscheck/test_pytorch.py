"""Training in PyTorch: an exported ticket, ten steps of the loop, and the same numbers in float64.

Everything on PyTorch's side is its own: layers, loss, gradients, optimizers, batch norm. The batch
order and the learning rates are written down again. On our side it is the compiled loop itself,
`Program.train`, given float64 states: in float32 the two would differ by rounding that Adam
magnifies, and a wrong formula could hide in that.
"""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import load_ticket
from lth_jax.cli import export
from lth_jax.config import ModelSpec
from lth_jax.lottery.building import build
from lth_jax.models import MODELS, Member
from lth_jax.models.vgg import VGG
from lth_jax.training.keys import data_key
from lth_jax.training.states import Inputs, new_loop_state, stack_runs, unstack_run

from ..tiny import host, tiny_spec, train
from .recomputed import batches, digits

torch = pytest.importorskip("torch")
F = torch.nn.functional

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS, SEED, REPLICATE = 10, 3, 1
# Measured: 1e-15. The learning rates of a schedule are float32 in the loop: 2e-8 from exact ones.
TOLERANCE, SCHEDULED = 1e-12, 1e-6
# 90 examples are 4 batches an epoch and a rest: ten steps cross into a third epoch.
DATA = {"validation_size": 40, "train_size": 90, "test_size": 20, "batch_size": 20}

# Options of `config.model`. 0.08 of VGG's 64 and 128 channels are 5 and 10.
UNSET = ModelSpec().hidden
NETWORKS = {
    "mlp": {"hidden": (12, 8)},
    "conv2": {"hidden": UNSET, "width": 0.06},
    "norms": {"hidden": UNSET, "width": 0.08},
}


def constant(rate):
    return lambda step: rate


def warm_cosine(step):
    """3 updates up to 0.02, then half a cosine down to 0 at 10."""
    factor = min(1, (step + 1) / 3)
    return 0.02 * factor * 0.5 * (1 + np.cos(np.pi * max(0, step - 3) / (STEPS - 3)))


def warm_dropped(step):
    """2 updates up to 0.05; a third of it from update 4 on, and half of that from update 7 on."""
    return 0.05 * min(1, (step + 1) / 2) * (1 / 3 if step >= 4 else 1) * (0.5 if step >= 7 else 1)


# Our options; PyTorch's optimizer; the learning rate of each update.
OPTIMIZERS = {
    "adam": (
        {"optimizer": "adam", "learning_rate": 0.01},
        lambda p: torch.optim.Adam(p),
        constant(0.01),
    ),
    "adam, L2": (
        {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, weight_decay=0.1),
        constant(0.01),
    ),
    "adamw, warmup and cosine": (
        {
            "optimizer": "adamw",
            "learning_rate": 0.02,
            "weight_decay": 0.5,
            "warmup": "3",
            "schedule": "cosine",
        },
        lambda p: torch.optim.AdamW(p, weight_decay=0.5),
        warm_cosine,
    ),
    "sgd": (
        {"optimizer": "sgd", "learning_rate": 0.2},
        lambda p: torch.optim.SGD(p),
        constant(0.2),
    ),
    "momentum, L2": (
        {"optimizer": "momentum", "learning_rate": 0.05, "momentum": 0.8, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, momentum=0.8, weight_decay=0.1),
        constant(0.05),
    ),
    "nesterov, warmup, drops, smoothed labels": (
        {
            "optimizer": "momentum",
            "nesterov": True,
            "learning_rate": 0.05,
            "momentum": 0.9,
            "warmup": "2",
            "drops": (("4", 1 / 3), ("7", 0.5)),
            "label_smoothing": 0.1,
        },
        lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, nesterov=True),
        warm_dropped,
    ),
}


def spec(network, **options):
    sizes = {name: size for name, size in DATA.items() if name != "batch_size"}
    return tiny_spec(
        seed=SEED, levels=1, replicates=2, branches=(), data__standardize=False,
        train__batch_size=DATA["batch_size"], train__steps=str(STEPS), train__kernel="xla",
        pruning__layer_rates=(),
        model__name=network,
        **{f"model__{name}": value for name, value in NETWORKS[network].items()},
        **{f"data__{name}": size for name, size in sizes.items()},
        **{f"train__{name}": value for name, value in options.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Gives, for a network, a ticket of level 1 as ours, and the file of it for PyTorch."""
    folder, done = tmp_path_factory.mktemp("crosscheck"), {}

    def ticket(network):
        if network not in done:
            path = train(folder / network, spec(network)).path
            file = folder / f"{network}.pt"
            which = ("--level=1", f"--replicate={REPLICATE}")
            assert export.main([str(path), *which, "--format=torch", f"--out={file}"]) == 0
            done[network] = load_ticket(path, 1, REPLICATE), file
        return done[network]

    with pytest.MonkeyPatch.context() as patch:
        # A VGG for images of 8 by 8 pixels: two convolutions, each with its batch norm.
        patch.setitem(MODELS, "norms", Member(VGG, {"blocks": (1, 1)}))
        patch.syspath_prepend(str(EXAMPLES))
        yield ticket
        sys.modules.pop("pytorch_networks", None)


def ours(ticket, options, network):
    """Parameters and statistics after the steps, and the sum of the losses, all in float64."""
    e = build(spec(network, **options))
    with jax.enable_x64(True):
        start = double(ticket.state)
        start = start._replace(opt_state=e.optimizer.init(start.params))
        run = stack_runs([double(new_loop_state(start, len(e.train.targets)))])
        inputs = stack_runs([Inputs(ticket.mask, data_key(SEED, REPLICATE))])
        run = unstack_run(e.program(1).train(run, inputs, e.train, 0, STEPS), 0)
        return leaves_of(run.state), float(run.loss_sum)


def leaves_of(state):
    """Parameters and statistics by name, such as `norm1/scale` and `norm1/mean`."""
    return host(state.params) | host(state.model_state.get("batch_stats", {}))


def double(tree):
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree
    )


def theirs(file, optimizer, rate, smoothing):
    """The same from PyTorch, which starts from the exported file."""
    import pytorch_networks

    module = pytorch_networks.load(file).double().train()
    start = {name: leaf.clone() for name, leaf in module.state_dict().items()}
    averaged = count_averaged(module)
    sizes = (DATA[name] for name in ("validation_size", "train_size", "test_size"))
    _, (images, labels), _ = digits(*sizes)
    images = torch.from_numpy(images).reshape(-1, 1, 8, 8)
    update, total = optimizer(module.parameters()), 0.0
    for step, batch in enumerate(
        batches(SEED, REPLICATE, len(labels), DATA["batch_size"], 0, STEPS)
    ):
        for group in update.param_groups:
            group["lr"] = rate(step)
        update.zero_grad()
        loss = F.cross_entropy(
            module(images[batch]), torch.from_numpy(labels[batch]), label_smoothing=smoothing
        )
        loss.backward()
        update.step()
        total += loss.item()
    return as_flax(module, start, averaged), total


def count_averaged(module):
    """Notes, for each batch norm, how many numbers of a channel its variance is over."""
    averaged = {}

    def note(norm, inputs):
        averaged[norm] = inputs[0].numel() // norm.num_features

    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.register_forward_pre_hook(note)
    return averaged


def as_flax(module, start, averaged):
    """The leaves of a module by Flax's names, in Flax's layouts."""
    leaves, convolutions = {}, [p for p in module.children() if isinstance(p, torch.nn.Conv2d)]
    flattened = convolutions[-1].out_channels if convolutions else 1
    for layer, part in module.named_children():
        if isinstance(part, torch.nn.BatchNorm2d):
            leaves[f"{layer}/scale"], leaves[f"{layer}/bias"] = part.weight, part.bias
            leaves[f"{layer}/mean"] = part.running_mean
            # Both normalize a batch by its variance v over n numbers, divided by n, and keep 0.9 of
            # the running one (PyTorch calls this momentum 0.1). But PyTorch adds 0.1 v n / (n - 1)
            # to it, an unbiased estimate, and Flax 0.1 v. What was there at the start decays alike.
            assert part.momentum == 0.1
            n, old = averaged[part], start[f"{layer}.running_var"] * 0.9**STEPS
            leaves[f"{layer}/var"] = old + (part.running_var - old) * (n - 1) / n
            continue
        weight = part.weight_orig
        if weight.ndim == 4:
            weight = weight.permute(2, 3, 1, 0)  # OIHW -> HWIO
        elif layer == "fc1":  # images were flattened: here as channels, height, width
            outputs, channels = len(weight), flattened
            side = math.isqrt(weight.shape[1] // channels)
            weight = weight.reshape(outputs, channels, side, side).permute(2, 3, 1, 0)
            weight = weight.reshape(-1, outputs)
        else:
            weight = weight.T
        leaves[f"{layer}/kernel"] = weight
        if part.bias is not None:
            leaves[f"{layer}/bias"] = part.bias
    return {name: leaf.detach().numpy() for name, leaf in leaves.items()}


@pytest.mark.parametrize("setting", OPTIMIZERS)
@pytest.mark.parametrize(
    "network", [n if n == "mlp" else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_ten_steps_are_those_of_pytorch(network, setting, exported):
    options, optimizer, rate = OPTIMIZERS[setting]
    ticket, file = exported(network)
    found, loss = ours(ticket, options, network)
    wanted, wanted_loss = theirs(file, optimizer, rate, options.get("label_smoothing", 0.0))

    tolerance = SCHEDULED if "warmup" in options else TOLERANCE
    assert {leaf.dtype for leaf in (*found.values(), *wanted.values())} == {np.dtype(np.float64)}
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_allclose(found[name], leaf, rtol=0, atol=tolerance, err_msg=name)
    assert loss == pytest.approx(wanted_loss, abs=tolerance)

    start = leaves_of(ticket.state)
    for name, kept in host(ticket.mask).items():
        assert (found[name][~kept] == 0).all()
        assert (wanted[name][~kept] == 0).all()
        assert kept.all() == (not name.endswith("kernel")), "nothing of it was pruned"
    # Far more than the tolerance: what is compared is not where both began.
    assert all(np.abs(found[name] - leaf).max() > 1000 * tolerance for name, leaf in start.items())
