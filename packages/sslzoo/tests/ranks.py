"""A program for the tests: two training steps of every method, in one process and shared between two ranks.

Argument: a folder, where it leaves the results as RANKS.RANK.pt.
"""

import multiprocessing
import sys
from pathlib import Path

import jaxtyping
import torch
from torch import distributed, nn

jaxtyping.install_import_hook("sslzoo", "beartype.beartype")

from genviews_core.distributed import destroy_process_group  # noqa: E402
from sslzoo import PairFeatureHook, convert_sync_batchnorm, create_backbone, gather, wrap_ddp  # noqa: E402
from sslzoo.methods import BYOL, DINO, BarlowTwins, GenDINO, Interpolated, MoCoV2, MoCoV3, SimCLR, SimSiam, SwAV, VICReg  # noqa: E402
from sslzoo.methods.moco_v2 import permutation, shuffle_bn_forward  # noqa: E402

BATCH = 12
DINO_OPTIONS = {"out_dim": 16, "hidden_dim": 16, "bottleneck_dim": 8}
METHODS = {
    "simsiam": lambda b: SimSiam(b, projection_dim=16, prediction_dim=8),
    "moco_v2": lambda b: MoCoV2(b, projection_dim=8, queue_size=20, momentum=0.9, splits=2),
    "moco_v2_symmetric": lambda b: MoCoV2(b, projection_dim=8, queue_size=20, symmetric=True, splits=2),
    "dino": lambda b: DINO(b, head_batch_norm=True, **DINO_OPTIONS),
    "gen_dino": lambda b: GenDINO(b, **DINO_OPTIONS),
    "byol": lambda b: BYOL(b, projection_dim=8, hidden_dim=16, momentum=0.9),
    "moco_v3": lambda b: MoCoV3(b, projection_dim=8, hidden_dim=16, momentum=0.9),
    "swav": lambda b: SwAV(b, prototypes=10, projection_dim=8, hidden_dim=16, queue_size=BATCH, queue_start=0.0),
    "simclr": lambda b: SimCLR(b, projection_dim=8),
    "vicreg": lambda b: VICReg(b, expander=(16, 8)),
    "barlow_twins": lambda b: BarlowTwins(b, projector=(16, 8)),
}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def train(name: str, share, ranks: int) -> dict:
    torch.manual_seed(0)
    bare = METHODS[name](create_backbone("resnet10", cifar_stem=True, width=4)).double()
    method = convert_sync_batchnorm(bare)
    wrapped = wrap_ddp(method) if ranks > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    steps = []
    for step in range(2):
        views = [share(draw(10 * step + i, 3, 12, 12)) for i in range(2)]
        if isinstance(method, DINO | SwAV):
            views.append(share(draw(10 * step + 2, 3, 8, 8)))
        weights = share(draw(10 * step + 3).abs())
        extra = [interpolated(step, share)] if name == "gen_dino" and step == 0 else []
        loss = wrapped(views, weights, *extra)["loss"]
        optimizer.zero_grad()
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        optimizer.step()
        method.after_step((step + 1) / 2)
        buffers = {n: b.clone() for n, b in method.named_buffers()}
        steps.append({"loss": loss.detach(), "gradients": gradients, "buffers": buffers})
    return {"steps": steps, "parameters": {n: p.detach() for n, p in method.named_parameters()}}


def interpolated(step: int, share) -> Interpolated:
    return Interpolated(
        view=share(draw(10 * step + 5, 3, 12, 12)),
        partner=share(draw(10 * step + 6, 3, 12, 12)),
        alpha=share(draw(10 * step + 7).sigmoid()),
        exists=share(draw(10 * step + 8) > 0),
    )


def gathered_gradient(share) -> torch.Tensor:
    """d/dx of the mean over ranks of mean_i sum_j (x_i . x_j)^2: needs the gradient through other ranks' rows."""
    rows = share(draw(1, 4)).requires_grad_()
    loss = (rows @ gather(rows).T).square().sum(1).mean()
    loss.backward()
    return rows.grad


def key_maps(share) -> torch.Tensor:
    """Return the key maps of this rank's second views; the key network runs on shuffled rows of all ranks."""
    torch.manual_seed(0)
    method = METHODS["moco_v2"](create_backbone("resnet10", cifar_stem=True, width=4)).double()
    tap = PairFeatureHook(method)
    method([share(draw(i, 3, 12, 12)) for i in range(2)])
    return tap.pop()[1]


def work(rank: int, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)

    def share(rows: torch.Tensor) -> torch.Tensor:
        return rows.chunk(ranks)[rank]

    found = {name: train(name, share, ranks) for name in METHODS}
    found["gather"] = gathered_gradient(share)
    found["shuffled"] = shuffle_bn_forward(nn.Flatten(), share(draw(1, 3, 4, 4)), permutation(BATCH, 0, 1))
    found["key maps"] = key_maps(share)
    torch.save(found, folder / f"{ranks}.{rank}.pt")
    if ranks > 1:
        distributed.barrier()
        destroy_process_group()


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")  # the imports above are done once; no tensor has been touched yet
    jobs = [fork.Process(target=work, args=(*place, Path(sys.argv[1]))) for place in [(0, 1), (0, 2), (1, 2)]]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    sys.exit(any(job.exitcode for job in jobs))
