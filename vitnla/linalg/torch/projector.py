"""The orthogonal projector onto the top eigenvectors of a symmetric matrix: with safe gradients, or by matrix products alone.

A truncated SVD of Y is P Y with P = `top_projector(Y Y^T, r)`, so a projector is all that a truncation needs. It stays
well defined where singular vectors do not: for equal values on one side of the cut they may rotate, P does not change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop  # no public name yet; torch.onnx writes it as an ONNX Loop

from vitnla.common.errors import InputError

BROADENING = 1e-4
"""Gaps between eigenvalues below this share of the largest count as none in gradients."""
STEPS, POLISHING_STEPS = 60, 2
_SETTLED, _RIDGE = 1e-3, 1e-6


def top_projector(matrix: Tensor, rank: int) -> Tensor:
    """P = V_r V_r^T, V_r the eigenvectors of the `rank` largest eigenvalues, by `torch.linalg.eigh` in float64.

    The derivative couples only a kept eigenvector i with a cut one j: dP = sum v_i v_i^T dG v_j v_j^T / (l_i - l_j) + its
    transpose. So equal eigenvalues on one side of the cut do no harm, unlike in the derivative of `torch.linalg.svd`. Across
    the cut 1/g becomes g / (g^2 + delta^2), the Lorentzian broadening of Liao et al. 2019 ("Differentiable programming tensor
    networks", Phys. Rev. X 9, 031041), delta = `BROADENING` x the largest eigenvalue: gradients are finite for every input.

    Args:
        matrix: [..., n, n], symmetric positive semidefinite; any float type.
        rank: 1 to n; n gives the identity.

    Returns:
        [..., n, n] float64.

    Raises:
        InputError: a number is not finite.
    """
    try:
        projector: Tensor = _TopProjector.apply(matrix.double(), rank)  # type: ignore[no-untyped-call]
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        hint = "check the weights and the preprocessing, or train with a lower learning rate"
        raise InputError("eigenvectors of activations: expected finite numbers, got NaN or infinity", hint) from error
    return projector


def purified_projector(matrix: Tensor, rank: int, steps: int = STEPS) -> Tensor:
    """The same P by matrix products alone, in the matrix's own float type: trace-correcting purification.

    Niklasson 2002 ("Expansion algorithm for the density matrix", Phys. Rev. B 66, 155115): with X scaled into [0, 1], X <- X^2
    where tr X > rank, else 2X - X^2, drives the `rank` largest eigenvalues to 1 and the others to 0, quadratically in the end.
    Once X is nearly idempotent it is held, since rounding would grow, and polished by McWeeny's 3X^2 - 2X^3. No eigenvector,
    inverse or data-dependent branch is needed, so ONNX can hold it. The steps it takes grow with log(largest / gap at the cut);
    without a gap there is no such P and the result is not a projector.

    Args:
        matrix: [..., n, n], symmetric positive semidefinite.
        rank: 1 to n - 1.
        steps: a fixed number, since the graph is static.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    # P does not depend on the scale, so no gradient passes through it.
    scale = matrix.detach().square().sum((-2, -1), keepdim=True).sqrt().clamp(min=tiny)
    # The ridge keeps eigenvalues that are zero up to rounding from being negative, which 2X - X^2 would double at every step.
    x = (matrix / scale + _RIDGE * identity) / (1 + _RIDGE)

    def step(x: Tensor) -> Tensor:
        square = x @ x
        trace = (x * identity).sum((-2, -1), keepdim=True)
        excess = trace - (square * identity).sum((-2, -1), keepdim=True)
        settled = ((trace - rank).abs() < 0.5) & (excess < _SETTLED)
        return torch.where(settled, x, torch.where(trace > rank, square, 2 * x - square))

    x = _repeat(step, x, steps)
    for _ in range(POLISHING_STEPS):
        square = x @ x
        x = 3 * square - 2 * square @ x
    return x


def _repeat(step: Callable[[Tensor], Tensor], x: Tensor, times: int) -> Tensor:
    """x after so many steps; one loop in an exported graph, which would otherwise hold every step of every block."""
    if not torch.compiler.is_exporting():
        for _ in range(times):
            x = step(x)
        return x
    start = torch.zeros((), dtype=torch.int64)
    _, last = while_loop(  # type: ignore[no-untyped-call]
        lambda done, x: done < times, lambda done, x: (done + 1, step(x)), (start, x)
    )
    looped: Tensor = last
    return looped


class _TopProjector(torch.autograd.Function):
    """`top_projector` and its derivative; `matrix` is float64."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, rank: int) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        ctx.rank = rank
        kept = vectors[..., -rank:]
        projector: Tensor = kept @ kept.mT
        return projector

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        values, vectors = ctx.saved_tensors
        cut = values.shape[-1] - ctx.rank
        largest = values[..., -1:, None].abs().clamp(min=sys.float_info.min)
        gap = (values[..., None, cut:] - values[..., :cut, None]) / largest
        inverse = gap / (gap.square() + BROADENING**2) / largest
        lost, kept = vectors[..., :cut], vectors[..., cut:]
        half = lost @ (inverse * (lost.mT @ (gradient + gradient.mT) @ kept)) @ kept.mT
        return (half + half.mT) / 2, None
