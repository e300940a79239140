"""What changing one block does to the whole model, measured on calibration images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.vit import VisionTransformer


class Probe:
    """The divergence of a model's predictions from their own when one of its blocks is replaced.

    The tokens before every block are kept, so that a replaced block costs only what comes after it.

    Args:
        model: the model as it is.
        tokens: [N, tokens, dim] embedded calibration images.
    """

    @torch.no_grad()
    def __init__(self, model: VisionTransformer, tokens: Tensor) -> None:
        self._model = model
        self._before = [tokens]
        for block in model.blocks:
            self._before.append(block(self._before[-1]))
        self._expected = self._log_probabilities(self._before[-1])

    @torch.no_grad()
    def divergence(self, block: int, replacement: nn.Module) -> float:
        """Mean KL(p || q) in nats per image, p the model's class probabilities and q those with `replacement` as its block."""
        tokens = replacement(self._before[block])
        for following in self._model.blocks[block + 1 :]:
            tokens = following(tokens)
        found = self._log_probabilities(tokens)
        divergence = nn.functional.kl_div(found, self._expected, reduction="batchmean", log_target=True)
        return max(0.0, float(divergence))

    def _log_probabilities(self, tokens: Tensor) -> Tensor:
        return self._model.classify(self._model.norm(tokens)).double().log_softmax(-1)
