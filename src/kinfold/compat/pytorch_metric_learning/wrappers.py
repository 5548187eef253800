"""Losses of pytorch-metric-learning that are made of others."""

from typing import Any

from keras import ops

from kinfold.compat.pytorch_metric_learning.calls import Module
from kinfold.compat.pytorch_metric_learning.errors import WrongArgumentError
from kinfold.core import checks
from kinfold.core.checks import Tensor


class MultipleLosses(Module):
    """The sum of some losses, each with a weight and a miner of its own.

    Args:
        losses: a list, or a dict by name.
        miners: a list as long, with None for a loss without; or a dict by name of some of them.
        weights: a list as long, or a dict by name of all; None for 1 each.
    """

    def __init__(self, losses: Any, miners: Any = None, weights: Any = None) -> None:
        super().__init__()
        named = isinstance(losses, dict)
        self.losses = _by_name(losses)
        self.miners = {} if miners is None else _by_name(miners)
        self.weights = dict.fromkeys(self.losses, 1) if weights is None else _by_name(weights)
        for what, given in (("miners", miners), ("weights", weights)):
            found = self.miners if what == "miners" else self.weights
            unknown = set(found) - set(self.losses)
            missing = set() if named and what == "miners" else set(self.losses) - set(found)
            if given is not None and (unknown or missing or isinstance(given, dict) != named):
                raise WrongArgumentError(
                    f"`{what}` must be like `losses`: a list as long, or a dict of the same names. "
                    f"Received: losses={list(self.losses)}, {what}={list(found)}."
                )
        if Module is not object:  # so that their parameters and devices are this one's
            self._losses = _modules(self.losses)
            self._miners = _modules(self.miners)

    def forward(self, embeddings: Any, labels: Any, indices_tuple: Any = None) -> Tensor:
        """Compute the weighted sum.

        Args:
            embeddings: [batch, d].
            labels: integer class ids [batch].
            indices_tuple: pairs or triplets for every loss; only without miners.
        """
        if indices_tuple is not None and self.miners:
            raise WrongArgumentError("Pass `indices_tuple` or have `miners`, not both.")
        total: Any = 0
        for name, loss in self.losses.items():
            miner = self.miners.get(name)
            chosen = indices_tuple if miner is None else miner(embeddings, labels)
            total = total + loss(embeddings, labels, chosen) * self.weights[name]
        return total

    if Module is object:
        __call__ = forward


def _by_name(given: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        return dict(given)
    return {str(i): one for i, one in enumerate(given)}


def _modules(named: dict[str, Any]) -> Any:
    import torch

    return torch.nn.ModuleDict(
        {name: one for name, one in named.items() if isinstance(one, torch.nn.Module)}
    )


class SelfSupervisedLoss(Module):
    """A loss of two views of each example, which are of one kind.

    Args:
        loss: a loss of pairs or triplets.
        symmetric: whether all views are compared with all; False compares the first ones with the
            second ones.
    """

    def __init__(self, loss: Any, symmetric: bool = True) -> None:
        super().__init__()
        self.loss, self.symmetric = loss, bool(symmetric)

    @staticmethod
    def supported_losses() -> list[str]:
        """The names of the losses of pairs and triplets that it is for."""
        return [
            *("AngularLoss", "CircleLoss", "ContrastiveLoss", "GeneralizedLiftedStructureLoss"),
            *("IntraPairVarianceLoss", "LiftedStructureLoss", "MultiSimilarityLoss", "NTXentLoss"),
            *("SignalToNoiseRatioContrastiveLoss", "SupConLoss", "TripletMarginLoss", "NCALoss"),
            "TupletMarginLoss",
        ]

    def forward(self, embeddings: Any, ref_emb: Any) -> Tensor:
        """Compute the loss of the views `embeddings` [n, d] and `ref_emb` [n, d]."""
        dtype = checks.compute_dtype(embeddings)
        x, r = (checks.embeddings(one, "embeddings", dtype) for one in (embeddings, ref_emb))
        if x.shape != r.shape:
            raise ValueError(
                "`embeddings` and `ref_emb` must be two views of the same examples, of one shape. "
                f"Received shapes {tuple(x.shape)} and {tuple(r.shape)}."
            )
        labels = ops.arange(x.shape[0], dtype="int32")
        if self.symmetric:
            return self.loss(ops.concatenate([x, r]), ops.concatenate([labels, labels]))
        return self.loss(x, labels, ref_emb=r, ref_labels=ops.copy(labels))

    if Module is object:
        __call__ = forward
