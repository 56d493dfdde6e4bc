"""Optimizers for a device: on CUDA the rate is a number on the device, so that a step does not wait for the host."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Parameters = Iterable[nn.Parameter]


def adam(
    parameters: Parameters, rate: float, device: str, *, betas: tuple[float, float] = (0.9, 0.999), fused: bool = False
) -> torch.optim.Optimizer:
    """Adam. `fused` is the CPU's choice; on CUDA it always is."""
    if torch.device(device).type == "cuda":
        return torch.optim.Adam(parameters, _on(device, rate), betas=betas, fused=True, capturable=True)
    return torch.optim.Adam(parameters, rate, betas=betas, fused=fused or None)


def sgd(
    parameters: Parameters, rate: float, device: str, *, momentum: float = 0.0, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """SGD with momentum."""
    if torch.device(device).type == "cuda":
        return torch.optim.SGD(parameters, _on(device, rate), momentum, weight_decay=weight_decay, fused=True)
    return torch.optim.SGD(parameters, rate, momentum, weight_decay=weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Bring every group to `scale` times the rate it began with."""
    for group in optimizer.param_groups:
        rate = group["lr"]
        value = group.setdefault("initial_lr", float(rate)) * scale
        if isinstance(rate, Tensor):
            rate.fill_(value)
        else:
            group["lr"] = value


def _on(device: str, rate: float) -> Tensor:
    return torch.tensor(rate, dtype=torch.float32, device=device)
