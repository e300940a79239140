"""All decompositions that pay, chosen layer by layer under one budget by what they do to the whole model's predictions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vitnla.allocation import budget, least_loss
from vitnla.calibration.probe import Probe
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.base import METHODS, Decomposition, Method
from vitnla.methods.candidates import Candidate, both, frontier, middle, scaled
from vitnla.methods.curves import WIDTHS, BlockCurves
from vitnla.methods.narrowed import narrowed_model
from vitnla.methods.refit import DAMPING, refit
from vitnla.methods.surgery import with_blocks
from vitnla.model.config import LINEARS
from vitnla.model.cost import encoder_macs
from vitnla.model.vit import VisionTransformer


class AutoConfig(Record):
    """How far to cut, and how carefully to choose."""

    target_macs: Annotated[float, Field(gt=0, le=1)] = 0.55
    """MACs of the encoder's linears to keep."""
    width_multiple: Annotated[int, Field(ge=1)] = 8
    """Ranks and widths of heads are multiples of this, and those of MLPs of four times this, which GEMM kernels run best at."""
    probe_images: Annotated[int, Field(ge=1)] = 64
    """Calibration images on which every kind of cut is tried on every block."""
    refit: bool = True
    """Whether the last linear of every branch is fitted anew on the compressed model (see `refit`)."""
    damping: Annotated[float, Field(gt=0)] = DAMPING
    """Of that fit."""


def apply(model: VisionTransformer, statistics: Statistics | None, config: AutoConfig) -> Decomposition:
    """Narrower heads (`pca`), narrower MLPs (`cholesky`), low-rank linears (`svd`) or none of these, for every block.

    How the loss of a part grows as it is cut is known from the moments, up to a factor: that of the divergence that this very
    cut causes in the predictions of the whole model, measured at half its cost on a few calibration images. The least total
    loss within the budget is then a multiple-choice knapsack over the attentions and MLPs of all blocks.

    The errors in the rows are those of each cut by itself, before the fit.

    Raises:
        InputError: there are no calibration images, the model is decomposed already, or the target cannot be attained.
    """
    if statistics is None:
        raise InputError("auto: expected calibration statistics, got none", "pass calibration data with --data")
    samples = statistics.require_samples()
    probe = Probe(model, samples.embedded(model, config.probe_images))
    curves = [BlockCurves.of(model, block, statistics) for block in range(len(model.config.blocks))]
    groups = [group for block, curve in enumerate(curves) for group in _groups(model, block, curve, probe, config.width_multiple)]
    dense, least = encoder_macs(model.config, model.config).dense, sum(group[0].macs for group in groups)
    picks = least_loss(groups, budget(dense, least, config.target_macs))
    chosen = [group[pick] for group, pick in zip(groups, picks, strict=True)]
    attentions_and_mlps = zip(chosen[::2], chosen[1::2], strict=True)
    cut = {block: curves[block].at((one + other).sizes) for block, (one, other) in enumerate(attentions_and_mlps)}
    decomposition = narrowed_model(model, cut)
    if not config.refit:
        return decomposition
    fitted = refit(decomposition.model, model, samples.embedded(model), damping=config.damping)
    return Decomposition(fitted, decomposition.layers)


def _groups(
    model: VisionTransformer, block: int, curves: BlockCurves, probe: Probe, multiple: int
) -> tuple[list[Candidate], list[Candidate]]:
    """What can be done with a block's attention, and with its MLP; losses in nats of divergence."""

    def measured(name: str) -> list[Candidate]:
        candidates = curves.candidates(name, multiple)
        tried = middle(candidates)
        if tried.loss <= 0:
            return candidates
        changed = with_blocks(model, {block: curves.at(tried.sizes).change}).blocks[block]
        return scaled(candidates, probe.divergence(block, changed) / tried.loss)

    part = {name: measured(name) for name in (*WIDTHS, *LINEARS)}
    attention = both(part["qk_dim"], part["v_dim"]) + both(part["qkv"], part["proj"])
    return frontier(attention), frontier(part["mlp_dim"] + both(part["fc1"], part["fc2"]))


METHODS.add(
    "auto", Method("auto", "deployable", "pca, cholesky and svd, chosen per layer", AutoConfig, apply, lambda config: True)
)
