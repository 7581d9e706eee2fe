"""Rows of which only the accuracy at early stop matters, by which levels are judged."""

from lth_jax.store.tables import TRUNK, ResultRow


def score_row(
    branch: str, level: int, replicate: int, accuracy: float, *, draw: int = 0, **changes
) -> ResultRow:
    values = {
        "branch": branch,
        "level": level,
        "replicate": replicate,
        "draw": draw,
        "density": 0.8**level,
        "kept": round(1000 * 0.8**level),
        "prunable": 1000,
        "early_stop_step": 100 * (level + 1),
        "early_stop_val_loss": 0.1,
        "early_stop_val_accuracy": accuracy,
        "early_stop_test_accuracy": accuracy,
        "final_val_accuracy": accuracy,
        "final_test_accuracy": accuracy,
        "final_train_loss": 0.1,
        "steps": 1000,
        "train_seconds": 1.0,
    }
    return ResultRow(**(values | changes))


def score_rows(accuracies: dict[str, list[list[float]]], first: int = 1) -> list[ResultRow]:
    """Rows by branch, level and replicate; the ticket's levels begin at 0, others' at `first`."""
    return [
        score_row(branch, level, replicate, accuracy)
        for branch, levels in accuracies.items()
        for level, replicates in enumerate(levels, start=0 if branch == TRUNK else first)
        for replicate, accuracy in enumerate(replicates)
    ]
