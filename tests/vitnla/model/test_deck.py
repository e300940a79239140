"""The deck's blocks: what each computes, that its gradients are finite, and that its two forms agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.linalg.torch.projector import purified_projector, top_projector
from vitnla.model import VisionTransformer, ViTConfig
from vitnla.model.config import CholeskyAttentionConfig, StoredFactor, Truncation
from vitnla.model.layers.deck import CholeskyQueries, GramScores, StoredCholesky, pack_triangles, truncate
from vitnla.training.initialise import new_model

TOKENS, DIM = 5, 16


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_rotation(values: list[float], seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues."""
    vectors = torch.linalg.qr(random(len(values), len(values), seed=seed))[0]
    return (vectors * torch.tensor(values, dtype=torch.float64)) @ vectors.T


def variant(config: ViTConfig, **changes: Any) -> ViTConfig:
    blocks = [block.changed(**changes).model_dump() for block in config.blocks]
    return ViTConfig.model_validate(config.model_dump() | {"blocks": blocks})


def images(batch: int = 3) -> Tensor:
    return random(batch, 1, 8, 8, seed=7).float()


ONLINE: dict[str, dict[str, Any]] = {
    "cholesky-online": {"online": StoredFactor()},
    "svd-online": {"online": Truncation(kind="svd", rank=2)},
    "pca-online": {"attention": "gram", "online": Truncation(kind="pca", rank=2)},
    "tensor-online": {"attention": "gram", "online": Truncation(kind="tensor", rank=2)},
    "gram": {"attention": "gram"},
    "cholesky-symmetric": {"attention": "cholesky"},
    "symmetric": {"attention": "symmetric"},
}


@pytest.mark.parametrize("name", list(ONLINE))
def test_every_form_runs_learns_and_round_trips(tiny_config: ViTConfig, name: str) -> None:
    config = variant(tiny_config, **ONLINE[name])
    assert ViTConfig.model_validate_json(config.to_json()) == config
    model = new_model(config, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images())
    logits.float().square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    moved = [key for key, p in model.named_parameters() if p.grad.abs().max() > 0 and key.startswith("blocks.0.attn")]
    assert moved


def test_a_checkpoint_written_before_these_forms_is_a_standard_one(tiny_config: ViTConfig) -> None:
    old = tiny_config.model_dump()
    for block in old["blocks"]:
        del block["attention"], block["online"]
    assert ViTConfig.model_validate(old) == tiny_config


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"online": {"kind": "pca", "rank": 2}}, "truncates the scores of attention 'gram'"),
        ({"online": {"kind": "svd", "rank": 6}}, r"blocks.0.online: rank must be at most 5, but got 6"),
        ({"online": {"kind": "svd"}}, "rank"),
        ({"online": {"kind": "cholesky", "epsilon": 0}}, "greater than 0"),
        ({"online": {"kind": "lu"}}, "lu"),
        ({"attention": "cholesky", "qk_dim": 4}, "splits dim 16 into heads, but got 8"),
        ({"attention": "linear"}, "attention"),
    ],
)
def test_impossible_forms_are_refused(tiny_config: ViTConfig, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        variant(tiny_config, **changes)


class TestCholesky:
    def test_the_factor_is_stored_and_changes_nothing(self, tiny_model: VisionTransformer) -> None:
        stored = VisionTransformer(variant(tiny_model.config, **ONLINE["cholesky-online"])).eval()
        stored.load_state_dict(tiny_model.state_dict())
        torch.testing.assert_close(stored(images()), tiny_model(images()), rtol=0, atol=0)
        factor = stored.blocks[0].store.factor
        x = tiny_model.blocks[0].norm1(tiny_model.embed(images())).double()
        gram = x @ x.mT
        ridge = 1e-3 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(TOKENS)
        torch.testing.assert_close(factor @ factor.mT, gram + ridge, rtol=1e-10, atol=1e-10)
        assert torch.equal(factor, factor.tril())

    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
    @pytest.mark.parametrize("rank", [0, 1, 3])
    def test_singular_tokens_have_a_factor_at_any_scale(self, scale: float, rank: int) -> None:
        tokens = scale * random(2, 9, rank) @ random(rank, 4, seed=1)
        store = StoredCholesky(1e-3)
        assert store(tokens) is tokens
        assert store.factor is not None
        assert torch.isfinite(store.factor).all()

    def test_nan_is_named(self) -> None:
        with pytest.raises(InputError, match="positive definite"):
            StoredCholesky(1e-3)(torch.full((1, 3, 2), torch.nan))

    def test_symmetric_scores_are_those_of_the_triangle(self) -> None:
        queries = CholeskyQueries(CholeskyAttentionConfig(heads=2, qk_dim=3, v_dim=3)).double()
        assert queries.packed.shape == (2 * 3 * 4 // 2,)
        lower = random(2, 3, 3).tril()
        with torch.no_grad():
            queries.packed.copy_(pack_triangles(lower))
        x = random(2, 4, 6, seed=1)
        q = queries(x)
        for head in range(2):
            own = x[..., 3 * head : 3 * head + 3]
            expected = own @ (lower[head] @ lower[head].T) @ own.mT
            torch.testing.assert_close(q[:, head] @ q[:, head].mT, expected, rtol=1e-12, atol=1e-12)


class TestTruncation:
    @pytest.mark.parametrize("shape", [(2, 4, 7), (2, 7, 4), (5, 5)])
    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
    def test_it_is_the_truncated_svd(self, shape: tuple[int, ...], scale: float) -> None:
        y = scale * random(*shape)
        left, values, right = torch.linalg.svd(y, full_matrices=False)
        expected = (left[..., :2] * values[..., None, :2]) @ right[..., :2, :]
        for form in ("exact", "matmul"):
            found = truncate(y, Truncation(kind="svd", rank=2, form=form))
            assert (found - expected).norm() <= 1e-10 * expected.norm()

    def test_full_rank_is_the_matrix_itself(self) -> None:
        y = random(3, 4, 7)
        for rank in (4, 5):
            assert truncate(y, Truncation(kind="svd", rank=rank)) is y

    @pytest.mark.parametrize("name", ["pca", "tensor"])
    def test_scores_at_full_rank_are_the_gram_matrix(self, name: Any) -> None:
        x = random(3, TOKENS, DIM)
        found = GramScores(Truncation(kind=name, rank=TOKENS))(x)[:, 0]
        torch.testing.assert_close(found, x @ x.mT, rtol=1e-10, atol=1e-10)

    def test_pca_is_that_of_the_centred_rows(self) -> None:
        x = random(2, TOKENS, DIM)
        found = GramScores(Truncation(kind="pca", rank=2))(x)[:, 0]
        for image, scores in zip(x, found, strict=True):
            gram = image @ image.T
            mean = gram.mean(0)
            left, values, right = torch.linalg.svd(gram - mean)
            expected = mean + (left[:, :2] * values[:2]) @ right[:2]
            torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-10)

    def test_tensor_is_the_svd_of_all_images_below_each_other(self) -> None:
        x = random(3, TOKENS, DIM)
        found = GramScores(Truncation(kind="tensor", rank=2))(x)[:, 0]
        left, values, right = torch.linalg.svd((x @ x.mT).reshape(-1, TOKENS), full_matrices=False)
        expected = ((left[:, :2] * values[:2]) @ right[:2]).reshape(3, TOKENS, TOKENS)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize(("name", "depends"), [("pca-online", False), ("svd-online", False), ("tensor-online", True)])
    def test_only_the_tensor_row_depends_on_its_batch(self, tiny_config: ViTConfig, name: str, depends: bool) -> None:
        model = new_model(variant(tiny_config, **ONLINE[name]), seed=1).eval()
        batch = images(4)
        with torch.inference_mode():
            together, alone = model(batch), torch.cat([model(image[None]) for image in batch])
        difference = float((together - alone).abs().max() / together.abs().max())
        assert difference > 1e-3 if depends else difference < 1e-5


class TestProjector:
    def test_derivative_is_that_of_finite_differences(self) -> None:
        y = random(2, 4, 6).requires_grad_()
        assert torch.autograd.gradcheck(lambda y: truncate(y, Truncation(kind="svd", rank=2)), (y,), atol=1e-6)
        assert torch.autograd.gradcheck(lambda y: truncate(y.mT, Truncation(kind="svd", rank=2)), (y,), atol=1e-6)

    def test_equal_kept_values_do_not_disturb_the_derivative(self) -> None:
        """The case where that of `torch.linalg.svd` is NaN."""
        matrix = with_rotation([3.0, 3.0, 1.0, 1.0]).requires_grad_()
        probe = random(4, 4, seed=2)
        (top_projector(matrix, 2) * probe).sum().backward()
        step = with_rotation([1.0, 2.0, -1.0, 0.5], seed=3)
        h = 1e-5
        with torch.no_grad():
            shifted = [(top_projector(matrix + sign * h * step, 2) * probe).sum() for sign in (1, -1)]
        assert (matrix.grad * step).sum() == pytest.approx(float(shifted[0] - shifted[1]) / (2 * h), rel=1e-4)

    @pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1e16, 1e-16, 0.0]])
    @pytest.mark.parametrize("form", ["exact", "matmul"])
    def test_gradients_are_finite_on_degenerate_inputs(self, values: list[float], form: Any) -> None:
        y = with_rotation(values).requires_grad_()
        truncated = truncate(y, Truncation(kind="svd", rank=2, form=form))
        truncated.square().sum().backward()
        assert torch.isfinite(truncated).all()
        assert torch.isfinite(y.grad).all()

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.floats(0.0, 0.9), min_size=1, max_size=5), st.lists(st.floats(1.0, 20.0), min_size=1, max_size=5),
        st.sampled_from([1e-8, 1.0, 1e8]),
    )  # fmt: skip
    def test_matrix_products_find_the_same_projector(self, cut: list[float], kept: list[float], scale: float) -> None:
        matrix = scale * with_rotation([*cut, *kept])
        exact = top_projector(matrix, len(kept))
        torch.testing.assert_close(exact @ exact, exact, rtol=0, atol=1e-10)
        torch.testing.assert_close(purified_projector(matrix, len(kept)), exact, rtol=0, atol=1e-7)
        torch.testing.assert_close(purified_projector(matrix.float(), len(kept)).double(), exact, rtol=0, atol=2e-4)

    def test_the_remaining_steps_do_not_undo_it(self) -> None:
        matrix = with_rotation([0.1, 0.2, 1.0, 2.0]).float()
        torch.testing.assert_close(
            purified_projector(matrix, 2, steps=500), purified_projector(matrix, 2, steps=30), rtol=0, atol=1e-6
        )

    def test_without_a_gap_it_is_no_projector(self) -> None:
        found = purified_projector(with_rotation([1.0, 1.0, 1.0]), 1)
        assert (found @ found - found).norm() > 0.01

    def test_nan_is_named(self) -> None:
        with pytest.raises(InputError, match="finite"):
            top_projector(torch.full((3, 3), torch.nan), 1)


@pytest.mark.parametrize("name", list(ONLINE))
def test_the_exportable_form_has_the_same_logits(tiny_config: ViTConfig, name: str) -> None:
    model = new_model(variant(tiny_config, **ONLINE[name]), seed=1).eval()
    exportable = model.exportable()
    assert (exportable is model) == (name in ("gram", "cholesky-symmetric", "symmetric"))
    assert not exportable.training
    expected = model(images())
    torch.testing.assert_close(exportable(images()), expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))
