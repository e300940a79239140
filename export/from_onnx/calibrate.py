"""Statistics of every linear's input, by ONNX Runtime: the inputs are marked as outputs of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.from_onnx.linears import GraphLinear, after_weights, find_linears
from export.from_onnx.session import GraphSession, with_outputs
from export.from_onnx.source import OnnxSource
from runtime.runners.base import Images
from vitnla.common.errors import InputError
from vitnla.data.image_files import Images as Pixels
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.arrays import Float64
from vitnla.linalg.moments import Moments

Progress = Callable[[int, int], None]
MEMORY, BATCH = 256 << 20, 32
"""Largest size of one run's marked outputs in bytes, and largest batch."""


@dataclass(frozen=True, eq=False)
class EncoderLinear:
    """A linear with several tokens per image, and neither a patch embedding nor a head."""

    linear: GraphLinear
    tokens: int

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates per image of the dense linear."""
        return self.tokens * math.prod(self.linear.shape)


def encoder_linears(source: OnnxSource, model: ir.Model, image: tuple[int, int, int]) -> list[EncoderLinear]:
    """Return the encoder's linears of a clone of the source's graph, in node order; one run counts the tokens of each.

    Raises:
        InputError: there are no such linears, or the graph does not run on images [C, H, W].
    """
    candidates = after_weights(find_linears(model))
    if not candidates:
        raise _no_linear(source)
    names = _inputs(candidates)
    batch = source.batch or 1
    found = GraphSession(with_outputs(model, names), source.batch).run(np.zeros((batch, *image), np.float32))
    rows = {name: x.size // x.shape[-1] for name, x in zip(names, found, strict=True)}
    linears = [EncoderLinear(one, rows[str(one.x.name)] // batch) for one in candidates]
    if not (several := [one for one in linears if one.tokens > 1]):
        raise _no_linear(source)
    return several


def collect(
    source: OnnxSource, linears: Sequence[EncoderLinear], images: Pixels, preprocessing: Preprocessing,
    on_progress: Progress = lambda done, total: None,
) -> dict[str, Moments[Float64]]:  # fmt: skip
    """Return value name -> moments, for the inputs of `linears`; linears that share an input share its moments.

    Sums are float64 products of float64 inputs. At most `MEMORY` bytes of inputs are held at a time, or those of one value
    at one batch: by smaller batches, and where the batch is fixed or one image is too much, by several passes over the images.

    Args:
        images: uint8 [N, H, W, C], or files. If the batch is fixed, an incomplete last batch is left out.

    Raises:
        InputError: there are too few images, they do not fit, or an activation is not finite (names the linear).
    """
    if len(images) < (source.batch or 1):
        found = f"expected at least {source.batch or 1} calibration images, got {len(images)}"
        raise InputError(found, "give more with --data, or a graph with a dynamic batch")
    sizes = {str(one.linear.x.name): 4 * one.tokens * one.linear.shape[1] for one in linears}
    batch = source.batch or max(1, min(BATCH, MEMORY // sum(sizes.values())))
    groups = list(_groups(sizes, MEMORY // batch))
    total = len(images) // batch * batch if source.batch else len(images)
    sums: dict[str, _Sum] = {}
    for number, group in enumerate(groups):
        session = GraphSession(with_outputs(source.model, group), source.batch)
        for start in range(0, total, batch):
            part = preprocessing(images[start : min(start + batch, total)])
            for name, x in zip(group, session.run(part), strict=True):
                sums.setdefault(name, _Sum(x.shape[-1])).add(x)
            on_progress((number * total + min(start + batch, total)) // len(groups), total)
    for one in linears:
        sums[str(one.linear.x.name)].require_finite(one.linear.name)
    return {name: found.moments() for name, found in sums.items()}


class _Sum:
    """Running sums of moments over the inputs of a linear."""

    def __init__(self, width: int) -> None:
        self._gram: Float64 = np.zeros((width, width))
        self._sum: Float64 = np.zeros(width)
        self._tokens = 0

    def add(self, inputs: Images) -> None:
        x = inputs.reshape(-1, inputs.shape[-1]).astype(np.float64)
        self._gram += x.T @ x
        self._sum += x.sum(0)
        self._tokens += len(x)

    def require_finite(self, linear: str) -> None:
        if not np.isfinite(self._gram).all():
            hint = "check the weights and the preprocessing"
            raise InputError(f"linear '{linear}': expected finite activations, got NaN or infinity", hint)

    def moments(self) -> Moments[Float64]:
        gram = self._gram / self._tokens
        return Moments((gram + gram.T) / 2, self._sum / self._tokens, self._tokens, sensitivity=1.0)


def _inputs(linears: Sequence[GraphLinear]) -> list[str]:
    return list(dict.fromkeys(str(linear.x.name) for linear in linears))


def _groups(sizes: dict[str, int], limit: int) -> Iterator[list[str]]:
    """Yield the names in order, in groups of total size at most `limit`, or of one name."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[one] for one in group) + size > limit:
            yield group
            group = []
        group.append(name)
    yield group


def _no_linear(source: OnnxSource) -> InputError:
    hint = (
        "expected a Vision Transformer: MatMul or Gemm of tokens with constant float32 weights; --method none exports any graph"
    )
    return InputError(f"{source.spec}: found no linear of an encoder in the graph", hint)
