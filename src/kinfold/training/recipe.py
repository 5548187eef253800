"""What a run chooses from its data, if the settings leave it open."""

import dataclasses

import numpy as np

from kinfold.datasets import Split
from kinfold.training.settings import (
    CLASSES_PER_BATCH,
    EXAMPLES_PER_CLASS,
    STEPS_PER_EPOCH,
    Settings,
)

BATCH = CLASSES_PER_BATCH * EXAMPLES_PER_CLASS
MOST_EXAMPLES_PER_CLASS, MOST_STEPS_PER_EPOCH = 32, 500


def chosen(settings: Settings, train: Split, own_model: bool = False) -> tuple[Settings, str]:
    """Fill in what the settings leave open; say what was chosen, and why.

    The choice follows from the settings and the data alone, so that a resumed run makes it again.

    Args:
        settings: as the user gave them.
        train: the examples to train on.
        own_model: whether the network is the user's, which may not bear changes to its input.
    """
    sizes = np.bincount(train.y, minlength=1)
    usable = sizes[sizes > 1]
    classes = settings.classes(train)
    # Even, as some losses pair the examples of a class two by two.
    typical = int(np.median(usable)) if len(usable) else 0
    room = min(BATCH // classes, MOST_EXAMPLES_PER_CLASS, typical)
    examples = settings.examples_per_class or max(EXAMPLES_PER_CLASS, room // 2 * 2)
    once = -(-len(train) // (classes * examples))
    steps = settings.steps_per_epoch or min(max(once, STEPS_PER_EPOCH), MOST_STEPS_PER_EPOCH)
    images = train.x.ndim == 4
    augment = settings.augment
    if augment == "auto":
        augment = "light" if images and not own_model else "none"
    parts = [
        f"batches of {classes} classes x {examples} examples",
        f"{steps} steps per epoch, {_times(steps, once)} through the data",
        *([f"{augment} augmentation"] if images and augment != "none" else []),
        f"a learning rate of up to {settings.highest_rate:g}",
    ]
    full = dataclasses.replace(
        settings,
        classes_per_batch=classes,
        examples_per_class=examples,
        steps_per_epoch=steps,
        augment=augment,
    )
    return full, f"The run takes {', '.join(parts[:-1])} and {parts[-1]}."


def _times(steps: int, once: int) -> str:
    return f"{steps / once:.1f} times" if steps < 10 * once else f"{steps / once:.0f} times"
