"""Rows of a user's own: what is registered, and what is refused before anything is trained."""

import jax
import jax.numpy as jnp
import optax
import pytest

import lth_jax
from lth_jax.config import from_config
from lth_jax.config.files import known_configs, override, read_config
from lth_jax.errors import SpecError, UserError
from lth_jax.lottery.branches import BRANCHES, waits_for_ticket
from lth_jax.lottery.checks import check
from lth_jax.lottery.custom import fields_taken, in_use, own_rows, register
from lth_jax.lottery.optimizing import rate_of
from lth_jax.lottery.trial import try_rows
from lth_jax.pruning.criteria import CRITERIA, Criterion
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES

from ..registries import kept_registries
from ..tiny import experiment, tiny_spec


@pytest.fixture(autouse=True)
def registries():
    with kept_registries():
        yield


@pytest.fixture
def config(tmp_path):
    """Reads a config of these lines."""

    def config(*lines):
        path = tmp_path / "mine.py"
        text = "\n".join(["import lth_jax", *lines, "get_config = lth_jax.default_config"])
        path.write_text(text)
        return read_config(str(path))

    return config


LEARNED = "lth_jax.LearnedMask(lambda key, w, kept: w, lambda layer: layer.weights)"
WRONG = [
    ("MODELS = {'mlp': lambda classes: None}", "the package has one"),
    ("DATASETS = {'mnist': lambda: None}", "the package has one"),
    ("CRITERIA = {'magnitude': abs}", "the package has one"),
    ("OPTIMIZERS = {'adam': abs}", "the package has one"),
    ("SCHEDULES = {'cosine': abs}", "the package has one"),
    ("BRANCHES = {'reinit': abs}", "the package has one"),
    ("MODELS = {'mine': lambda: None}", "accepted: a function of the number of classes"),
    ("DATASETS = {'mine': lambda x: None}", "a function without arguments"),
    ("CRITERIA = {'mine': 3}", r"CRITERIA\['mine'\]=3: accepted: a function of a Scoring"),
    ("CRITERIA = {'mine': lambda s, power: s}", "missing a required argument: 'power'"),
    ("OPTIMIZERS = {'mine': 'lion'}", "accepted: a function of learning_rate to an Optax"),
    ("OPTIMIZERS = {'mine': lambda: None}", "unexpected keyword argument 'learning_rate'"),
    ("OPTIMIZERS = {'mine': lambda learning_rate, b: b}", "missing a required argument: 'b'"),
    ("SCHEDULES = {'mine': lambda steps: None}", "accepted: a function of learning_rate, and"),
    ("BRANCHES = {'mine': lambda: None}", "accepted: a function of a BranchPoint"),
    ("LEARNED_MASKS = {'mine': abs}", "accepted: a lth_jax.LearnedMask"),
    ("LEARNED_MASKS = {'mine': lth_jax.LearnedMask(abs, abs)}", "begin: accepted: a function of a"),
    ("LEARNED_MASKS = {'reinit': abs}", "the package has one"),
    (f"BRANCHES = {{'mine': abs}}\nLEARNED_MASKS = {{'mine': {LEARNED}}}", "BRANCHES has one"),
    ("OBSERVERS = {'mine': lambda: None}", "accepted: a function of the spec"),
    ("MODELS = 3", "MODELS=3: accepted: a dict of names and rows"),
    ("OBSERVERS = [print]", "accepted: a dict of names and rows"),
    ("BRANCHES = {3: print}", "accepted: a dict of names and rows"),
    ("OPTIMISERS = {'mine': print}", "OPTIMISERS: no such rows; did you mean 'OPTIMIZERS'"),
    ("MODEL = {'mine': print}\nprint(*MODEL, end='')", "did you mean 'MODELS'"),
    ("LOSSES = {'mine': print}", "LOSSES: no such rows; .*accepted: BRANCHES, "),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line[:45] for line, _ in WRONG])
def test_rows_that_cannot_be_are_refused_in_one_line(config, line, said):
    with pytest.raises(UserError, match=said) as error:
        register(config(line))
    assert len(str(error.value).replace(str(config("").sources.folder), "")) < 260
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "ACTIVATIONS = {'relu': abs}\nMODELS = {'net': lambda classes: ACTIVATIONS['relu']}",
        "MODEL = {'width': 3}",
        "SIZES = (1, 2)\nNAMES = {'a': 'b'}\nOPTIMISERS = {}",
        "from lth_jax.models import MODELS",
        "schedules = {'mine': abs}",
        "OPTIMIZERS = {'mine': lambda learning_rate, weight_decay, nesterov, b=1: None}",
        "SCHEDULES = {'mine': lambda learning_rate, steps, times=1: None}",
    ],
)
def test_constants_of_one_s_own_are_one_s_own(config, line):
    register(config(line))


@pytest.mark.parametrize("name", known_configs())
def test_the_package_s_own_configs_bring_nothing_unknown(name):
    register(read_config(name))


# --- Optimizers and schedules ---------------------------------------------------------------------


def refused(spec):
    with pytest.raises(SpecError) as error:
        check(spec)
    message = str(error.value)
    assert "\n" not in message
    return message


def with_optimizer(make, **fields):
    OPTIMIZERS["mine"] = lth_jax.Optimizer(make)
    return tiny_spec(train__optimizer="mine", **fields)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda learning_rate: 3, "it gives int; accepted: an Optax transformation"),
        (lambda learning_rate: 1 / 0, "ZeroDivisionError"),
        (lambda learning_rate: optax.lbfgs(learning_rate), "OPTIMIZERS['mine']: "),
        (
            lambda learning_rate: optax.GradientTransformation(
                lambda p: (), lambda g, s, p: (jax.tree.map(jnp.sum, g), s)
            ),
            "its updates are not shaped like the parameters: ",
        ),
        (
            lambda learning_rate: optax.GradientTransformation(
                lambda p: jnp.zeros(()), lambda g, s, p: (g, jnp.zeros(2))
            ),
            "its state after an update is another: ",
        ),
        (
            lambda learning_rate: optax.GradientTransformation(
                lambda p: jax.random.key(0), lambda g, s, p: (g, s)
            ),
            "its state holds a typed key; accepted: jax.random.PRNGKey",
        ),
        (
            lambda learning_rate: optax.GradientTransformation(
                lambda p: p["output"], lambda g, s, p: (g, s)
            ),
            "OPTIMIZERS['mine']: TypeError",
        ),
    ],
)
def test_an_optimizer_that_cannot_train_is_refused(make, said):
    message = refused(with_optimizer(make))
    assert message.startswith("OPTIMIZERS['mine']: ")
    assert said in message


def test_an_optimizer_gets_what_it_takes_of_training_and_of_one_s_own_fields():
    given = {}

    def make(learning_rate, weight_decay, momentum=0.5, beta=0.1, gamma=1):
        given.update(locals())
        return optax.sgd(learning_rate)

    spec = with_optimizer(make, train__weight_decay=0.25, custom__beta=0.2)
    check(spec)
    del given["given"]
    assert given == {
        "learning_rate": 0.01, "weight_decay": 0.25, "momentum": 0.9, "beta": 0.2, "gamma": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "field", "value"),
    [("adam", "nesterov", True), ("plain", "weight_decay", 0.1), ("plain", "momentum", 0.5)],
)
def test_what_an_optimizer_does_not_take_is_refused(optimizer, field, value):
    OPTIMIZERS["plain"] = lth_jax.Optimizer(lambda learning_rate: optax.sgd(learning_rate))
    spec = tiny_spec(train__optimizer=optimizer, **{f"train__{field}": value})
    message = refused(spec)
    assert message.startswith(f"config.train.{field}={value}: {optimizer} does not take it; ")
    check(tiny_spec(train__optimizer="sgd", train__momentum=0.5))  # as it always was


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lambda learning_rate: 3, "it gives int; accepted: an Optax schedule"),
        (lambda learning_rate: lambda step: jnp.zeros(3), r"it gives (3,); accepted: a number"),
        (lambda learning_rate: lambda step: (step, step), "it gives tuple; accepted: a number"),
        (lambda learning_rate: lambda step: 1 if step < 3 else 2, "TracerBoolConversionError"),
    ],
)
def test_a_schedule_that_gives_no_number_is_refused(row, said):
    SCHEDULES["mine"] = row
    message = refused(tiny_spec(train__schedule="mine"))
    assert message.startswith("SCHEDULES['mine']: ")
    assert said in message


def test_a_schedule_counts_from_the_end_of_the_warmup():
    SCHEDULES["line"] = lambda learning_rate, steps, to=0.0: optax.linear_schedule(
        learning_rate, to, steps
    )
    spec = tiny_spec(
        train__schedule="line", train__learning_rate=1.0, train__steps="12", train__warmup="2",
        custom__to=0.5,
    )  # fmt: skip
    rate = rate_of(spec, steps_per_epoch=5)
    found = [float(rate(jnp.int32(count))) for count in (0, 1, 2, 7, 12)]
    assert found == [0.5, 1.0, 1.0, 0.75, 0.5]


def test_a_branch_under_other_own_fields_has_an_optimizer_of_its_own():
    spec = with_optimizer(
        lambda learning_rate, b1=0.5: optax.lion(learning_rate, b1=b1),
        branches=("retrain", "other"), branch__other__kind="retrain", branch__other__custom__b1=0.1,
    )  # fmt: skip
    built = experiment(spec)
    assert built.for_branch("retrain") is built
    assert built.for_branch("other") is not built
    assert built.for_branch("other").optimizer is not built.optimizer


# --- Own fields -----------------------------------------------------------------------------------


def test_an_own_field_that_nobody_takes_is_refused(config):
    file = config(
        "MODELS = {'net': lambda classes, depth=3: (None, None)}",
        "OPTIMIZERS = {'mine': lambda learning_rate, beta=0.5: None}",
    )
    register(file)
    assert fields_taken() == {"depth": 3, "beta": 0.5}
    assert "no row takes it; did you mean 'depth'? accepted: beta, depth" in refused(
        tiny_spec(custom__dpeth=4)
    )
    check(tiny_spec(custom__depth=4))  # of a row that this spec does not use
    message = refused(tiny_spec(branch__reinit__custom__depth=4))
    assert message.startswith(
        "config.branch.reinit.custom.depth=4: no row takes it; accepted: none"
    )


# --- Trials ---------------------------------------------------------------------------------------


def resized(at):
    params = jax.tree.map(lambda w: w[:1], at.ticket.state.params)
    return at.ticket._replace(state=at.ticket.state._replace(params=params))


@pytest.mark.parametrize(
    ("branch", "said"),
    [
        (resized, "its params is not shaped like the ticket's: "),
        (lambda at: at.ticket.state, "it gives TrainState; accepted: a StartPoint"),
        (lambda at: at.ticket._replace(step=-1), "it gives step -1; accepted: an integer"),
        (lambda at: at.ticket._replace(mask=at.ticket.state.params), "its mask is not shaped like"),
        (lambda at: at.nothing, "AttributeError"),
    ],
)
def test_a_branch_that_cannot_start_is_refused_before_training(branch, said):
    BRANCHES["mine"] = branch
    built = experiment(tiny_spec(branches=("mine",)))
    with pytest.raises(SpecError, match=r"^BRANCHES\['mine'\]: ") as error:
        try_rows(built)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    try_rows(experiment(tiny_spec(branches=("reinit",))))


def of_trained(at):
    return at.ticket._replace(state=at.ticket.state._replace(params=at.trained().params))


def by_a_helper(at):
    return of_trained(at)


def test_a_branch_that_is_made_of_the_trained_ticket_waits_for_it():
    BRANCHES.update(plain=resized, late=of_trained, hidden=by_a_helper, within=lambda at: [
        at.trained() for _ in range(1)
    ])  # fmt: skip
    waiting = {kind: waits_for_ticket(kind) for kind in ("plain", "late", "hidden", "within")}
    assert waiting == {"plain": False, "late": True, "hidden": False, "within": True}
    try_rows(experiment(tiny_spec(branches=("late",))))
    with pytest.raises(SpecError, match=r"^BRANCHES\['hidden'\]: accepted: at.trained\(\) in the"):
        try_rows(experiment(tiny_spec(branches=("hidden",))))


def test_a_branch_that_asks_for_anothers_mask_is_refused_before_training():
    BRANCHES["taker"] = lambda at: at.ticket._replace(mask=at.donated())
    with pytest.raises(
        SpecError, match=r"^BRANCHES\['taker'\]: .*accepted: kinds permuted_mask and mask_of$"
    ):
        try_rows(experiment(tiny_spec(branches=("taker",))))


@pytest.mark.slow
def test_every_branch_of_the_package_would_pass_the_trial(monkeypatch):
    # Save those of another experiment, replicate or branch, which the package alone can bring.
    others = ("transfer", "permuted_mask", "mask_of", "early_bird")
    kinds = [name for name in BRANCHES if not name.startswith(others)]
    monkeypatch.setattr("lth_jax.lottery.branches.KINDS", ())
    monkeypatch.setattr("lth_jax.lottery.trial.is_own", lambda title, name: title == "BRANCHES")
    try_rows(experiment(tiny_spec(branches=tuple(kinds), rewind__step="3")))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (lambda scoring: 3.0, "its scores are not shaped like the parameters: another structure"),
        (lambda scoring: jax.tree.map(jnp.sum, scoring.final), "float32[]"),
        (lambda scoring: scoring.probe.images, "AttributeError"),
    ],
)
def test_a_criterion_that_gives_no_scores_is_refused_before_training(scores, said):
    CRITERIA["mine"] = Criterion(scores)
    with pytest.raises(SpecError, match=r"^CRITERIA\['mine'\]: ") as error:
        try_rows(experiment(tiny_spec(pruning__criterion="mine")))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"begin": lambda key, w, kept: w[0]}, "begin is not shaped like the weights: "),
        ({"network": lambda layer: layer.scores[0]}, "network is not shaped like the weights: "),
        ({"rank": jnp.sum}, "rank is not shaped like the weights: "),
        ({"network": lambda layer: layer.nothing}, "AttributeError"),
    ],
)
def test_a_learned_mask_of_other_shapes_is_refused_before_training(config, row, said):
    register(config(f"LEARNED_MASKS = {{'mine': {LEARNED}}}"))
    LEARNED_MASKS["mine"] = LEARNED_MASKS["mine"]._replace(**row)
    with pytest.raises(SpecError, match=r"^LEARNED_MASKS\['mine'\]: ") as error:
        try_rows(experiment(tiny_spec(branches=("mine",))))
    assert said in str(error.value)


# --- Fingerprints ---------------------------------------------------------------------------------

BRANCH_LINES = (
    "SCALE = 2",
    "def helper(w): return SCALE * w",
    "def first(at): return helper(at.ticket)",
    "def second(at): return at.ticket",
    "BRANCHES = {'first': first, 'second': lambda at: second(at)}",
    "MODELS = {'net': lambda classes: None}",
    "class Watch(lth_jax.Observer):",
    "    '''Looks on.'''",
    "    def close(self): print('a')",
    "OBSERVERS = {'watch': lambda spec: Watch()}",
)


def fingerprints(config, old="", new=""):
    file = config(*[line.replace(old, new) if old else line for line in BRANCH_LINES])
    changed = override(file.config, ["model.name=net", "branches=first,second"])
    register(file)
    rows = own_rows(file, from_config(changed))
    return rows.sources, rows.branches["first"], rows.branches["second"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("SCALE = 2", "SCALE = 3", (False, True, False)),
        ("helper(at.ticket)", "helper(at)", (False, True, False)),
        ("return at.ticket", "return at", (False, False, True)),
        (", 'second'", ", 'third': second, 'second'", (False, False, False)),
        ("lambda classes: None", "lambda classes: 1", (True, False, False)),
        ("print('a')", "print('b')", (False, False, False)),
        ("Watch", "Watches", (False, False, False)),
    ],
)
def test_a_branch_has_a_fingerprint_of_its_own_and_an_observer_none(config, old, new, changed):
    before, after = fingerprints(config), fingerprints(config, old, new)
    assert tuple(a != b for a, b in zip(before, after, strict=True)) == changed


def test_rows_that_are_added_to_a_dict_count(config):
    def sources(rate):
        file = config("OPTIMIZERS = {}", f"OPTIMIZERS['mine'] = lambda learning_rate, b={rate}: 3")
        register(file)
        with in_use(file):
            return file.sources.digests(["OPTIMIZERS"])

    assert sources(1) != sources(2)
    assert sources(1) == sources(1)


def test_a_class_that_is_no_plain_observer_counts(config):
    def sources(base):
        file = config("MODELS = {'net': lambda classes: None}", f"class Watch({base}): pass")
        return file.sources.digests(["MODELS"])["mine.py"]

    assert "Watch" not in sources("lth_jax.Observer")
    assert "Watch" in sources("object")
    assert "Watch" in sources("lth_jax.Observer, object")
