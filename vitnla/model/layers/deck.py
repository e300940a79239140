"""The slide deck's blocks: decompositions of activations inside `forward`, in every pass.

They reproduce the deck's findings. They add work and save none: the deployable methods decompose weights, once.
Each block is the canonical pre-norm block with one thing changed; X [N, dim] are the tokens that its attention sees, i.e.
after the LayerNorm. Details that the deck does not specify are marked "chosen".

Truncation has two forms of equal result. `exact` takes eigenvectors in float64, with gradients that stay finite where
singular values coincide. `matmul` uses matrix products only, in float32, for graphs: ONNX has no SVD and no Cholesky.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.linalg.symmetric import nearest_psd_factor
from vitnla.linalg.torch.projector import purified_projector, top_projector
from vitnla.model.config import AttentionConfig, BlockConfig, Truncation, ViTConfig
from vitnla.model.layers.attention import ATTENTIONS, Attention


class StoredCholesky(nn.Module):
    """`cholesky-online`: A = X X^T + epsilon I, A = L L^T.

    L is stored in `factor` ([B, N, N] float64, of the last forward pass); the block's output does not depend on it.
    X X^T has rank dim at most, so for more tokens than channels it needs the ridge. Chosen: epsilon is relative to the mean
    of the diagonal, and L has no gradient, since nothing uses it.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return X [B, N, dim] unchanged.

        Raises:
            InputError: A is not positive definite.
        """
        tokens = x.detach().double()
        gram = tokens @ tokens.mT
        diagonal = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=torch.finfo(gram.dtype).tiny)
        ridge = self.epsilon * diagonal[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        self.factor, failed = torch.linalg.cholesky_ex(gram + ridge)
        if failed.any():
            hint = "raise epsilon; NaN in the tokens also ends here"
            raise InputError("cholesky-online: expected x x^T + epsilon I to be positive definite, got one that is not", hint)
        return x


class TruncatedOutput(nn.Module):
    """`svd-online` (the deck's TransformerBlockSVD): Y = U S V^T, Y_r = U_r S_r V_r^T for the attention output Y of each image.

    Residual sum, LayerNorm and the two-layer feed-forward network follow unchanged. Chosen: Y is taken before the residual sum.
    """

    def __init__(self, config: Truncation) -> None:
        super().__init__()
        self.config = config

    def forward(self, y: Tensor) -> Tensor:
        """Compute Y [B, N, dim] -> Y_r [B, N, dim]."""
        return truncate(y, self.config)


class GramScores(nn.Module):
    """Attention scores without weights, A = X X^T, exact or truncated. All heads share them.

    `pca-online`: A_r = m + (A - m) V_r V_r^T, with m [N] the mean row of A and V_r the first r principal components of its
    rows, i.e. the top eigenvectors of (A - m)^T (A - m), for each image separately.

    `tensor-online`: the attention tensor A [B, N, N] of a batch is reshaped to (-1, N), truncated to U_r S_r V_r^T and reshaped
    back: A_r = A V_r V_r^T. Its images share one V_r, so a prediction depends on the other images of its batch. At batch 1
    it is a PCA of A without the mean.

    Chosen: attention is softmax(A_r / sqrt(dim)) W_v x, since the deck's A takes the place of Q K^T.
    """

    def __init__(self, config: Truncation | None) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Compute X [B, N, dim] -> A_r [B, 1, N, N], in float64 in the exact form."""
        x = x.double() if self.config is not None and self.config.form == "exact" else x
        scores = x @ x.mT
        if self.config is not None and self.config.kind == "pca":
            mean = scores.mean(-2, keepdim=True)
            scores = mean + truncate(scores - mean, self.config)
        elif self.config is not None:
            rows = scores.reshape(1, -1, scores.shape[-1])
            scores = truncate(rows, self.config).reshape(scores.shape)
        return scores[:, None]


class CholeskyQueries(nn.Module):
    """`cholesky-symmetric`: S_h = X_h W_h X_h^T with W_h = L_h L_h^T, learned through its factor; attention softmax(S / sqrt(d_k)).

    L_h is lower triangular, d_k (d_k + 1) / 2 parameters per head, and X_h [N, d_k] are the head's own channels of X. As
    S_h = (X_h L_h)(X_h L_h)^T, queries and keys are both X_h L_h. The triangle saves storage only: the product is dense.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.heads, self.width = config.heads, config.qk_dim
        # One vector, not a matrix per head: the rows of a packed triangle mean nothing to an optimiser of matrices.
        self.packed = nn.Parameter(torch.zeros(self.heads * self.width * (self.width + 1) // 2))

    def factors(self) -> Tensor:
        """Return L [heads, d_k, d_k], lower triangular."""
        rows, columns = torch.tril_indices(self.width, self.width, device=self.packed.device)
        lower = self.packed.new_zeros(self.heads, self.width * self.width)
        filled = lower.index_copy(1, rows * self.width + columns, self.packed.reshape(self.heads, -1))
        return filled.reshape(self.heads, self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute X [B, N, heads x d_k] -> X_h L_h [B, heads, N, d_k]."""
        channels = x.reshape(*x.shape[:-1], self.heads, self.width).transpose(-2, -3)
        return channels @ self.factors()


class CholeskyAttention(Attention):
    """Attention of `CholeskyQueries`."""

    def __init__(self, model: ViTConfig, block: BlockConfig) -> None:
        super().__init__(model, block)
        self.queries = CholeskyQueries(block.attention)

    def queries_keys(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the same tensor for queries and keys, from the tokens."""
        queries = self.queries(x)
        return queries, queries

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """Initialise L L^T near the identity, see `Attention.start_scores`; `qkv` has no rows for it."""
        factors = [nearest_psd_factor(near_identity(self.qk_dim)) for _ in range(self.heads)]
        self.queries.packed.copy_(pack_triangles(torch.stack(factors)))
        return []


ATTENTIONS.add("cholesky", CholeskyAttention)


class GramAttention(Attention):
    """Attention of `GramScores`."""

    def __init__(self, model: ViTConfig, block: BlockConfig) -> None:
        super().__init__(model, block)
        online = block.online
        self.scores = GramScores(online if isinstance(online, Truncation) and online.site == "scores" else None)

    def attend(self, x: Tensor, parts: list[Tensor], v: Tensor) -> Tensor:
        """Compute weighted values by head, all heads with the weights softmax(A / sqrt(dim))."""
        weights: Tensor = (self.scores(x) / x.shape[-1] ** 0.5).softmax(-1)
        return weights.to(v.dtype) @ v

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """Return no rows: the scores have no weights."""
        return []


ATTENTIONS.add("gram", GramAttention)


def pack_triangles(factors: Tensor) -> Tensor:
    """Return the lower triangles of [heads, d_k, d_k], in the layout of `CholeskyQueries.packed`."""
    rows, columns = torch.tril_indices(*factors.shape[-2:], device=factors.device)
    return factors[:, rows, columns].reshape(-1)


def truncate(y: Tensor, config: Truncation) -> Tensor:
    """Return the nearest matrix of rank `config.rank` to each [..., m, n], in its own dtype; y itself if its rank is no larger.

    The result is Y P with P = V_r V_r^T from the top eigenvectors of Y^T Y, or P Y with P = U_r U_r^T where m < n.
    """
    rows, columns = y.shape[-2:]
    if config.rank >= min(rows, columns):
        return y
    if rows < columns:
        return truncate(y.mT, config).mT
    if config.form == "matmul":
        return y @ purified_projector(y.mT @ y, config.rank)
    wide = y.double()
    return y @ top_projector(wide.mT @ wide, config.rank).to(y.dtype)
