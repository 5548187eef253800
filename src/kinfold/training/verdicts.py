"""What a run says of its numbers: its data, its table, the gain over raw input, the model kept."""

from typing import Any

import numpy as np

from kinfold.datasets import Split

Table = dict[str, dict[str, float]]
Gain = dict[str, dict[str, float | None]]

FEWEST = 10  # test classes that an interval needs
ENOUGH = 20  # training classes, under which a model seldom learns more than those classes
_SHARES = (
    0.3,
    0.15,
)  # of the test, and of what is left the validation, as in `kinfold.training.sources`

VECTOR_ROWS = {
    "raw": "raw embeddings",
    "untrained": "before training",
    "trained": "after training",
}
JUDGED = ("recall@1", "map@r")


def describe(split: Split) -> str:
    """Say how much a split holds: "8,144 images of 661 classes"."""
    kind = "images" if split.x.ndim == 4 else "vectors"
    alone = int((np.bincount(split.y) == 1).sum())
    text = f"{len(split):,} {kind} of {len(split.names):,} classes"
    return text + (f" ({alone:,} alone in their class, and no queries)" if alone else "")


def seen_in_training(train: Split, test: Split, noun: str = "classes") -> str:
    """Say whether the classes of the test were trained on: "classes unseen in training"."""
    shared = len(set(train.names) & set(test.names))
    if not shared:
        return f"{noun} unseen in training"
    return f"{shared:,} of these {len(test.names):,} {noun} also trained on"


def few_classes(train: Split, test: Split) -> str:
    """Warn of too few classes, and say how many would do; "" where they are enough."""
    if len(train.names) >= ENOUGH and len(test.names) >= FEWEST:
        return ""
    return (
        f"Few classes: {len(train.names):,} to train on and {len(test.names):,} to test on. A "
        f"model of under {ENOUGH} training classes learns to tell those, and is often no better "
        f"than raw input on others; the gain has an interval from {FEWEST} test classes on. "
        f"{_classes_that_do()} classes in all would do."
    )


def _classes_that_do() -> int:
    """The fewest classes that leave each part enough, divided as by `sources`."""
    total = ENOUGH + FEWEST
    while True:
        test = round(_SHARES[0] * total)
        train = total - test
        if test >= FEWEST and train - round(_SHARES[1] * train) >= ENOUGH:
            return total
        total += 1


def shared_text(queries: Split, gallery: Split) -> list[str]:
    """Say how many classes of the queries are in the gallery, and what is in one of them alone."""
    ours, theirs = set(queries.names), set(gallery.names)
    lines = [f"Classes in both, by name: {len(ours & theirs):,}."]
    found = np.array([name in theirs for name in queries.names])
    if ours - theirs:
        lines.append(
            f"Classes that the gallery does not hold: {len(ours - theirs):,}. Their examples are "
            f"no queries: {int((~found[queries.y]).sum()):,}."
        )
    if theirs - ours:
        lines.append(f"Classes of the gallery that no query has: {len(theirs - ours):,}.")
    return lines


def table_text(table: Table, gain: Gain | None = None) -> str:
    """Lay out the table as plain text, a row per model and a column per metric; then the gain."""
    names = VECTOR_ROWS if "raw" in table else {"untrained": "before"}
    gained = {name: gain[name]["difference"] for name in gain} if gain else {}
    text = rows_text(table, names, {"gain": gained} if gain else {})
    return "\n".join([text, *gain_text(gain)]) if gain else text


def sampled_text(sample: dict[str, Any] | None) -> str:
    """Say that the raw input was measured on a sample of the test; "" where it was on all."""
    if not sample:
        return ""
    scores = ", ".join(f"{name} {sample['trained'][name]:.4f}" for name in JUDGED)
    return (
        f"The raw input is measured on {sample['examples']:,} of the {sample['of']:,} examples, "
        "drawn at random by class and searched in one another. The gain is that of the trained "
        f"model on these, where it has {scores}."
    )


def rows_text(
    table: Table, names: dict[str, str], signed: dict[str, dict[str, float | None]]
) -> str:
    """Lay out rows of metrics, under their `names`; then rows whose numbers have a sign."""
    columns = list(next(iter(table.values())))
    labels = [names.get(name, name) for name in [*table, *signed]]
    width = max(12, *(len(label) + 2 for label in labels))
    lines = [" " * width + "".join(column.rjust(11) for column in columns)]
    for rows, form in ((table, "11.4f"), (signed, "+11.4f")):
        for name, row in rows.items():
            cells = "".join(format(row[column], form) for column in columns)
            lines.append(names.get(name, name).ljust(width) + cells)
    return "\n".join(lines)


def gain_text(gain: Gain) -> list[str]:
    """Say what was gained over raw input, and whether that is a reason to use the model."""
    parts = [_difference(name, gain[name]) for name in JUDGED]
    verdict = {
        "": [],
        "worse": ["The trained model is worse than the raw input: use the raw input."],
        "worse here": [
            "The trained model is worse than the raw input on these classes, which are too few "
            "for an interval: use the raw input."
        ],
        "no better": [
            "The trained model is no better than the raw input, as far as these classes can tell: "
            "use the raw input, or test on more classes."
        ],
        "uncertain": [
            "It is not certain that the trained model is better than the raw input: test it on "
            "more classes before it takes the place of the raw input."
        ],
    }
    return ["Gain over the raw input: " + "; ".join(parts) + ".", *verdict[judge(gain)]]


def judge(gain: Gain) -> str:
    """Judge recall@1 and map@r together.

    Returns:
        "" for better: above 0 with their intervals, or one of them and the other not below.
        "worse": below 0, or one of them and the other's interval holds 0; "worse here" without
        intervals. "no better": all intervals hold 0, or nothing changed. Else "uncertain".
    """
    differences = [gain[name]["difference"] or 0.0 for name in JUDGED]
    if max(differences) == min(differences) == 0.0:
        return "no better"
    signs = []
    for name in JUDGED:
        low, high = gain[name]["low"], gain[name]["high"]
        if low is None or high is None:
            return "worse here" if max(differences) <= 0 else "uncertain"
        signs.append((low > 0) - (high < 0))
    if max(signs) <= 0:
        return "worse" if min(signs) < 0 else "no better"
    return "uncertain" if min(differences) < 0 else ""


def _difference(name: str, values: dict[str, float | None]) -> str:
    difference, low, high = (values[key] for key in ("difference", "low", "high"))
    assert difference is not None
    text = f"{name} {100 * difference:+.2f} points"
    if low is not None and high is not None:
        text += f" (95% of resamples of the classes: {100 * low:+.2f} to {100 * high:+.2f})"
    removed = values.get("errors_removed")
    if removed is not None and difference > 0:
        text += f", {100 * removed:.0f}% of what was missing to 1"
    return text


def comparison_text(difference: Gain) -> list[str]:
    """Say by how much the second of two models is better than the first, and how surely."""
    parts = [_difference(name, {**difference[name], "errors_removed": None}) for name in JUDGED]
    said = {
        1: "The second is better.",
        -1: "The second is worse.",
        0: "These classes cannot tell them apart: an interval holds 0.",
    }
    signs = []
    for name in JUDGED:
        low, high = difference[name]["low"], difference[name]["high"]
        if low is None or high is None:
            verdict = f"There is no interval: it needs {FEWEST} classes with queries."
            break
        signs.append((low > 0) - (high < 0))
    else:
        verdict = said[signs[0]] if signs[0] == signs[1] else (
            "The two metrics disagree: "
            + "; ".join(
                f"{name} {('cannot tell', 'is better', 'is worse')[sign]}"
                for name, sign in zip(JUDGED, signs, strict=True)
            )
            + "."
        )  # fmt: skip
    return ["The second less the first: " + "; ".join(parts) + ".", verdict]


def kept_text(best: str, scores: dict[str, float], epochs: int) -> str:
    """Say that model.keras is not of an epoch, and why; "" where it is.

    Args:
        best: the candidate that was kept: "raw", "start" or "trained".
        scores: the val_map@r of each candidate.
        epochs: that were trained.
    """
    if best == "trained":
        return ""
    what = {
        "raw": "the raw input at unit norm, without any network",
        "start": "the network as it was before training",
    }
    trained = scores["trained"]
    worse = "made it worse" if trained < scores[best] else "was not worth it"
    return (
        f"Training {worse}: model.keras holds {what[best]}. On the validation classes its "
        f"val_map@r is {scores[best]:.4f}; the best of {epochs} epochs has {trained:.4f}."
    )


def whole_text(epochs: int) -> str:
    """Say what is kept of a run that was stopped."""
    if not epochs:
        return "No epoch is whole yet."
    return f"Epoch {epochs} is whole and kept."


def start_text(scores: dict[str, float]) -> str:
    """Say what the epochs are to be better than."""
    return (
        f"Before training: val_map@r {scores['start']:.4f} of the network, {scores['raw']:.4f} "
        "of the raw input. An epoch is kept if it is better than both."
    )
