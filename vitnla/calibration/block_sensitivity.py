"""Effect of changing one block on the predictions of the whole model, measured on calibration images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.vit import VisionTransformer

_DRAWS, _BATCH = 4, 32


class Probe:
    """The divergence of a model's predictions from their own when one of its blocks is replaced, to second order.

    An error e of a block's output changes the class probabilities by KL(p || q) = eT JT F J e / 2 + O(|e|^3), J the Jacobian of
    the logits and F = diag(p) - p pT their Fisher information (Martens 2020, "New insights and perspectives on the natural
    gradient method", section 5). F = B BT with B = diag(sqrt p) - p (sqrt p)T, and for random signs r the mean of (gT e)^2,
    g = JT B r, is that form. A few backward passes give g for all blocks at once; a replaced block then costs one
    pass through itself, where the divergence itself would cost one through all that follow.

    Args:
        model: the unchanged model.
        tokens: [N, tokens, dim] embedded calibration images. Per block, their tokens and some gradients are kept in memory.
    """

    def __init__(self, model: VisionTransformer, tokens: Tensor) -> None:
        signs = torch.Generator().manual_seed(0)
        batches = [_trace(model, part, signs) for part in torch.split(tokens, _BATCH)]
        self._outputs = [torch.cat(parts) for parts in zip(*(outputs for outputs, _ in batches), strict=True)]
        self._gradients = [torch.cat(parts) for parts in zip(*(gradients for _, gradients in batches), strict=True)]

    @torch.no_grad()
    def divergence(self, block: int, replacement: nn.Module) -> float:
        """Return the mean KL(p || q) in nats per image, p the model's class probabilities and q those with the block replaced."""
        error = replacement(self._outputs[block]) - self._outputs[block + 1]
        along = torch.einsum("nrtd,ntd->nr", self._gradients[block], error)
        return float(along.double().square().mean() / 2)


def _trace(model: VisionTransformer, tokens: Tensor, signs: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tokens before every block and after the last, and g [N, draws, tokens, dim] for the output of every block."""
    # Also where the caller has turned gradients off; a clone, because a tensor made in inference mode cannot have any.
    with torch.inference_mode(False), torch.enable_grad():
        outputs = [tokens.clone().requires_grad_()]
        for block in model.blocks:
            outputs.append(block(outputs[-1]))
        logits = model.classify(outputs[-1])
        p = logits.detach().softmax(-1)
        draws = []
        for _ in range(_DRAWS):
            r = 2.0 * torch.randint(0, 2, p.shape, generator=signs).to(p) - 1
            along = p.sqrt() * r - p * (p.sqrt() * r).sum(1, keepdim=True)
            draws.append(torch.autograd.grad(logits, outputs[1:], along, retain_graph=True))
    return [output.detach() for output in outputs], [torch.stack(drawn, dim=1) for drawn in zip(*draws, strict=True)]
