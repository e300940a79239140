"""The slide deck's blocks: decompositions of activations inside `forward`, at every step.

They are here to reproduce the deck's findings. They add work and save none: the deployable methods decompose weights, once.
Each block is the canonical pre-norm block with one thing changed; X [N, dim] are the tokens that its attention sees, i.e.
after the LayerNorm. What the record of the deck leaves open is settled here and marked "chosen".

Truncations have two forms of equal result. `exact` takes eigenvectors in float64, with gradients that stay finite where
singular values coincide. `matmul` has nothing but matrix products, in float32, for graphs: ONNX has no SVD and no Cholesky.
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

    L stands in `factor` ([B, N, N] float64, of the last forward pass) beside the block's output, which does not depend on it.
    X X^T has rank dim at most, so for more tokens than channels it needs the ridge. Chosen: epsilon is relative to the mean
    of the diagonal, and L takes part in no gradient, since nothing uses it.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """X [B, N, dim] as it came.

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

    Then the residual sum, LayerNorm and the two-layer feed-forward network as ever. Chosen: Y is taken before the residual sum.
    """

    def __init__(self, config: Truncation) -> None:
        super().__init__()
        self.config = config

    def forward(self, y: Tensor) -> Tensor:
        """Y [B, N, dim] -> Y_r [B, N, dim]."""
        return truncate(y, self.config)


class GramScores(nn.Module):
    """Attention scores without weights, A = X X^T, as they are or truncated. Every head has the same.

    `pca-online`: A_r = m + (A - m) V_r V_r^T, with m [N] the mean row of A and V_r the first r principal components of its
    rows, i.e. the top eigenvectors of (A - m)^T (A - m), for each image by itself.

    `tensor-online`: the attention tensor A [B, N, N] of a batch is reshaped to (-1, N), truncated to U_r S_r V_r^T and reshaped
    back: A_r = A V_r V_r^T. Its images share one V_r, so a prediction depends on the batch that an image comes in. At batch 1
    it is a PCA of A without the mean.

    Chosen: attention is softmax(A_r / sqrt(dim)) W_v x, since the deck's A takes the place of Q K^T.
    """

    def __init__(self, config: Truncation | None) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """X [B, N, dim] -> A_r [B, 1, N, N], in float64 in the exact form."""
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
        """L [heads, d_k, d_k], lower triangular."""
        rows, columns = torch.tril_indices(self.width, self.width, device=self.packed.device)
        lower = self.packed.new_zeros(self.heads, self.width * self.width)
        filled = lower.index_copy(1, rows * self.width + columns, self.packed.reshape(self.heads, -1))
        return filled.reshape(self.heads, self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, N, heads x d_k] -> X_h L_h [B, heads, N, d_k]."""
        channels = x.reshape(*x.shape[:-1], self.heads, self.width).transpose(-2, -3)
        return channels @ self.factors()


class CholeskyAttention(Attention):
    """Attention of `CholeskyQueries`."""

    def __init__(self, model: ViTConfig, block: BlockConfig) -> None:
        super().__init__(model, block)
        self.queries = CholeskyQueries(block.attention)

    def queries_keys(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The same for both, from the tokens."""
        queries = self.queries(x)
        return queries, queries

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """L L^T near the identity, see `Attention.start_scores`; `qkv` has no rows for it."""
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
        """Weighted values by head, all heads with the weights softmax(A / sqrt(dim))."""
        weights: Tensor = (self.scores(x) / x.shape[-1] ** 0.5).softmax(-1)
        return weights.to(v.dtype) @ v

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """Nothing: the scores have no weights."""
        return []


ATTENTIONS.add("gram", GramAttention)


def pack_triangles(factors: Tensor) -> Tensor:
    """Lower triangles of [heads, d_k, d_k], as `CholeskyQueries.packed` holds them."""
    rows, columns = torch.tril_indices(*factors.shape[-2:], device=factors.device)
    return factors[:, rows, columns].reshape(-1)


def truncate(y: Tensor, config: Truncation) -> Tensor:
    """The nearest matrix of rank `config.rank` to each [..., m, n], in its own float type; y itself where it has no more.

    Y P with P = V_r V_r^T from the top eigenvectors of Y^T Y, or P Y with P = U_r U_r^T where m < n.
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
