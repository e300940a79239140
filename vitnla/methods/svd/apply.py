"""Low-rank linears: each weight as the product of two thin ones, optimal for the calibration inputs."""

from __future__ import annotations

from vitnla.calibration.statistics import Statistics
from vitnla.linalg.low_rank_curve import LowRankCurve
from vitnla.methods.parts.model_edit import dense_linear, with_low_rank
from vitnla.methods.parts.report_rows import affine, layer_row
from vitnla.methods.parts.requirements import require_statistics
from vitnla.methods.registry import Decomposition
from vitnla.methods.svd.config import SvdConfig, choose_ranks
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: SvdConfig) -> Decomposition:
    """Replace every linear that gets a rank by its best approximation of that rank.

    Raises:
        InputError: there are no statistics, the model is decomposed already, a weight is not finite, or the ranks asked for
            cannot be had.
    """
    moments = require_statistics("svd", statistics).linears
    keys = model.linear_names()
    curves = [LowRankCurve.of(affine(dense_linear(model, key)), moments[key], config.weighting) for key in keys]
    names = [f"block {block} {name}" for block, name in keys]
    ranks = choose_ranks(names, curves, [model.config.tokens] * len(keys), config)
    fits = {key: curve.at(rank) for key, curve, rank in zip(keys, curves, ranks, strict=True) if rank is not None}
    decomposed = with_low_rank(model, {key: fit.map for key, fit in fits.items()})
    rows = {key: layer_row(decomposed.config, *key) for key in keys}
    rows |= {key: layer_row(decomposed.config, *key, fit.error, fit.retained) for key, fit in fits.items()}
    return Decomposition(decomposed, tuple(rows.values()))
