"""Whether an epoch that Keras ends was one of training."""

import sys


def an_epoch_was_trained() -> bool:
    """In a dataset's `on_epoch_end`: False where Keras starts over, evaluates or predicts.

    Keras ends an epoch then too: `fit` and `evaluate` do before their first one. It does not say
    to a dataset who is calling, so the callers are looked up. A loop of one's own trains.
    """
    frame = sys._getframe(2)
    while frame:
        if frame.f_globals.get("__name__", "").startswith("keras."):
            name = frame.f_code.co_name
            if name in ("reset", "fit", "evaluate", "predict"):
                return name == "fit"
        frame = frame.f_back  # type: ignore[assignment]
    return True
