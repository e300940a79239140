"""Attention as a Tucker decomposition of its stacked heads: narrower heads, and one down-projection that all of them share.

The whitened weights of all queries, keys and values form a tensor T [3 heads, d_h, d] (`vitnla.methods.tensor.stacked_heads`),
and T = G x_2 F x_3 P with F [d_h, r_h] orthonormal and P [d, r] (Tucker 1966). F is the same for queries and keys, so it
cancels in their products, (F G_q x)^T (F G_k x) = (G_q x)^T (G_k x), and for values it goes into proj: the head mode is a head
of width r_h. P maps a token to r features that queries, keys and values share: the width mode is qkv through rank r. Neither
is multiplied out when the model runs. The modes are cut one after the other, each at its best (the sequentially truncated
HOSVD of Vannieuwenhoven, Vandebril & Meerbergen 2012).
"""

from __future__ import annotations

from vitnla.allocation import budget, least_loss
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.methods.parts.candidates import frontier
from vitnla.methods.parts.model_edit import dense_linear
from vitnla.methods.parts.narrowed import narrowed_model
from vitnla.methods.parts.requirements import require_statistics
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.methods.tensor.config import TensorConfig
from vitnla.methods.tensor.stacked_heads import AttentionTensor
from vitnla.model.config import BlockConfig, LinearName, ViTConfig
from vitnla.model.cost import encoder_macs, layer_macs, linear_macs
from vitnla.model.vit import VisionTransformer

MLP: tuple[LinearName, ...] = ("fc1", "fc2")


def apply(model: VisionTransformer, statistics: Statistics | None, config: TensorConfig) -> Decomposition:
    """Decompose the attention of every block; the MLPs stay as they are.

    Raises:
        InputError: there are no statistics, the model is decomposed already, a number is not finite, a width or rank is too
            large, or the target cannot be attained.
    """
    statistics = require_statistics("tensor", statistics)
    for key in model.linear_names():
        dense_linear(model, key)
    tensors = [AttentionTensor.of(model, block, statistics) for block in range(len(model.config.blocks))]
    sizes = _given(model.config, config) if config.target_macs is None else _within(tensors, model.config, config)
    return narrowed_model(
        model, {index: tensor.at(*size) for index, (tensor, size) in enumerate(zip(tensors, sizes, strict=True))}
    )


def _given(shape: ViTConfig, config: TensorConfig) -> list[tuple[int, int | None]]:
    """Return (head_dim, rank) of every block as given in the config."""
    return [
        (width, _rank(block, shape.dim, width, config.rank))
        for block in shape.blocks
        for width in [_width(block, config.head_dim)]
    ]


def _width(block: BlockConfig, given: int | None) -> int:
    if given is not None and given > block.v_dim:
        raise InputError(f"head_dim: expected at most {block.v_dim}, the width of a head, got {given}", "choose a smaller one")
    return block.v_dim if given is None else given


def _rank(block: BlockConfig, dim: int, width: int, given: int | None) -> int | None:
    shape = (3 * block.heads * width, dim)
    if given is None:
        return None
    if given >= min(shape):
        raise InputError(
            f"rank: expected at most {min(shape) - 1} for heads of width {width}, got {given}", "choose a smaller one"
        )
    return given if linear_macs(shape, given, 1) < linear_macs(shape, None, 1) else None


def _within(tensors: list[AttentionTensor], shape: ViTConfig, config: TensorConfig) -> list[tuple[int, int | None]]:
    """Return (head_dim, rank) of every block for the least loss within the target."""
    assert config.target_macs is not None  # for the type checker: the caller saw it
    groups = [frontier(tensor.candidates(config.width_multiple)) for tensor in tensors]
    dense = encoder_macs(shape, shape).dense
    rest = sum(layer_macs(shape, block, name) for block in range(len(shape.blocks)) for name in MLP)
    allowed = budget(dense, rest + sum(group[0].cost for group in groups), config.target_macs) - rest
    picked = [group[pick] for group, pick in zip(groups, least_loss(groups, allowed), strict=True)]
    return [(candidate.sizes["head_dim"], candidate.sizes.get("rank")) for candidate in picked]


METHODS.add(
    "tensor",
    Method(
        "tensor", "deployable", "Tucker of stacked heads: narrower heads, shared input", TensorConfig, apply, lambda config: True
    ),
)
