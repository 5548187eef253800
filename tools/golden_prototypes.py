"""Computes `prototypes.npz` with pytorch-metric-learning: python tools/golden_prototypes.py

Float64, gradients with respect to the embeddings (dx), references (dref) and prototypes (dw).
"""

import json
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning import losses

N, D, CLASSES, CENTERS = 11, 6, 7, 3

# Name, peer, its arguments, prototypes a class.
PEERS = [
    ("ArcFaceLoss", losses.ArcFaceLoss, {}, 1),
    ("ArcFaceLoss", losses.ArcFaceLoss, {"margin": 100.0, "scale": 8.0}, 1),
    ("SubCenterArcFaceLoss", losses.SubCenterArcFaceLoss, {"sub_centers": CENTERS}, CENTERS),
    ("CosFaceLoss", losses.CosFaceLoss, {}, 1),
    ("ProxyNCALoss", losses.ProxyNCALoss, {"softmax_scale": 9.0}, 1),
    ("ProxyAnchorLoss", losses.ProxyAnchorLoss, {}, 1),
    ("SoftTripleLoss", losses.SoftTripleLoss, {"centers_per_class": CENTERS}, CENTERS),
    ("NormalizedSoftmaxLoss", losses.NormalizedSoftmaxLoss, {}, 1),
    ("SphereFaceLoss", losses.SphereFaceLoss, {}, 1),
    ("SphereFaceLoss", losses.SphereFaceLoss, {"margin": 3, "scale": 8.0}, 1),
    ("LargeMarginSoftmaxLoss", losses.LargeMarginSoftmaxLoss, {}, 1),
    ("P2SGradLoss", lambda embedding_size, **k: losses.P2SGradLoss(embedding_size, **k), {}, 1),
]


def main() -> None:
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, CLASSES, N), rng.normal(size=(N, D))
    ref_y, ref_x = rng.integers(0, CLASSES, 17), rng.normal(size=(17, D))
    cases, arrays = [], {}
    for i, (name, peer, arguments, centers) in enumerate(PEERS):
        torch.manual_seed(i)
        loss = peer(num_classes=CLASSES, embedding_size=D, **arguments).double()
        (w,) = loss.parameters()
        w.data = torch.tensor(rng.normal(size=tuple(w.shape)))
        at = torch.tensor(x, requires_grad=True)
        value = loss(at, torch.tensor(y))
        value.backward()
        if name == "P2SGradLoss":  # scales its prototypes in place, so its gradient is not across
            w.grad -= (w.grad * w.detach()).sum(0) * w.detach()
        cases.append({"name": f"case{i}", "loss": name, "arguments": arguments})
        found = {"y": y, "x": x, "value": value.item(), "dx": at.grad}
        found |= {"w": _by_class(w.detach(), centers), "dw": _by_class(w.grad, centers)}
        arrays |= {f"case{i}/{key}": np.asarray(a) for key, a in found.items()}
    pair_losses = ("AngularLoss", losses.AngularLoss), ("TupletMarginLoss", losses.TupletMarginLoss)
    for name, peer, refs in ((*one, refs) for one in pair_losses for refs in (False, True)):
        i = len(cases)
        at, r = (torch.tensor(a, requires_grad=True) for a in (x, ref_x))
        given = {"ref_emb": r, "ref_labels": torch.tensor(ref_y)} if refs else {}
        value = peer()(at, torch.tensor(y), **given)
        value.backward()
        cases.append({"name": f"case{i}", "loss": name, "arguments": {}})
        found = {"y": y, "x": x, "value": value.item(), "dx": at.grad}
        found |= {"ref_y": ref_y, "ref_x": ref_x, "dref": r.grad} if refs else {}
        arrays |= {f"case{i}/{key}": np.asarray(a) for key, a in found.items()}
    path = Path(__file__).parent.parent / "tests" / "golden" / "prototypes.npz"
    np.savez_compressed(path, cases=json.dumps(cases), **arrays)


def _by_class(w: torch.Tensor, centers: int) -> np.ndarray:
    """As [classes, d] or [classes, centers, d]; the peer has some as [d, classes * centers]."""
    rows = w if tuple(w.shape) == (CLASSES, D) else w.T
    return rows.reshape(CLASSES, centers, D).squeeze(1).numpy()


if __name__ == "__main__":
    main()
