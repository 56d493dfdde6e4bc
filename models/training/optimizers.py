"""Optimizers for a device: on CUDA the rate is a number on the device, so that a step does not wait for the host.

They are torch's. Some methods of every optimizer are wrapped so that torch's compiler leaves them alone, and the first
call imports the compiler, which takes two seconds. Nothing is compiled here, so ours are the methods without the wrap.
"""

import inspect
from collections.abc import Iterable

import torch
from torch import Tensor, nn

Parameters = Iterable[nn.Parameter]


class _Uncompiled(torch.optim.Optimizer):
    """The methods that a step and a checkpoint call, as they are written."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class _Adam(_Uncompiled, torch.optim.Adam):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class _SGD(_Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


def adam(
    parameters: Parameters, rate: float, device: str, *, betas: tuple[float, float] = (0.9, 0.999), fused: bool = False
) -> torch.optim.Optimizer:
    """Adam. `fused` is the CPU's choice; on CUDA it always is."""
    if torch.device(device).type == "cuda":
        return _Adam(parameters, _on(device, rate), betas=betas, fused=True, capturable=True)
    return _Adam(parameters, rate, betas=betas, fused=fused or None)


def sgd(
    parameters: Parameters, rate: float, device: str, *, momentum: float = 0.0, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """SGD with momentum."""
    if torch.device(device).type == "cuda":
        return _SGD(parameters, _on(device, rate), momentum, weight_decay=weight_decay, fused=True)
    return _SGD(parameters, rate, momentum, weight_decay=weight_decay)


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
