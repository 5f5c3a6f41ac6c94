"""Joins the processes that torchrun started into one training. Knows ranks and gradients; no model, no data."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """The processes of one training; one process is a training of its own.

    Attributes:
        count: How many there are.
        rank: Which this one is, from 0.
        device: The device that this one computes on.
    """

    def __init__(self, count: int = 1, rank: int = 0, device: torch.device | None = None) -> None:
        self.count = count
        self.rank = rank
        self.device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def share_gradients(self, network: nn.Module, *, some_unused: bool = False) -> nn.Module:
        """Returns a network whose gradients are the mean over all processes (Li et al. 2020, section 3).

        Args:
            network: Its forward pass gives the loss.
            some_unused: Whether there are weights that the loss does not depend on.
        """
        if self.count == 1:
            return network
        return DistributedDataParallel(network, find_unused_parameters=some_unused, broadcast_buffers=False)

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Returns the mean of each figure over all processes."""
        if self.count == 1:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(values)
        return dict(zip(figures, (values / self.count).tolist(), strict=True))


def started_together(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Returns how many processes torchrun started and which this one is; 1 and 0 where it did not."""
    return int(environment.get("WORLD_SIZE", "1")), int(environment.get("RANK", "0"))


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Meets the other processes, over nccl where each has a GPU of its own, else over gloo, and leaves them in the end.

    A group that exists already is used and left as it is.
    """
    count, rank = started_together(environment)
    if count == 1:
        yield Processes(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    has_gpu = torch.cuda.device_count() >= int(environment.get("LOCAL_WORLD_SIZE", str(count)))
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    begun_here = not distributed.is_initialized()
    if begun_here:
        distributed.init_process_group("nccl" if has_gpu else "gloo")
    try:
        yield Processes(count, rank, device)
    finally:
        if begun_here:
            distributed.destroy_process_group()
