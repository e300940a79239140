"""The optimisers, their schedule, the moving average, and their state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from vitnla.model.vit import VisionTransformer
from vitnla.training.config import Schedule


def make_optimizers(model: VisionTransformer, config: Schedule) -> list[Optimizer]:
    """Return Muon for the hidden matrices and AdamW for all other parameters."""
    hidden = [p for p in model.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in hidden}
    return [
        # match_rms_adamw lets both optimisers share one learning rate (Liu et al. 2025, "Muon is scalable", eq. 4)
        Muon(hidden, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"),
        make_adamw(model, [p for p in model.parameters() if id(p) not in chosen], config),
    ]


def make_adamw(model: VisionTransformer, parameters: Iterable[nn.Parameter], config: Schedule) -> AdamW:
    """Return AdamW for these parameters of a model; vectors and positions have no weight decay."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in parameters:
        groups[parameter.ndim > 1 and parameter is not model.pos_embed and parameter is not model.prefix].append(parameter)
    return AdamW(
        [{"params": group, "weight_decay": config.weight_decay if decayed else 0.0} for decayed, group in groups.items()],
        lr=config.lr, betas=(0.9, 0.95),
    )  # fmt: skip


def learning_rate(config: Schedule, epoch: float) -> float:
    """Return the learning rate: linear warm-up, then a cosine to one hundredth of the peak; `epoch` may be fractional."""
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1e-3) / config.warmup_epochs
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class MovingAverage:
    """Exponential moving average of a model's parameters, warmed up so that early steps count for little."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's current weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        current = model.state_dict()
        torch._foreach_lerp_(list(self.tensors.values()), [current[name].detach() for name in self.tensors], 1 - decay)


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Return every state tensor of the optimisers under a flat name, for safetensors."""
    flat = {}
    for which, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                flat[f"optimizer.{which}.{parameter}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return flat


def restore_optimizers(optimizers: list[Optimizer], flat: dict[str, Tensor]) -> None:
    """Load the output of `optimizer_tensors`; learning rates and groups of the given optimisers are unchanged."""
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in flat.items():
            if name.startswith(f"optimizer.{which}."):
                _, _, parameter, key = name.split(".")
                state.setdefault(int(parameter), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
