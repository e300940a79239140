"""Narrower MLPs: pivoted Cholesky selects the hidden units to keep, and fc2 is refitted for them.

With C the covariance of fc2's input x, D the norms of fc2's columns, and S the first pivots of D C D (Higham 1990):

    fc1' = fc1[S],  fc2' = fc2 C[:, S] (C[S, S] + lambda I)^-1,  b2' = b2 + fc2 mu - fc2' mu_S

so that x is replaced by its Nystrom interpolation from the units kept (Williams & Seeger 2001), best for the covariance.
Column selection of activations by a pivoted factorisation, with the fit folded into the next layer, is that of Chee et al.
2022 ("Model Preserving Compression for Neural Networks", NeurIPS), who use QR.
"""

from __future__ import annotations

from vitnla.calibration.statistics import Statistics
from vitnla.methods.cholesky.config import CholeskyConfig, choose_widths
from vitnla.methods.parts.narrow_mlp import narrow_mlp
from vitnla.methods.parts.narrowed import narrowed_model
from vitnla.methods.parts.requirements import require_statistics
from vitnla.methods.registry import Decomposition
from vitnla.model.cost import encoder_macs
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: CholeskyConfig) -> Decomposition:
    """Narrow the MLP of every block; attention stays as it is.

    Raises:
        InputError: there are no statistics, an MLP is low-rank or of a kind that does not allow it, a number is not finite, or the target cannot be attained.
    """
    statistics = require_statistics("cholesky", statistics)
    shape = model.config
    mlps = [narrow_mlp(model, block, statistics, config.damping) for block in range(len(shape.blocks))]
    tokens = [shape.tokens] * len(mlps)
    widths = choose_widths([mlp.curve for mlp in mlps], tokens, encoder_macs(shape, shape).dense, config)
    return narrowed_model(model, {block: mlp.at(width) for block, (mlp, width) in enumerate(zip(mlps, widths, strict=True))})
