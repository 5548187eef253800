"""What the GPU benchmark runs: the losses, fused, streamed and the peers', on PyTorch and JAX."""

from collections.abc import Callable, Iterator
from typing import Any

CIRCLE, INFO_NCE, SIG_LIP = "circle", "info_nce", "sig_lip"
FUSED, STREAMED = "kinfold fused", "kinfold streamed"
EAGER, COMPILED = "keras eager", "keras compiled"
PML, INF_CL, MEMEFF = "pytorch-metric-learning", "inf-cl", "memeff"
SIGLIP_KERNEL, FUSED_JAX = "siglip-kernel", "kinfold fused, JAX"

HALF, FULL = "bfloat16", "float32"
CLASS_SIZE = 4
GAMMA, MARGIN, TEMPERATURE = 80.0, 0.4, 0.07
SCALE, BIAS = 10.0, -10.0

# How PyTorch multiplies float32: Inf-CL and memeff take TF32 whatever the switch says, and so does
# ours beside them.
PRECISION = {CIRCLE: "highest", INFO_NCE: "medium", SIG_LIP: "highest"}


def jobs() -> Iterator[dict[str, Any]]:
    """Each measurement, what is worth most first."""
    large, small = 131072, 16384
    yield job(CIRCLE, FUSED, large)
    for name in (FUSED, COMPILED, EAGER, PML, STREAMED):
        yield job(CIRCLE, name, small)
    yield job(CIRCLE, FUSED, 1048576)
    for d in (768, 512):
        for name in (FUSED, SIGLIP_KERNEL):
            yield job(SIG_LIP, name, 65536, d)
    for n in (small, 65536):
        for name in (FUSED, MEMEFF, INF_CL):
            yield job(INFO_NCE, name, n)
    for name in (FUSED, COMPILED, EAGER, PML, STREAMED):
        yield job(CIRCLE, name, small, dtype=FULL)
    yield job(CIRCLE, STREAMED, large)
    for name in (FUSED, MEMEFF, INF_CL):
        yield job(INFO_NCE, name, small, dtype=FULL)
    for d in (128, 1024):
        yield job(CIRCLE, FUSED, 65536, d)
    for name in (FUSED, COMPILED, PML):
        yield job(CIRCLE, name, 4096)


def job(loss: str, name: str, batch: int, dim: int = 512, dtype: str = HALF) -> dict[str, Any]:
    return {"loss": loss, "implementation": name, "batch": batch, "dim": dim, "dtype": dtype}


def inputs(job: dict[str, Any], device: str) -> tuple[Any, list[Any]]:
    """Labels and unit embeddings; for pairs both sides of them, each near the other."""
    import torch

    n, d = job["batch"], job["dim"]
    generator = torch.Generator(device=device).manual_seed(n)
    y = torch.arange(n, device=device) // CLASS_SIZE
    y = y[torch.randperm(n, generator=generator, device=device)]

    def side(near: Any = None) -> Any:
        x = torch.randn(n, d, generator=generator, device=device)
        x = x if near is None else x + near
        x = torch.nn.functional.normalize(x, dim=1)
        return x.to(getattr(torch, job["dtype"])).requires_grad_()

    first = side()
    if job["loss"] == CIRCLE:
        return y, [first]
    return y, [first, side(first.detach().float() * d**0.5)]


def step(job: dict[str, Any], y: Any, sides: list[Any]) -> Callable[[], Any]:
    """A forward pass of the job's loss."""
    import torch

    name = job["implementation"]
    if name in (FUSED, STREAMED):
        return _ours(job, y, sides)
    if name == INF_CL:
        from inf_cl import cal_flash_loss

        part = min(256, job["dim"])
        pairs = tuple(sides), tuple(sides[::-1])

        def both() -> Any:
            one = (cal_flash_loss(a, b, scale=1 / TEMPERATURE, head_dim=part) for a, b in pairs)
            return sum(loss.mean() for loss in one) / 2

        return both
    if name == MEMEFF:
        from memeff import MemoryEfficientCLIPLoss

        peer = MemoryEfficientCLIPLoss(TEMPERATURE, normalized_inputs=True, stable=False)
        return lambda: peer(*sides)
    if name == SIGLIP_KERNEL:
        from siglip_kernel import fused_siglip_loss

        device = sides[0].device
        numbers = (torch.tensor(SCALE).log(), torch.tensor(BIAS))
        numbers = [number.to(device).requires_grad_() for number in numbers]
        return lambda: fused_siglip_loss(*sides, *numbers)
    if name == PML:
        from pytorch_metric_learning.losses import CircleLoss

        peer = CircleLoss(m=MARGIN, gamma=GAMMA)
        return lambda: peer(sides[0], y)
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

    dtype = job["dtype"]
    if job["loss"] == CIRCLE:
        loss: Any = losses.CircleLoss(GAMMA, MARGIN, dtype=dtype)
    elif job["loss"] == INFO_NCE:
        loss = losses.InfoNCELoss(TEMPERATURE, dtype=dtype)
    else:
        loss = losses.SigLIPLoss(SCALE, BIAS, dtype=dtype)
        loss._warn_if_untrained = lambda: None

    def run() -> Any:
        with fused_kernels(job["implementation"] == FUSED):
            if job["loss"] == CIRCLE:
                return loss(y, sides[0])
            return loss(None, sides[0], ref_embeddings=sides[1])

    return run


def flops(job: dict[str, Any]) -> int:
    """Of the matrix products that a step needs: two of the forward and four of the gradient.

    That counts the dense form, so a road that computes a tile again gets no credit for it.
    """
    return 6 * job["batch"] ** 2 * job["dim"]


def exact(job: dict[str, Any], most: int = 32) -> Any:
    """The gradient of the first rows of the first side in float64, [rows, d]."""
    import torch

    rows = min(most, job["batch"])
    y, sides = inputs(job, "cuda" if torch.cuda.is_available() else "cpu")
    x, *others = (side.detach().double() for side in sides)
    if job["loss"] == CIRCLE:
        leaf = x.requires_grad_()
        circle(y, leaf).backward()
        return leaf.grad[:rows]
    if job["loss"] == SIG_LIP:
        leaf = x[:rows].clone().requires_grad_()
        logit = SCALE * leaf @ others[0].T + BIAS
        own = torch.eye(len(leaf), len(x), device=x.device, dtype=torch.float64)
        torch.nn.functional.softplus(logit * (1.0 - 2.0 * own)).sum().div(len(x)).backward()
        return leaf.grad
    return info_nce(x, others[0], rows)


def info_nce(x: Any, r: Any, rows: int) -> Any:
    """A block at a time."""
    import torch

    scale, at = 1 / TEMPERATURE, torch.arange(rows)
    sums = torch.cat([torch.logsumexp(scale * part @ x.T, 1) for part in r.split(512)])
    logits = scale * x[:rows] @ r.T
    weights = torch.softmax(logits, 1) + torch.exp(logits - sums)
    weights[at, at] -= 2.0
    return weights @ r * (scale / (2 * len(x)))
