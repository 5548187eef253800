"""What the GPU benchmark runs: Circle and InfoNCE, fused, streamed, and the peers', on PyTorch."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

FUSED, STREAMED = "kinfold fused", "kinfold streamed"
EAGER, COMPILED = "keras eager", "keras compiled"
PML, INF_CL = "pytorch-metric-learning", "inf-cl"
CIRCLE, INFO_NCE = "circle", "info_nce"
IMPLEMENTATIONS = {
    CIRCLE: (FUSED, STREAMED, EAGER, COMPILED, PML),
    INFO_NCE: (FUSED, STREAMED, INF_CL),
}
GRADIENT, EVALUATION = "gradient", "evaluation"

BATCHES = (4096, 16384, 65536, 131072, 262144, 1048576)
DIMS = (128, 512, 1024)
DTYPES = ("float32", "bfloat16")
QUICK_BATCHES, QUICK_DIMS = (4096, 16384, 131072), (512,)

# How PyTorch multiplies float32: Inf-CL takes TF32 whatever the switch says, and so does ours
# beside it.
PRECISION = {CIRCLE: "highest", INFO_NCE: "medium"}

CLASS_SIZE = 4
GAMMA, MARGIN, TEMPERATURE = 80.0, 0.4, 0.07
GIB = 2**30
MATRICES = {EAGER: 8, COMPILED: 3, PML: 8}  # batch x batch ones alive, at the least
STREAMED_MOST = 262144  # the streamed road would take many minutes


def jobs(quick: bool, memory: int) -> Iterator[dict[str, Any]]:
    """Each measurement, in a process of its own; with "skip", why it is none."""
    for loss, names in IMPLEMENTATIONS.items():
        for batch in QUICK_BATCHES if quick else BATCHES:
            for dim in QUICK_DIMS if quick else DIMS:
                for dtype in DTYPES:
                    for name in names:
                        what = {"loss": loss, "implementation": name, "batch": batch, "dim": dim}
                        job = {**what, "dtype": dtype, "precision": PRECISION[loss]}
                        yield {**job, **skipped(job, memory)}


def skipped(job: dict[str, Any], memory: int) -> dict[str, str]:
    """Why a job cannot be: its matrices do not fit, or it would not end."""
    size = 2 if job["dtype"] == "bfloat16" else 4
    least = MATRICES.get(job["implementation"], 0) * job["batch"] ** 2 * size
    if least > memory:
        return {"skip": f"needs {least / GIB:.0f} GiB at least"}
    if job["implementation"] == STREAMED and job["batch"] > STREAMED_MOST:
        return {"skip": "would take many minutes"}
    return {}


def inputs(job: dict[str, Any], device: str) -> tuple[Any, list[Any]]:
    """Labels and unit embeddings; for InfoNCE both sides of the pairs."""
    import torch

    n, d = job["batch"], job["dim"]
    generator = torch.Generator(device=device).manual_seed(n)
    y = torch.arange(n, device=device) // CLASS_SIZE
    y = y[torch.randperm(n, generator=generator, device=device)]

    def side() -> Any:
        x = torch.randn(n, d, generator=generator, device=device)
        x = torch.nn.functional.normalize(x, dim=1)
        return x.to(getattr(torch, job["dtype"])).requires_grad_()

    return y, [side() for _ in range(1 if job["loss"] == CIRCLE else 2)]


def step(job: dict[str, Any], y: Any, sides: list[Any]) -> Callable[[], Any]:
    """A forward pass of the job's loss."""
    name = job["implementation"]
    if name in (FUSED, STREAMED):
        return _ours(job, y, sides)
    if name == INF_CL:
        if importlib.util.find_spec("inf_cl") is None:
            raise ModuleNotFoundError("not installed: pip install --no-deps inf-cl")
        from inf_cl import cal_flash_loss

        x, r = sides
        part = min(256, job["dim"])

        def both() -> Any:
            one = (cal_flash_loss(a, b, scale=1 / TEMPERATURE, head_dim=part) for a, b in _both)
            return sum(loss.mean() for loss in one) / 2

        _both = ((x, r), (r, x))
        return both
    if name == PML:
        if importlib.util.find_spec("pytorch_metric_learning") is None:
            raise ModuleNotFoundError("not installed: pip install pytorch-metric-learning")
        from pytorch_metric_learning.losses import CircleLoss

        peer = CircleLoss(m=MARGIN, gamma=GAMMA)
        return lambda: peer(sides[0], y)
    import torch

    if name == EAGER:
        return lambda: circle(y, sides[0])
    # Or the sizes of the batch break it into eight graphs, with matrices written between them.
    torch._dynamo.config.capture_scalar_outputs = True
    compiled = torch.compile(circle)
    return lambda: compiled(y, sides[0])


def circle(y: Any, x: Any) -> Any:
    """Keras's, by its function: the class casts labels to the dtype of x, which merges classes."""
    import keras

    return keras.losses.circle(y, x, gamma=GAMMA, margin=MARGIN).mean()


def _ours(job: dict[str, Any], y: Any, sides: list[Any]) -> Callable[[], Any]:
    from kinfold import losses
    from kinfold.streaming import fused_kernels

    circle_loss = losses.CircleLoss(GAMMA, MARGIN, dtype=job["dtype"])
    info_nce_loss = losses.InfoNCELoss(TEMPERATURE, dtype=job["dtype"])

    def run() -> Any:
        with fused_kernels(job["implementation"] == FUSED):
            if job["loss"] == CIRCLE:
                return circle_loss(y, sides[0])
            return info_nce_loss(None, sides[0], ref_embeddings=sides[1])

    return run


def flops(job: dict[str, Any]) -> int:
    """Of the matrix products that a step needs: two of the forward and four of the gradient.

    That counts the dense form, and so the road that computes a tile again gets no credit for it.
    """
    return 6 * job["batch"] ** 2 * job["dim"]


def exact(job: dict[str, Any], rows: int = 64) -> np.ndarray:
    """The gradient of the first rows of the first side in float64."""
    import torch

    y, sides = inputs(job, "cuda" if torch.cuda.is_available() else "cpu")
    x, *others = (side.detach().double() for side in sides)
    if job["loss"] == CIRCLE:
        leaf = x.requires_grad_()
        circle(y, leaf).backward()
        return leaf.grad[:rows].cpu().numpy()
    return info_nce(x, others[0], rows).cpu().numpy()


def info_nce(x: Any, r: Any, rows: int) -> Any:
    """A block at a time."""
    import torch

    scale, at = 1 / TEMPERATURE, torch.arange(rows)
    sums = torch.cat([torch.logsumexp(scale * part @ x.T, 1) for part in r.split(512)])
    logits = scale * x[:rows] @ r.T
    weights = torch.softmax(logits, 1) + torch.exp(logits - sums)
    weights[at, at] -= 2.0
    return weights @ r * (scale / (2 * len(x)))
