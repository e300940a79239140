"""Costs and losses of one block at every size of its parts, from the moments alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from vitnla.calibration.statistics import Statistics
from vitnla.linalg.low_rank_curve import LowRankCurve
from vitnla.methods.parts.candidates import Candidate
from vitnla.methods.parts.model_edit import BlockChange, dense_linear
from vitnla.methods.parts.narrow_attention import NarrowAttention, narrow_attention
from vitnla.methods.parts.narrow_mlp import NarrowMlp, narrow_mlp
from vitnla.methods.parts.narrowed import Narrowed
from vitnla.methods.parts.report_rows import affine
from vitnla.model.config import LINEARS, BlockConfig, LinearName
from vitnla.model.cost import linear_macs
from vitnla.model.vit import VisionTransformer

WIDTHS = ("qk_dim", "v_dim", "mlp_dim")


@dataclass(frozen=True, eq=False)
class BlockCurves:
    """Results of `pca`, `cholesky` and `svd` on one block.

    Args:
        config: the block before any change; `dim` the width of the residual stream, `tokens` its length.
    """

    config: BlockConfig
    dim: int
    tokens: int
    attention: NarrowAttention
    mlp: NarrowMlp
    low_rank: Mapping[LinearName, LowRankCurve[Tensor]]

    @classmethod
    def of(cls, model: VisionTransformer, block: int, statistics: Statistics) -> BlockCurves:
        """Decompose every part of a block.

        Raises:
            InputError: a linear is low-rank already, or a number is not finite.
        """
        low_rank = {
            name: LowRankCurve.of(affine(dense_linear(model, (block, name))), statistics.linears[block, name], "centered")
            for name in LINEARS
        }
        config = model.config
        attention, mlp = narrow_attention(model, block, statistics), narrow_mlp(model, block, statistics)
        return cls(config.blocks[block], config.dim, config.tokens, attention, mlp, low_rank)

    def candidates(self, name: str, multiple: int) -> list[Candidate]:
        """Return every size of one part, in multiples of `multiple` (four times that for the MLP), the uncut part last.

        `name` is one of `WIDTHS`, whose linears run narrower, or a linear, which becomes two.
        """
        if name in WIDTHS:
            return list(self._widths(name, multiple))
        return list(self._ranks(name, multiple))  # type: ignore[arg-type]

    def at(self, sizes: Mapping[str, int]) -> Narrowed:
        """Return the block with the parts named in `sizes` cut to these widths and ranks."""
        config = self.config
        attention = self.attention.at(sizes.get("qk_dim", config.qk_dim), sizes.get("v_dim", config.v_dim))
        made = attention | self.mlp.at(sizes.get("mlp_dim", config.mlp_dim))
        for name, curve in self.low_rank.items():
            if name in sizes:
                made |= _low_rank(name, curve, sizes[name])
        return made

    def _widths(self, name: str, multiple: int) -> Iterator[Candidate]:
        macs = self.tokens * self.config.macs_per_unit(self.dim)[name]
        losses: Tensor = {"qk_dim": self.attention.qk_losses, "v_dim": self.attention.v_losses, "mlp_dim": self.mlp.curve.losses}[
            name
        ]
        full, step = len(losses) - 1, multiple * (4 if name == "mlp_dim" else 1)
        for width in range(step, full, step):
            yield Candidate(macs * width, float(losses[width]), {name: width})
        yield Candidate(macs * full, 0.0, {})

    def _ranks(self, name: LinearName, multiple: int) -> Iterator[Candidate]:
        shape, losses = self.config.linear_shapes(self.dim)[name], self.low_rank[name].losses
        dense = linear_macs(shape, None, self.tokens)
        for rank in range(multiple, min(shape), multiple):
            if (macs := linear_macs(shape, rank, self.tokens)) < dense:
                yield Candidate(macs, float(losses[rank]), {name: rank})
        yield Candidate(dense, 0.0, {})


def _low_rank(name: LinearName, curve: LowRankCurve[Tensor], rank: int) -> Narrowed:
    fit = curve.at(rank)
    return Narrowed(BlockChange({name: fit.map}), {name: fit.error}, {name: fit.retained})
