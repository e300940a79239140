"""Token merging: against a plain loop, and its graph against torch."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch
from merged_vit import MergingTransformer, merge
from torch import Tensor

from export.simplify import simplify
from export.trace import trace
from vitnla.common.errors import InputError
from vitnla.model import VisionTransformer, ViTConfig
from vitnla.training.initialise import new_model


@pytest.fixture
def model() -> VisionTransformer:
    """16 patches, class token and LayerScale; both kinds of attention."""
    config = ViTConfig.uniform(
        image_size=16, patch_size=4, channels=1, classes=5, dim=16, depth=3, heads=2, pooling="cls+mean", layer_scale=True
    )
    blocks = (config.blocks[0], config.blocks[1].model_copy(update={"attention": "symmetric"}), config.blocks[2])
    made = new_model(config.model_copy(update={"blocks": blocks}), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def merge_by_hand(x: Tensor, sizes: Tensor, metric: Tensor, prefix: int, count: int) -> tuple[Tensor, Tensor]:
    """One image, token by token, as section 3 of the paper tells it."""
    first, second = list(range(prefix + 1, len(x), 2)), list(range(prefix, len(x), 2))
    pairs = []
    for place in first:
        alike = [float(torch.cosine_similarity(metric[place], metric[other], dim=0)) for other in second]
        pairs.append((max(alike), place, second[alike.index(max(alike))]))
    merged = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:count]
    sums, counts = {place: x[place] * sizes[place] for place in range(len(x))}, {place: sizes[place] for place in range(len(x))}
    for _, place, other in merged:
        sums[other], counts[other] = sums[other] + x[place] * sizes[place], counts[other] + sizes[place]
    gone = {place for _, place, _ in merged}
    order = [*range(prefix), *(place for place in first if place not in gone), *second]
    return torch.stack([sums[place] / counts[place] for place in order]), torch.stack([counts[place] for place in order])


@pytest.mark.parametrize(("tokens", "prefix", "count"), [(17, 1, 3), (17, 1, 8), (12, 0, 6), (15, 3, 1), (10, 1, 4)])
def test_merging_is_what_a_loop_over_tokens_does(tokens: int, prefix: int, count: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x, metric = torch.randn(2, tokens, 6, generator=generator), torch.randn(2, tokens, 4, generator=generator)
    sizes = torch.randint(1, 4, (2, tokens, 1), generator=generator).float()
    found, grown = merge(x, sizes, metric, prefix, count)
    assert found.shape == (2, tokens - count, 6)
    for image in range(2):
        expected, held = merge_by_hand(x[image], sizes[image], metric[image], prefix, count)
        torch.testing.assert_close(found[image], expected)
        torch.testing.assert_close(grown[image], held)
    torch.testing.assert_close((found * grown).sum(1), (x * sizes).sum(1))  # nothing is lost


def test_of_equal_pairs_no_more_are_merged_than_asked_for() -> None:
    x = torch.arange(9.0)[None, :, None].expand(1, 9, 2)
    found, grown = merge(x, None, torch.ones(1, 9, 3), 1, 2)
    assert sorted(grown[0, :, 0].tolist()) == [1, 1, 1, 1, 1, 1, 3]  # all name the first of the other set
    assert float(grown[0, 3]) == 3
    torch.testing.assert_close((found * grown).sum(1), x.sum(1))


def test_without_merging_it_is_the_model_itself(model: VisionTransformer) -> None:
    torch.testing.assert_close(MergingTransformer(model, (0, 0, 0))(images(3)), model(images(3)))


def test_copies_of_a_token_merge_without_a_trace(model: VisionTransformer) -> None:
    """Proportional attention and weighted pooling are exact: tokens that are equal may be merged at no loss."""
    with torch.no_grad():
        model.pos_embed[1:] = model.pos_embed[1]
    patches = torch.randn(2, 1, 4, 1, 4, 2, 1, 4, generator=torch.Generator().manual_seed(4))
    pixels = patches.expand(2, 1, 4, 1, 4, 2, 2, 4).reshape(2, 1, 16, 16)  # each patch twice, side by side
    merging = MergingTransformer(model, (5, 0, 0))
    torch.testing.assert_close(merging(pixels), model(pixels), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(merging(images(2)), model(images(2)), atol=1e-2)


def test_the_graph_computes_what_torch_does_at_every_batch(model: VisionTransformer) -> None:
    merging = MergingTransformer(model, (5, 0, 3))
    graph = simplify(trace(merging.exportable()), merging.config).model
    assert not {"NonZero", "Loop", "If", "Scan", "Unique"} & {node.op_type for node in graph.graph.node}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        expected = merging(images(batch)).detach().numpy()
        found = session.run(None, {"images": images(batch).numpy()})[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("counts", "match"), [((9, 0, 0), "block 0: expected 0 to 8"), ((5, 6, 0), "block 1"), ((1, 1), "3 blocks")]
)
def test_it_refuses_what_it_cannot_merge(model: VisionTransformer, counts: tuple[int, ...], match: str) -> None:
    with pytest.raises(InputError, match=match):
        MergingTransformer(model, counts)
    assert math.isfinite(float(MergingTransformer(model, (8, 4, 2))(images(1)).detach().sum()))  # as many as there are
