"""The fused kernels against float64, on a GPU: `python -m benchmarks.gpu_checks PART PARTS`."""

import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

# Rows, numbers of a row, and references; None where a batch is compared with itself.
SHAPES = ((1000, 200, None), (1000, 512, 777), (513, 128, None))
DTYPES = ("bfloat16", "float32", "float16")


def builds() -> dict[str, Any]:
    """A loss of every form that the kernels take, by its dtype."""
    from kinfold import losses

    pairs = {"train_scale_and_bias": False}
    return {
        "Circle": lambda dtype: losses.CircleLoss(gamma=40.0, dtype=dtype),
        "Circle, weights detached": lambda dtype: losses.CircleLoss(
            gamma=40.0, detach_weights=True, dtype=dtype
        ),
        "MultiSimilarity": lambda dtype: losses.MultiSimilarityLoss(dtype=dtype),
        "SupCon": lambda dtype: losses.SupConLoss(dtype=dtype),
        "NTXent": lambda dtype: losses.NTXentLoss(0.2, dtype=dtype),
        "SoftNearestNeighbor": lambda dtype: losses.SoftNearestNeighborLoss(
            distance="squared_euclidean", dtype=dtype
        ),
        "SupCon, Euclidean": lambda dtype: losses.SupConLoss(distance="euclidean", dtype=dtype),
        "InfoNCE": lambda dtype: losses.InfoNCELoss(dtype=dtype),
        "SigLIP": lambda dtype: losses.SigLIPLoss(dtype=dtype, **pairs),
    }


def cases() -> Iterator[tuple[str, tuple[int, int, int | None], str]]:
    for dtype in DTYPES:
        for name in builds():
            for shape in SHAPES:
                if not (name in ("InfoNCE", "SigLIP") and shape[2] is None and shape[0] == 513):
                    yield name, shape, dtype


def checked(name: str, shape: tuple[int, int, int | None], dtype: str) -> dict[str, Any]:
    """Errors of the loss and of its gradients, by the kernels and by the equation as it is.

    The truth is that of the same inputs in float64.
    """
    import torch

    from kinfold.streaming import fused_kernels, road

    device = "cuda" if torch.cuda.is_available() else "cpu"
    row: dict[str, Any] = {"loss": name, "shape": shape, "dtype": dtype}
    (n, d, m), build = shape, builds()[name]
    generator = torch.Generator().manual_seed(n + d)

    def side(count: int) -> Any:
        x = torch.randn(count, d, generator=generator)
        x = torch.nn.functional.normalize(x, dim=1).to(device)
        return x.to(getattr(torch, dtype))

    def labels(count: int) -> Any:  # unsorted, of few and of many, far apart
        y = torch.randint(0, count // 5, (count,), generator=generator).to(device)
        return y * 2**33 + 1

    paired = name in ("InfoNCE", "SigLIP")
    more = n if paired else m
    sides = [side(n)] if more is None else [side(n), side(more)]
    y, ref_y = labels(n), None if m is None else labels(m) % (2**33 * (n // 5))

    def found(loss: Any, wide: bool) -> list[Any]:
        leaves = [s.double() if wide else s.clone() for s in sides]
        leaves = [s.requires_grad_() for s in leaves]
        given = {} if len(leaves) < 2 else {"ref_embeddings": leaves[1]}
        if given and not paired:
            given["ref_labels"] = ref_y
        value = loss(None if paired else y, leaves[0], **given)
        value.backward()
        return [value.detach().double(), *(leaf.grad.double() for leaf in leaves)]

    def errors(one: list[Any], truth: list[Any]) -> list[float]:
        return [
            float((a - b).norm() / b.norm().clamp_min(1e-30))
            for a, b in zip(one, truth, strict=True)
        ]

    try:
        truth = found(build("float64"), True)
        with fused_kernels():
            row["kernels"] = errors(found(build(dtype), False), truth)
        if not paired:
            with road("one_block"):
                row["equation"] = errors(found(build(dtype), False), truth)
        row["right"] = right(row["kernels"], dtype)
    except Exception as error:
        row |= {"right": False, "error": f"{type(error).__name__}: {str(error)[:300]}"}
    return row


def right(errors: list[float], dtype: str) -> bool:
    """Within what the dtype of the value and of the gradients rounds, and a little."""
    bound = {"bfloat16": 2**-7, "float16": 2**-9, "float32": 2e-5}[dtype]
    return all(error <= bound for error in errors)


def verdicts() -> Iterator[dict[str, Any]]:
    """Whether the losses choose the kernels by themselves: what their trial says on this GPU."""
    import torch

    from kinfold.streaming import explain

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.nn.functional.normalize(torch.randn(64, 512, device=device), dim=1)
    y = torch.arange(64, device=device) // 4
    for name, build in builds().items():
        loss = build("bfloat16")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            if name in ("InfoNCE", "SigLIP"):
                loss(None, x, ref_embeddings=x)
                why = None
            else:
                why = dict(explain(loss, y, x))["fused"]
        failed = [str(w.message) for w in caught if "failed their trial" in str(w.message)]
        why = "; ".join(failed) or why
        yield {"loss": name, "refused": why}


if __name__ == "__main__":
    part, parts = int(sys.argv[1]), int(sys.argv[2])
    for case in list(cases())[part::parts]:
        print(json.dumps(checked(*case)), flush=True)
