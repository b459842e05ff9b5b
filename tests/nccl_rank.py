"""Half of a SimCLR step per rank: `torchrun tests/nccl_rank.py FILE` writes loss and gradient of rank 0 to FILE."""

import os
import sys

import torch
import torch.distributed as dist

import sslzoo
from genviews_core.distributed import destroy_process_group
from sslzoo.methods import SimCLR

IMAGES = 8


def views(device: torch.device) -> list[torch.Tensor]:
    """Return the whole batch, the same on every rank."""
    drawn = torch.randn(2, IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return list(drawn.to(device))


def simclr(device: torch.device) -> SimCLR:
    """Return the method with the same weights on every rank."""
    torch.manual_seed(0)
    return SimCLR(sslzoo.create_backbone("resnet10", cifar_stem=True, width=8), projector_layers=2).to(device)


def loss_and_gradient(method: torch.nn.Module, own: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return loss and gradient of one float32 step."""
    loss = method(own)["loss"]
    loss.backward()
    weight = next(parameter for parameter in method.parameters() if parameter.ndim == 4)
    assert weight.grad is not None
    return {"loss": loss.detach().cpu(), "gradient": weight.grad.cpu()}


def main() -> None:
    """Run the part of this rank."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    worker = sslzoo.init_distributed(os.environ)
    method = sslzoo.wrap_ddp(sslzoo.convert_sync_batchnorm(simclr(worker.device)))
    share = IMAGES // worker.world_size
    own = slice(worker.rank * share, (worker.rank + 1) * share)
    found = loss_and_gradient(method, [view[own] for view in views(worker.device)])
    mean = found["loss"].to(worker.device)
    dist.all_reduce(mean)
    if worker.rank == 0:
        torch.save({**found, "loss": (mean / worker.world_size).cpu(), "backend": dist.get_backend()}, sys.argv[1])
    destroy_process_group()


if __name__ == "__main__":
    main()
