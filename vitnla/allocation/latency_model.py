"""Latency model of a block: the time of a runtime's operators, fitted to measurements of that runtime on that machine."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import nnls

from vitnla.common.schema import Record
from vitnla.model.config import BlockConfig, LinearName

NonNegative = Annotated[float, Field(ge=0)]
LINEAR_TERMS = ("call", "MACs", "inputs", "outputs", "weights")
ATTENTION_TERMS = ("call", "MACs", "scores", "values in and out")
ACTIVATION_TERMS = ("call", "elements")


def linear_terms(rows: int, inputs: int, outputs: int) -> tuple[float, ...]:
    """Return the terms of the time of a [rows, inputs] x [inputs, outputs] product: arithmetic, and memory read and written."""
    return 1.0, rows * inputs * outputs, rows * inputs, rows * outputs, inputs * outputs


def attention_terms(batch: int, heads: int, tokens: int, qk_dim: int, v_dim: int) -> tuple[float, ...]:
    """Return the terms of softmax(Q K^T) V for every head, and of splitting and merging heads."""
    pairs = batch * heads * tokens * tokens
    return 1.0, pairs * (qk_dim + v_dim), pairs, batch * heads * tokens * 2 * (qk_dim + v_dim)


def activation_terms(elements: int) -> tuple[float, ...]:
    """Return the terms of an elementwise function."""
    return 1.0, elements


class LatencyModel(Record):
    """Nanoseconds of one call, as a sum of terms, each with a non-negative coefficient.

    A factorised linear is two calls, each with its own memory traffic, so saving MACs alone need not save time.
    """

    runtime: str
    """Name and version of the runtime."""
    processor: str
    threads: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    linear: tuple[NonNegative, ...]
    """Nanoseconds per `LINEAR_TERMS`."""
    attention: tuple[NonNegative, ...]
    """Nanoseconds per `ATTENTION_TERMS`."""
    activation: tuple[NonNegative, ...]
    """Nanoseconds per `ACTIVATION_TERMS`."""
    error: NonNegative
    """Median relative error on the measurements it was fitted to."""

    def attention_ns(self, block: BlockConfig, dim: int, tokens: int) -> float:
        """Return the predicted nanoseconds of a block's qkv, attention and proj over a batch."""
        core = _sum(self.attention, attention_terms(self.batch, block.heads, tokens, block.qk_dim, block.v_dim))
        return self._linear_ns(block, "qkv", dim, tokens) + core + self._linear_ns(block, "proj", dim, tokens)

    def mlp_ns(self, block: BlockConfig, dim: int, tokens: int) -> float:
        """Return the predicted nanoseconds of a block's fc1, activation and fc2 over a batch."""
        middle = _sum(self.activation, activation_terms(self.batch * tokens * block.mlp_dim))
        return self._linear_ns(block, "fc1", dim, tokens) + middle + self._linear_ns(block, "fc2", dim, tokens)

    def _linear_ns(self, block: BlockConfig, name: LinearName, dim: int, tokens: int) -> float:
        outputs, inputs = block.linear_shapes(dim)[name]
        rank, rows = getattr(block.ranks, name), self.batch * tokens
        if rank is None:
            return _sum(self.linear, linear_terms(rows, inputs, outputs))
        first, second = linear_terms(rows, inputs, rank), linear_terms(rows, rank, outputs)
        return _sum(self.linear, first) + _sum(self.linear, second)


def fit_terms(terms: NDArray[np.float64], nanoseconds: NDArray[np.float64]) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    """Fit non-negative coefficients of least squared *relative* error (Lawson & Hanson 1974); return them and the errors.

    Args:
        terms: [n, k] of n calls.
        nanoseconds: [n], positive, their measured times.
    """
    relative = terms / nanoseconds[:, None]
    scale = np.linalg.norm(relative, axis=0)
    prices = nnls(relative / scale, np.ones(len(terms)))[0] / scale
    return tuple(float(price) for price in prices), np.abs(relative @ prices - 1)


def _sum(prices: tuple[float, ...], terms: tuple[float, ...]) -> float:
    return sum(price * term for price, term in zip(prices, terms, strict=True))
