"""Low-rank linears: each weight as the product of two thin ones, best for the inputs that calibration saw."""

from __future__ import annotations

from vitnla.allocation import LayerOptions
from vitnla.calibration.statistics import Statistics
from vitnla.methods.parts.linear_curve import LowRankCurve
from vitnla.methods.parts.model_edit import Key, dense_linear, with_low_rank
from vitnla.methods.parts.report_rows import layer_row
from vitnla.methods.parts.requirements import require_statistics
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.methods.svd.config import SvdConfig, allocate
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: SvdConfig) -> Decomposition:
    """Replace every linear that gets a rank by its best approximation of that rank.

    Raises:
        InputError: there are no statistics, the model is decomposed already, a weight is not finite, or the ranks asked for
            cannot be had.
    """
    moments = require_statistics("svd", statistics).linears
    curves = {key: LowRankCurve.of(dense_linear(model, key), moments[key], config.weighting) for key in model.linear_names()}
    ranks = allocate([_options(model.config, key, curve) for key, curve in curves.items()], config)
    chosen = {key: rank for key, rank in zip(curves, ranks, strict=True) if rank is not None}
    replacements = {key: curves[key].at(rank) for key, rank in chosen.items()}
    decomposed = with_low_rank(model, replacements)
    rows = {key: layer_row(decomposed.config, *key) for key in curves}
    for key, new in replacements.items():
        curve = curves[key]
        rows[key] = layer_row(decomposed.config, *key, curve.relative_error(new), curve.retained(new.factors.rank))
    return Decomposition(decomposed, tuple(rows.values()))


def _options(config: ViTConfig, key: Key, curve: LowRankCurve) -> LayerOptions:
    block, name = key
    shape = config.blocks[block].linear_shapes(config.dim)[name]
    return LayerOptions(f"block {block} {name}", shape, config.tokens, curve.curve.basis.energies, curve.curve.lost)


METHODS.add(
    "svd", Method("svd", "deployable", "Low-rank linears, best for the calibration inputs", SvdConfig, apply, lambda config: True)
)
