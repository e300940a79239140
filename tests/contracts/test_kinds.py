"""The contract of every kind of attention, MLP and position, over the registries: a new kind is tested by being there."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import vitnla.model.config as kinds_of_config
from export.latency.operators import ACTIVATION_GRAPHS, ATTENTION_GRAPHS, operators
from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.parts.narrow_attention import joined, narrow_attention, narrow_scores
from vitnla.methods.parts.narrow_mlp import narrow_mlp
from vitnla.model import LINEARS, VisionTransformer, ViTConfig, load_checkpoint, save_checkpoint
from vitnla.model.config import (
    ALLOWED,
    ATTENTION_KINDS,
    MLP_KINDS,
    POSITION_KINDS,
    AttentionConfig,
    BlockConfig,
    MlpConfig,
    Permission,
    PlainMlpConfig,
    PositionConfig,
    Ranks,
    StandardAttentionConfig,
)
from vitnla.model.config.parts import UNDECLARED, BlockPart
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.model.layers import ATTENTIONS, MLPS, TABLES, Attention, Block, PlainMlp, StandardAttention
from vitnla.training.config import TrainConfig
from vitnla.training.initialise import new_model
from vitnla.training.supervised import train

ROOT = Path(__file__).parents[2]
PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
SHAPE = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=48, depth=1, heads=2, mlp_ratio=2.0)

SCORES = ("auto", "cholesky-symmetric", "pca", "pca-online", "symmetric", "tensor", "tensor-online")
"""Methods that change where a head's scores come from, or their width."""
UNITS = ("auto", "cholesky")
"""Methods that leave out hidden units."""


class OpaqueAttentionConfig(StandardAttentionConfig):
    """What a new kind is before it declares anything."""

    kind: Literal["opaque"] = "opaque"  # type: ignore[assignment]
    can_narrow_scores: ClassVar[Permission] = UNDECLARED
    can_narrow_values: ClassVar[Permission] = UNDECLARED
    can_slice_stream: ClassVar[Permission] = UNDECLARED


class OpaqueMlpConfig(PlainMlpConfig):
    kind: Literal["opaque"] = "opaque"  # type: ignore[assignment]
    can_narrow_units: ClassVar[Permission] = UNDECLARED
    can_slice_stream: ClassVar[Permission] = UNDECLARED


class UnknownPositionConfig(PositionConfig):
    """Positions that a model is built with and that say nothing of themselves; `in_attention` would refuse every attention."""

    kind: Literal["unknown"] = "unknown"
    in_attention: ClassVar[bool] = False


class HarmlessPositionConfig(UnknownPositionConfig):
    kind: Literal["harmless"] = "harmless"  # type: ignore[assignment]
    can_narrow_scores: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = ALLOWED


class TurningPositionConfig(PositionConfig):
    kind: Literal["turning"] = "turning"


@pytest.fixture(autouse=True)
def _extra_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, item in (
        (ATTENTION_KINDS, OpaqueAttentionConfig), (ATTENTIONS, StandardAttention), (MLP_KINDS, OpaqueMlpConfig), (MLPS, PlainMlp),
    ):  # fmt: skip
        monkeypatch.setitem(registry._items, "opaque", cast(Any, item))
    for config in (UnknownPositionConfig, HarmlessPositionConfig, TurningPositionConfig):
        kind = config.model_fields["kind"].default
        monkeypatch.setitem(POSITION_KINDS._items, kind, config)
        monkeypatch.setitem(TABLES._items, kind, lambda config: None)


REGISTERED = list(ATTENTION_KINDS)
ATTENTION = [*REGISTERED, "opaque"]
MLP = [*MLP_KINDS, "opaque"]


def shape_of(**changes: Any) -> ViTConfig:
    """One block with some fields changed, such as the kind of its attention."""
    position = changes.pop("position", None)
    config = {**dict(SHAPE), "blocks": [SHAPE.blocks[0].changed(**changes)]}
    return ViTConfig.model_validate(config | ({} if position is None else {"position": {"kind": position}}))


def model_of(**changes: Any) -> VisionTransformer:
    return new_model(shape_of(**changes), seed=1).eval()


@functools.lru_cache(maxsize=1)
def statistics_of(model: VisionTransformer) -> Statistics:
    return collect(model, IMAGES, PREPROCESSING)


def apply(name: str, model: VisionTransformer) -> VisionTransformer:
    method = METHODS[name]
    config = method.config()
    return method.apply(model, statistics_of(model) if method.needs_statistics(config) else None, config).model


def parts(block: BlockConfig) -> tuple[BlockPart, BlockPart]:
    return block.attention, block.mlp


@pytest.mark.parametrize("changes", [*({"attention": kind} for kind in ATTENTION), *({"mlp": kind} for kind in MLP)], ids=str)
class TestEveryKind:
    def test_it_round_trips_and_names_itself(self, changes: dict[str, str], tmp_path: Path) -> None:
        model = model_of(**changes)
        assert ViTConfig.model_validate_json(model.config.to_json()) == model.config
        ((field, kind),) = changes.items()
        assert getattr(model.config.blocks[0], field).kind == kind
        save_checkpoint(model, tmp_path / "saved")
        assert load_checkpoint(tmp_path / "saved").config == model.config

    def test_its_linears_and_parameters_are_those_of_its_layer(self, changes: dict[str, str]) -> None:
        model = model_of(**changes)
        block = model.config.blocks[0]
        shapes = block.linear_shapes(model.config.dim)
        assert list(shapes) == list(LINEARS)
        for name, shape in shapes.items():
            assert tuple(model.linear(0, name).weight.shape) == shape
        layer = cast(Block, model.blocks[0])
        held = sum(p.numel() for part in (layer.attn, layer.mlp) for p in part.parameters())
        assert encoder_parameters(model.config, model.config).model == held

    def test_its_largest_ranks_are_accepted_and_larger_ones_are_not(self, changes: dict[str, str]) -> None:
        block = shape_of(**changes).blocks[0]
        for part in parts(block):
            largest = part.largest_ranks(SHAPE.dim)
            for name in part.linears(SHAPE.dim):
                if name in largest:
                    VisionTransformer(shape_of(**changes, ranks=Ranks(**{name: largest[name]})))
                with pytest.raises(ValidationError, match=rf"blocks\.0\.{name}: "):
                    shape_of(**changes, ranks=Ranks(**{name: largest.get(name, 0) + 1}))

    def test_a_unit_of_width_costs_what_it_says(self, changes: dict[str, str]) -> None:
        config = shape_of(**changes)
        block = config.blocks[0]
        for name, macs in block.macs_per_unit(config.dim).items():
            narrower = config.model_copy(update={"blocks": (block.resized({name: getattr(block, name) - 1}),)})
            cost = encoder_macs(narrower, config)
            assert cost.dense - cost.model == macs * config.tokens

    def test_it_learns_from_a_start(self, changes: dict[str, str]) -> None:
        model = model_of(**changes)
        model(torch.from_numpy(PREPROCESSING(IMAGES[:4]))).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())

    def test_the_stream_is_sliced_or_it_is_refused(self, changes: dict[str, str]) -> None:
        model = model_of(**changes)
        if model.config.can_slice_stream(0):
            assert apply("pca-slice", model).config.dim < SHAPE.dim
            return
        with pytest.raises(InputError, match="pca-slice: block 0: expected a block that reads and writes the stream"):
            apply("pca-slice", model)


def scores(attention: Attention, x: Tensor) -> Tensor:
    """About their mean over the keys, which softmax does not see: [B, heads, N, N]."""
    *before, _ = attention.qkv(x).split(attention.widths, dim=-1)
    queries, keys = attention.queries_keys(x, before)
    products = queries @ keys.mT / queries.shape[-1] ** 0.5
    return products - products.mean(-1, keepdim=True)


@torch.no_grad()
def full_width_cut(model: VisionTransformer) -> tuple[Attention, Attention, Tensor]:
    """The first attention, the same narrowed to the widths that it has, and tokens, all in float64."""
    found = narrow_attention(model, 0, statistics_of(model))
    block = model.config.blocks[0]
    values, proj, _ = found.narrow_values(block.v_dim)
    qkv = joined(narrow_scores(found.heads, found.scores, block.qk_dim), values)
    old, new = (cast(Block, VisionTransformer(model.config).blocks[0]).attn.double() for _ in range(2))
    old.load_state_dict(cast(Block, model.blocks[0]).attn.state_dict())
    new.load_state_dict(old.state_dict())
    for name, change in (("qkv", qkv), ("proj", proj)):
        linear = getattr(new, name)
        assert not torch.allclose(linear.weight, change.weight)
        linear.weight.copy_(change.weight)
        linear.bias.copy_(change.bias)
    x = torch.randn(3, model.config.tokens, model.config.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return old, new, x


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_full_width_cut_of_an_attention_changes_nothing_or_is_refused(kind: str) -> None:
    model = model_of(attention=kind)
    if model.config.can_narrow_scores(0):
        # Narrow heads, so that the tokens of a few images have every direction of a head.
        old, new, x = full_width_cut(model_of(attention=kind, qk_dim=4, v_dim=4))
        torch.testing.assert_close(scores(new, x), scores(old, x), rtol=0, atol=1e-10)
        torch.testing.assert_close(new(x), old(x), rtol=0, atol=1e-10)
        return
    for name in SCORES:
        with pytest.raises(InputError, match=rf"^block 0: expected (scores|values) .*, got attention '{kind}': .+"):
            apply(name, model)


@pytest.mark.parametrize("kind", [kind for kind in REGISTERED if not ATTENTION_KINDS[kind].can_narrow_scores])
def test_other_methods_do_not_mind_how_scores_are_made(kind: str) -> None:
    model = model_of(attention=kind)
    for name in sorted(set(METHODS) - {*SCORES, "pca-slice"}):
        assert apply(name, model).config.blocks[0].attention == model.config.blocks[0].attention


@pytest.mark.parametrize("kind", MLP)
def test_a_full_width_cut_of_an_mlp_changes_nothing_or_is_refused(kind: str) -> None:
    model = model_of(mlp=kind, mlp_dim=8)
    if not model.config.can_narrow_units(0):
        for name in UNITS:
            with pytest.raises(InputError, match=rf"^block 0: expected an MLP whose hidden units .*, got MLP '{kind}': .+"):
                apply(name, model)
        return
    narrow = narrow_mlp(model, 0, statistics_of(model), damping=1e-15)
    whole = narrow.curve.at(8)
    fc2 = model.linear(0, "fc2")
    assert whole.kept.tolist() == list(range(8))
    np.testing.assert_allclose(whole.second.weight, fc2.weight.detach().double().numpy(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(whole.second.bias, fc2.bias.detach().double().numpy(), rtol=0, atol=1e-10)
    x = torch.randn(2, 5, SHAPE.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mlp = cast(Block, model.blocks[0]).mlp.double()
    second = whole.second.weight, whole.second.bias
    torch.testing.assert_close(torch.nn.functional.linear(mlp.hidden(x), *second), mlp(x), rtol=0, atol=1e-10)


class TestPosition:
    @pytest.mark.parametrize("name", [*SCORES, "pca-slice"])
    def test_a_kind_that_declares_nothing_is_refused(self, name: str) -> None:
        with pytest.raises(InputError, match=r"block 0: expected .*, got position 'unknown': it does not declare"):
            apply(name, model_of(position="unknown"))

    @pytest.mark.parametrize("name", [*SCORES, "pca-slice"])
    def test_a_kind_that_allows_it_is_not(self, name: str) -> None:
        new = apply(name, model_of(position="harmless"))
        assert new.config.position == HarmlessPositionConfig()
        assert new.config != shape_of(position="harmless")

    def test_a_full_width_cut_changes_nothing_where_it_is_allowed(self) -> None:
        old, new, x = full_width_cut(model_of(position="harmless", qk_dim=4, v_dim=4))
        torch.testing.assert_close(new(x), old(x), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("kind", ["learned", "unknown"])
    def test_the_config_round_trips_and_the_first_kind_is_not_stored(self, kind: str) -> None:
        config = shape_of(position=kind)
        assert ViTConfig.model_validate_json(config.to_json()) == config
        assert ('"position"' in config.to_json()) == (kind != "learned")

    @pytest.mark.parametrize("kind", list(POSITION_KINDS))
    def test_its_table_is_there_where_the_config_says_so(self, kind: str) -> None:
        model = model_of(position=kind)
        assert (model.pos_embed is not None) == model.config.position.has_table

    @pytest.mark.parametrize("kind", REGISTERED)
    def test_no_attention_passes_over_positions_that_act_inside_it(self, kind: str) -> None:
        permission = ATTENTION_KINDS[kind].can_apply_positions
        if permission:
            VisionTransformer(shape_of(attention=kind, position="turning"))
            return
        with pytest.raises(ValidationError, match=f"position 'turning' acts inside the attention, but attention '{kind}'"):
            shape_of(attention=kind, position="turning")

    def test_a_kind_without_a_layer_is_not_built(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(TABLES._items, "unknown")
        with pytest.raises(InputError, match="unknown position layer 'unknown'"):
            VisionTransformer(shape_of(position="unknown"))

    def test_tokens_are_dropped_only_where_positions_allow_it(self, tmp_path: Path) -> None:
        split = Split(IMAGES[:8], np.zeros(8, np.int64))
        config = TrainConfig(epochs=1, batch_size=4, token_keep=0.5)
        with pytest.raises(InputError, match=r"expected token_keep 1 with position 'unknown', got 0\.5"):
            train(shape_of(position="unknown"), config, PREPROCESSING, split, split, tmp_path / "run")


class TestRegistries:
    def test_every_kind_has_a_layer(self) -> None:
        assert set(ATTENTIONS) == set(ATTENTION_KINDS)
        assert set(MLPS) == set(MLP_KINDS)
        assert set(TABLES) == set(POSITION_KINDS)

    @pytest.mark.parametrize("changes", [*({"attention": kind} for kind in ATTENTION), *({"mlp": kind} for kind in MLP)], ids=str)
    def test_every_kind_has_a_latency_operator_or_is_refused(self, changes: dict[str, str]) -> None:
        config = shape_of(**changes)
        block = config.blocks[0]
        if block.attention.kind in ATTENTION_GRAPHS and block.mlp.kind in ACTIVATION_GRAPHS:
            assert {one.kind for one in operators(config, 1)} == {"linear", "attention", "activation"}
            return
        with pytest.raises(InputError, match=r"latency: expected (attention|MLP) of kind (standard|plain), got"):
            next(operators(config, 1))

    def test_positions_inside_the_attention_are_not_timed_as_if_they_were_not(self) -> None:
        config = SHAPE.model_copy(update={"position": TurningPositionConfig()})
        with pytest.raises(InputError, match="latency: expected positions outside the attention, got position 'turning'"):
            next(operators(config, 1))

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"attention": "linear"}, "unknown attention 'linear', choose one of: cholesky, gram, opaque, standard, symmetric"),
            ({"mlp": "gated"}, "unknown MLP 'gated', choose one of: opaque, plain"),
            ({"position": "rotary"}, "unknown position 'rotary', choose one of: harmless, learned, turning, unknown"),
            ({"qk_dim": 0}, "qk_dim: Input should be greater than or equal to 1, got 0"),
            ({"planes": 3}, "planes"),
        ],
    )
    def test_what_no_kind_knows_is_refused(self, changes: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ValidationError, match=complaint):
            shape_of(**changes)

    def test_a_width_is_not_lost_in_a_copy(self) -> None:
        with pytest.raises(TypeError, match=r"no field \['qk_dim'\]; use changed"):
            SHAPE.blocks[0].model_copy(update={"qk_dim": 4})


# Where kinds are known, and that nothing else asks for one by name.


def places() -> dict[str, list[str]]:
    """What a new kind needs, by the docstring of `vitnla.model.config`: its config, its layer, ... and their files."""
    lines = re.findall(r"^- its ([\w ]+): (.+)$", inspect.getdoc(kinds_of_config) or "", re.MULTILINE)
    return {what: files.split(", ") for what, files in lines}


def file_of(thing: Any) -> str:
    return str(Path(inspect.getfile(thing)).relative_to(ROOT))


def test_a_new_kind_needs_what_the_list_says() -> None:
    listed = places()
    assert list(listed) == ["config", "layer", "source adapter", "latency operator", "tests"]
    assert [path for files in listed.values() for path in files if not (ROOT / path).exists()] == []
    configs = {file_of(kinds[kind]) for kinds in (ATTENTION_KINDS, MLP_KINDS, POSITION_KINDS) for kind in kinds}
    assert configs - {file_of(type(SHAPE)), "tests/contracts/test_kinds.py"} == set(listed["config"])
    layers = {file_of(cast(Any, registry[kind])) for registry in (ATTENTIONS, MLPS, TABLES) for kind in registry}
    assert layers - {"tests/contracts/test_kinds.py"} == set(listed["layer"])
    graphs = {file_of(registry[kind]) for registry in (ATTENTION_GRAPHS, ACTIVATION_GRAPHS) for kind in registry}
    assert graphs == set(listed["latency operator"])
    assert "tests/contracts/test_kinds.py" in listed["tests"]


NAMES = {*REGISTERED, *MLP_KINDS, *POSITION_KINDS}
CLASSES = {kinds[kind].__name__ for kinds in (ATTENTION_KINDS, MLP_KINDS, POSITION_KINDS) for kind in kinds} | {
    AttentionConfig.__name__, MlpConfig.__name__, PositionConfig.__name__,
}  # fmt: skip
FIELDS = {"attention", "mlp", "position", "kind"}


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def questions_of_kind(source: str) -> Iterator[str]:
    """Expressions that ask for a kind by its name or its class, instead of asking the kind."""
    for node in ast.walk(ast.parse(source)):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
            asked = [node.slice, node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Dict):
            asked = [*node.args, node.func.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and _names(node.args[1]) & CLASSES:
            yield ast.unparse(node)
        field = any(isinstance(side, ast.Attribute) and side.attr in FIELDS for side in asked)
        constants = {inner.value for side in asked for inner in ast.walk(side) if isinstance(inner, ast.Constant)}
        if field and constants & NAMES:
            yield ast.unparse(node)


def test_nothing_asks_for_a_kind_by_name() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {expression}"
        for room in ("vitnla", "export", "runtime")
        for path in (ROOT / room).rglob("*.py")
        for expression in questions_of_kind(path.read_text())
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "config.attention != 'standard'", "block.attention.kind in ('cholesky', 'gram')", "self.kind == 'symmetric'",
        "{'standard': 2, 'gram': 0}[self.attention]", "{'cholesky': 1}.get(block.attention, 0)",
        "isinstance(block.mlp, PlainMlpConfig)", "isinstance(x, (int, LearnedPositionConfig))", "'learned' == config.position.kind",
    ],
)  # fmt: skip
def test_every_way_to_ask_for_a_kind_is_seen(source: str) -> None:
    assert list(questions_of_kind(source))


@pytest.mark.parametrize("source", ["weighting == 'cholesky'", "ATTENTIONS[config.attention.kind]", "online.kind == 'pca'"])
def test_other_questions_are_not(source: str) -> None:
    assert not list(questions_of_kind(source))
