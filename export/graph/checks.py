"""Checks of every exported graph, after the last rewrite."""

from __future__ import annotations

from collections import Counter

import onnx

from export.graph.inspect import low_rank_pairs, require_standard_operators
from export.graph.preprocessing import Embedding, tensor_specs
from runtime.bundle.schema import TensorSpec
from vitnla.common.errors import VerdictError
from vitnla.model.config import LINEARS, ViTConfig


def check_graph(model: onnx.ModelProto, config: ViTConfig, embedding: Embedding | None = None) -> None:
    """Check operators, inputs and outputs, and that every low-rank linear of `config` is still two GEMMs.

    Args:
        model: the graph.
        config: of the model that it came from.
        embedding: of preprocessing, where the graph has been given it.

    Raises:
        VerdictError: a check failed; gives the expected and the found value.
    """
    require_standard_operators(model)
    given, answer = tensor_specs(config, embedding)
    _require_shape("input", list(model.graph.input), given)
    _require_shape("output", list(model.graph.output), answer)
    require_low_rank_pairs(model, config)


def require_low_rank_pairs(model: onnx.ModelProto, config: ViTConfig) -> None:
    """Compare the inner widths of the graph's low-rank pairs with the config's ranks.

    Raises:
        VerdictError: a pair was multiplied out to a dense linear, or its width changed.
    """
    expected = Counter(rank for block in config.blocks for name in LINEARS if (rank := getattr(block.ranks, name)) is not None)
    found = Counter(pair.rank for pair in low_rank_pairs(model))
    if missing := expected - found:
        ranks = ", ".join(f"{count} of rank {rank}" for rank, count in sorted(missing.items()))
        raise VerdictError(
            f"expected {expected.total()} low-rank pairs in the graph, got {found.total()}; missing: {ranks}",
            "a graph optimiser multiplied the factors back to a dense matrix; export without the simplifier",
        )


def _require_shape(kind: str, values: list[onnx.ValueInfoProto], spec: TensorSpec) -> None:
    found = {value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
    if found != {spec.name: list(spec.shape)}:
        hint = "the batch must stay dynamic; report this as a bug"
        raise VerdictError(f"expected the graph's only {kind} to be {spec.name} {list(spec.shape)}, got {found}", hint)
