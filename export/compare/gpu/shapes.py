"""Model shapes of the suite, and their FLOPs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

from vitnla.allocation.latency_model import attention_terms
from vitnla.model.config import LINEARS, BlockConfig, LinearName, Ranks, ViTConfig
from vitnla.model.cost import layer_macs

Size = Literal["S/16", "B/16", "L/16"]
Variant = Literal["dense", "decomposed"]
IMAGE_SIZE, CLASSES = 224, 1000
BATCHES = (1, 8, 64, 256)
RANK_MULTIPLE = 32
VARIANTS: tuple[Variant, ...] = ("dense", "decomposed")
_DECOMPOSED: tuple[LinearName, ...] = ("qkv", "fc1", "fc2")


class Width(NamedTuple):
    """Width of an encoder."""

    dim: int
    depth: int
    heads: int


SIZES: dict[Size, Width] = {"S/16": Width(384, 12, 6), "B/16": Width(768, 12, 12), "L/16": Width(1024, 24, 16)}


class Shape(NamedTuple):
    """A model of the suite."""

    size: Size
    variant: Variant

    def __str__(self) -> str:
        return f"{self.size} {self.variant}"


def shapes() -> Iterator[Shape]:
    """Yield every model of the suite, small ones first."""
    return itertools.starmap(Shape, itertools.product(SIZES, VARIANTS))


def vit_config(shape: Shape) -> ViTConfig:
    """Return the config of a shape's ViT: 224 x 224 pixels, 1,000 classes.

    Decomposed, `qkv`, `fc1` and `fc2` have the largest rank that is a multiple of 32 and at most halves their MACs; `proj`, which
    is square and small, stays dense.
    """
    width = SIZES[shape.size]
    dense = ViTConfig.uniform(
        image_size=IMAGE_SIZE, patch_size=16, channels=3, classes=CLASSES, dim=width.dim, depth=width.depth, heads=width.heads
    )
    if shape.variant == "dense":
        return dense
    block = dense.blocks[0]
    ranks = Ranks(**{name: _halving_rank(block, name, width.dim) for name in _DECOMPOSED})
    return dense.model_copy(update={"blocks": (block.model_copy(update={"ranks": ranks}),) * width.depth})


def _halving_rank(block: BlockConfig, name: LinearName, dim: int) -> int:
    rows, columns = block.linear_shapes(dim)[name]
    return int(rows * columns / (2 * (rows + columns))) // RANK_MULTIPLE * RANK_MULTIPLE


def image_flops(config: ViTConfig) -> int:
    """Return the floating-point operations per image: 2 for each multiply-accumulate of the linears, the attention's two products, the patch
    embedding and a linear head. Softmax, norms, activations and biases are not counted.
    """
    linears = sum(layer_macs(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)
    attention = sum(int(attention_terms(1, block.heads, config.tokens, block.qk_dim, block.v_dim)[1]) for block in config.blocks)
    patches = config.patches * config.dim * config.channels * config.patch_size**2
    return 2 * (linears + attention + patches + config.features * config.classes)
