"""Batch normalisation over the patches of all processes, on CPUs, where PyTorch has no SyncBatchNorm."""

from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Network = TypeVar("Network", bound=nn.Module)


class _Sum(torch.autograd.Function):
    """The sum over all processes; since all of them use it, its gradient is the sum of all their gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class TeamBatchNorm(nn.BatchNorm3d):
    """Batch normalisation of (B, C, Z, Y, X) with mean and variance of all processes' patches together.

    All processes have the same number of voxels. In evaluation mode it is ordinary batch normalisation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; statistics are computed in float32 or better."""
        if not self.training:
            return super().forward(x)
        size, axes = distributed.get_world_size(), (0, 2, 3, 4)
        values = x.float() if x.dtype == torch.bfloat16 else x
        mean = _Sum.apply(values.mean(axes)) / size
        centred = values - mean[:, None, None, None]
        variance = _Sum.apply(centred.square().mean(axes)) / size
        count = size * x.numel() // x.shape[1]
        with torch.no_grad():
            mine, momentum = dict(self.named_buffers()), self.momentum or 0.0
            mine["num_batches_tracked"].add_(1)
            mine["running_mean"].lerp_(mean, momentum)
            mine["running_var"].lerp_(variance * count / max(1, count - 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None, None] + self.bias[:, None, None, None]).to(x.dtype)


def with_team_norm(net: Network) -> Network:
    """The same network with `TeamBatchNorm` instead of batch normalisation, sharing the same parameters."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm3d:
                norm = TeamBatchNorm(child.num_features, child.eps, child.momentum)
                norm.weight, norm.bias = child.weight, child.bias  # an optimiser may hold them already
                for kept in ("running_mean", "running_var", "num_batches_tracked"):
                    setattr(norm, kept, getattr(child, kept))
                setattr(parent, name, norm.train(child.training))
    return net
