"""Per-layer choice among decompositions under one budget, by their measured effect on the model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from vitnla.allocation import budget, least_loss
from vitnla.allocation.latency_model import LatencyModel
from vitnla.calibration.block_sensitivity import Probe
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.methods.auto.config import AutoConfig
from vitnla.methods.parts.block_curves import WIDTHS, BlockCurves
from vitnla.methods.parts.candidates import Candidate, both, frontier, middle, scaled
from vitnla.methods.parts.model_edit import changed_block
from vitnla.methods.parts.narrowed import narrowed_model
from vitnla.methods.parts.refit import refit
from vitnla.methods.parts.requirements import require_statistics
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.model.config import LINEARS, ViTConfig
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: AutoConfig) -> Decomposition:
    """Choose narrower heads (`pca`), a narrower MLP (`cholesky`), low-rank linears (`svd`) or no change for every block.

    The moments give a part's loss as a function of its size, up to a factor. The factor is fitted to the KL divergence that a
    cut to half the part's cost causes in the model's predictions, measured on a few calibration images (see `Probe`). The
    least total loss within the budget of MACs or predicted time is a multiple-choice knapsack over the attentions and
    MLPs of all blocks.

    The errors in the rows are measured per cut, before the refit.

    Raises:
        InputError: there are no calibration images, the model is decomposed already, or the target cannot be attained.
    """
    statistics = require_statistics("auto", statistics)
    samples = statistics.require_samples()
    curves = [BlockCurves.of(model, block, statistics) for block in range(len(model.config.blocks))]
    parts = _parts(model, curves, samples.embedded(model, config.probe_images), config.width_multiple)
    if config.target_latency is not None:
        parts = _timed(parts, model.config, _require(config.latency_model))
    chosen = _choose(parts, config)
    attentions_and_mlps = zip(chosen[::2], chosen[1::2], strict=True)
    cut = {block: curves[block].at((one + other).sizes) for block, (one, other) in enumerate(attentions_and_mlps)}
    decomposition = narrowed_model(model, cut)
    if not config.refit:
        return decomposition
    fitted = refit(decomposition.model, model, samples.embedded(model, config.refit_images), damping=config.damping)
    return Decomposition(fitted, decomposition.layers)


def _parts(model: VisionTransformer, curves: Sequence[BlockCurves], tokens: Tensor, multiple: int) -> list[list[Candidate]]:
    """Return the candidates for the attention and the MLP of every block, in model order (see `_block_parts`)."""
    probe = Probe(model, tokens)
    return [part for block, curve in enumerate(curves) for part in _block_parts(model, block, curve, probe, multiple)]


def _block_parts(
    model: VisionTransformer, block: int, curves: BlockCurves, probe: Probe, multiple: int
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates for a block's attention and for its MLP: costs in MACs, losses in nats of KL divergence."""

    def measured(name: str) -> list[Candidate]:
        candidates = curves.candidates(name, multiple)
        tried = middle(candidates)
        if tried.loss <= 0:
            return candidates
        changed = changed_block(model, block, curves.at(tried.sizes).change)
        return scaled(candidates, probe.divergence(block, changed) / tried.loss)

    part = {name: measured(name) for name in (*WIDTHS, *LINEARS)}
    attention = both(part["qk_dim"], part["v_dim"]) + both(part["qkv"], part["proj"])
    return attention, part["mlp_dim"] + both(part["fc1"], part["fc2"])


def _timed(parts: Sequence[Sequence[Candidate]], shape: ViTConfig, latency: LatencyModel) -> list[list[Candidate]]:
    """Return the candidates of every attention and MLP with costs in nanoseconds."""

    def nanoseconds(index: int, candidate: Candidate) -> int:
        block = shape.blocks[index // 2].resized(candidate.sizes)
        predict = latency.mlp_ns if index % 2 else latency.attention_ns
        return round(predict(block, shape.dim, shape.tokens))

    return [[replace(one, cost=nanoseconds(index, one)) for one in part] for index, part in enumerate(parts)]


def _choose(parts: Sequence[Sequence[Candidate]], config: AutoConfig) -> list[Candidate]:
    """Return the candidates of least total loss within the target."""
    target = config.target_macs if config.target_latency is None else config.target_latency
    assert target is not None  # for the type checker: the config fills it in
    uncut = sum(next(candidate.cost for candidate in part if not candidate.sizes) for part in parts)
    groups = [frontier(part) for part in parts]
    allowed = budget(
        uncut, sum(group[0].cost for group in groups), target, "MACs" if config.target_latency is None else "latency"
    )
    return [group[pick] for group, pick in zip(groups, least_loss(groups, allowed), strict=True)]


def _require(latency: LatencyModel | None) -> LatencyModel:
    if latency is None:
        hint = (
            "give latency_model, such as export.latency.measure.measure_latency returns; vitdeploy export measures it by itself"
        )
        raise InputError("auto: target_latency needs a latency model, got none", hint)
    return latency


METHODS.add(
    "auto",
    Method(
        "auto",
        "deployable",
        "pca, cholesky and svd, chosen per layer",
        AutoConfig,
        apply,
        lambda config: True,
        lambda config: config.target_latency is not None and config.latency_model is None,
    ),
)
