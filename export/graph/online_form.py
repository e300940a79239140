"""Rows that decompose activations: which form of them the graph holds, and whether that form is faithful."""

from __future__ import annotations

from export.graph.parity import measure_parity, torch_logits
from runtime.bundle.schema import OnlineForm
from runtime.runners.base import Images
from vitnla.common.errors import VerdictError
from vitnla.model.config import Truncation
from vitnla.model.vit import VisionTransformer

IMAGES = 64
"""How many images the form is tried on: a gap between singular values is a matter of each image."""
_BATCHES = (1, 2, 7, IMAGES)


def online_form(model: VisionTransformer, images: Images) -> OnlineForm | None:
    """How `model.exportable()` does the model's online decomposition; `None` for a model that has none.

    Args:
        model: a model in its exact form.
        images: preprocessed, [N, C, H, W].
    """
    kinds = {block.online.kind: isinstance(block.online, Truncation) for block in model.config.blocks if block.online is not None}
    if not kinds:
        return None
    exportable = model.exportable()
    parity = measure_parity(lambda batch: torch_logits(exportable, batch), model, images, _BATCHES)
    return OnlineForm(kinds=tuple(sorted(kinds)), form="matmul" if any(kinds.values()) else "omitted", parity=parity)


def require_faithful(online: OnlineForm | None, *, allowed: bool) -> None:
    """Refuse a form that is not what torch computes.

    Raises:
        VerdictError: says by how much the logits differ, and why that can be.
    """
    if online is None or online.parity.met or allowed:
        return
    raise VerdictError(
        f"online {', '.join(online.kinds)}: ONNX has no SVD, and by matrix products alone the logits differ from torch's by "
        f"{online.parity.max_rel:.1e} of the largest, expected at most {online.parity.tolerance:.0e}",
        "an image has no clear gap between the singular values at the rank; choose another rank, or pass --allow-parity-failure",
    )
