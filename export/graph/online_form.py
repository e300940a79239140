"""Online decomposition of activations: the form of it in the graph, and the check that this form is accurate."""

from __future__ import annotations

from export.graph.parity import measure_parity, torch_logits
from runtime.bundle.schema import OnlineForm
from runtime.runners.base import Images
from vitnla.common.errors import VerdictError
from vitnla.model.config import Truncation
from vitnla.model.vit import VisionTransformer

IMAGES = 64
"""Number of images that the form is checked on: gaps between singular values differ by image."""
_BATCHES = (1, 2, 7, IMAGES)


def online_form(model: VisionTransformer, images: Images) -> OnlineForm | None:
    """Return the form of online decomposition in `model.exportable()`; `None` for a model that has none.

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
    """Check that the logits of the exportable form are torch's.

    Raises:
        VerdictError: the logits differ; gives the difference and the likely cause.
    """
    if online is None or online.parity.met or allowed:
        return
    raise VerdictError(
        f"online {', '.join(online.kinds)}: ONNX has no SVD, and by matrix products alone the logits differ from torch's by "
        f"{online.parity.max_rel:.1e} of the largest, expected at most {online.parity.tolerance:.0e}",
        "an image has no clear gap between the singular values at the rank; choose another rank, or pass --allow-parity-failure",
    )
