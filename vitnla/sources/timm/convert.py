"""timm's `VisionTransformer` and `VisionTransformerDistilled`: from the module to the canonical form. timm is not imported here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.model.config import Activation, AttentionPoolConfig, FinalNorm, Pooling, ViTConfig
from vitnla.sources.tensors import (
    BlockNames,
    Converted,
    SourceTensors,
    attention_pool,
    averaged_heads,
    embedding_labels,
    identity_head,
    numbered_labels,
    with_prefix_positions,
)
from vitnla.sources.unsupported import SUPPORTED, unsupported

PLAIN, DISTILLED = "VisionTransformer", "VisionTransformerDistilled"
_HOMES = {PLAIN: "timm.models.vision_transformer", DISTILLED: "timm.models.deit"}
_BLOCK = BlockNames(
    qkv=("blocks.{}.attn.qkv",), proj="blocks.{}.attn.proj", norm1="blocks.{}.norm1", norm2="blocks.{}.norm2",
    fc1="blocks.{}.mlp.fc1", fc2="blocks.{}.mlp.fc2",
)  # fmt: skip
_SCALES = ("blocks.{}.ls1.gamma", "blocks.{}.ls2.gamma")
_POOLS: dict[str, Pooling] = {"token": "cls", "avg": "mean", "map": "map"}


def convert_timm(module: Any, origin: str) -> Converted:
    """Convert a timm ViT to the canonical form; classes are numbered. A tower without a head gives its pooled features.

    Raises:
        InputError: a part is not supported; names it.
    """
    kind = type(module).__name__
    if _HOMES.get(kind) != type(module).__module__:
        raise unsupported(f"{origin}: unsupported architecture {kind}", kind)
    _check_parts(module, origin)
    source = SourceTensors(module.state_dict(), origin, f"timm's {kind}")
    scaled = not isinstance(module.blocks[0].ls1, nn.Identity)
    names = BlockNames(**{**_BLOCK.__dict__, "scales": _SCALES}) if scaled else _BLOCK
    prefix = [source.take(name)[0] for name in ("cls_token", "dist_token", "reg_token") if name in source]
    count = sum(len(tokens) for tokens in prefix)
    tensors = source.linear("patch_embed.proj", "patch_embed") | source.blocks(len(module.blocks), names)
    if prefix:
        tensors["prefix"] = torch.cat(prefix)
    tensors["pos_embed"] = _positions(module, source, count)
    if not isinstance(module.norm_pre, nn.Identity):
        tensors |= source.linear("norm_pre", "embed_norm")
    final: FinalNorm = "none"
    for name, place in (("norm", "tokens"), ("fc_norm", "pooled")):
        if not isinstance(getattr(module, name), nn.Identity):
            tensors |= source.linear(name, "norm")
            final = "tokens" if place == "tokens" else "pooled"
    pool = _attention_pool(module, source, tensors)
    tensors |= _head(module, source)
    source.done()
    first, patch = module.blocks[0], module.patch_embed
    classes = len(tensors["head.weight"])
    image, size = patch.img_size[0], patch.patch_size[0]
    config = ViTConfig.uniform(
        image_size=image, patch_size=size, channels=patch.proj.in_channels, classes=classes, dim=module.embed_dim,
        depth=len(module.blocks), heads=first.attn.num_heads, mlp_ratio=first.mlp.fc1.out_features / module.embed_dim,
        class_token=module.cls_token is not None, registers=count - (module.cls_token is not None),
        pooling=_pooling(module, kind, origin), activation=_activation(first.mlp.act, origin), layer_scale=scaled,
        norm_eps=first.norm1.eps, attention_pool=pool, embed_norm="embed_norm.weight" in tensors, final_norm=final,
        ignore_remainder=image % size != 0,
    )  # fmt: skip
    labels = numbered_labels(classes) if isinstance(module.head, nn.Linear) else embedding_labels(classes)
    return Converted(config, tensors, labels)


def _positions(module: Any, source: SourceTensors, prefix: int) -> Tensor:
    patches = module.patch_embed.num_patches
    if module.pos_embed is None:
        return torch.zeros(prefix + patches, module.embed_dim)
    table = source.take("pos_embed")[0]
    return with_prefix_positions(table, prefix) if module.no_embed_class else table


def _attention_pool(module: Any, source: SourceTensors, tensors: dict[str, Tensor]) -> AttentionPoolConfig | None:
    """Return the pool's config; its tensors are added to `tensors`."""
    if (pool := module.attn_pool) is None:
        return None
    query = source.take("attn_pool.latent")[0]
    if isinstance(pool.q, nn.Linear):
        project = source.linear("attn_pool.q", "q")
        query = query @ project["q.weight"].T + project["q.bias"]
    parts = source.linear("attn_pool.proj", "pool.proj") | source.linear("attn_pool.norm", "pool.norm")
    parts |= source.linear("attn_pool.mlp.fc1", "pool.fc1") | source.linear("attn_pool.mlp.fc2", "pool.fc2")
    tensors |= attention_pool(query, source.linear("attn_pool.kv", "pool.kv"), parts)
    return AttentionPoolConfig(
        dim=pool.out_features, heads=pool.num_heads, mlp_dim=pool.mlp.fc1.out_features, norm_eps=pool.norm.eps
    )


def _head(module: Any, source: SourceTensors) -> dict[str, Tensor]:
    if not isinstance(module.head, nn.Linear):
        head = identity_head(module.embed_dim)
        return averaged_heads(head, head) if hasattr(module, "head_dist") else head
    head = source.linear("head", "head")
    return averaged_heads(head, source.linear("head_dist", "head")) if hasattr(module, "head_dist") else head


def _pooling(module: Any, kind: str, origin: str) -> Pooling:
    if kind == DISTILLED:
        return "cls+dist"
    if module.global_pool not in _POOLS:
        raise InputError(f"{origin}: unsupported global_pool '{module.global_pool}'", f"supported: {', '.join(_POOLS)}")
    if module.pool_include_prefix and module.global_pool != "token":
        if module.global_pool == "avg":
            return "mean-all"
        if module.num_prefix_tokens:
            raise InputError(f"{origin}: unsupported attention pooling over prefix tokens", f"supported: {SUPPORTED}")
    return _POOLS[module.global_pool]


def _activation(act: nn.Module, origin: str) -> Activation:
    name = type(act).__name__
    approximate = getattr(act, "approximate", "none")
    known: dict[str, Activation] = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "ReLU": "relu"}
    if name not in known:
        raise InputError(f"{origin}: unsupported activation {name}", f"supported: {', '.join(known)}")
    return "gelu_tanh" if approximate == "tanh" else known[name]


def _check_parts(module: Any, origin: str) -> None:
    """Refuse every part that the canonical model lacks.

    Raises:
        InputError: names the first such part.
    """
    patch = module.patch_embed
    _expect(origin, "patch embedding", patch, "PatchEmbed")
    _expect(origin, "norm of the patch embedding", patch.norm, "Identity")
    if len(set(patch.img_size)) > 1 or len(set(patch.patch_size)) > 1 or getattr(patch, "dynamic_img_pad", False):
        found = f"images of {patch.img_size} in patches of {patch.patch_size}"
        raise InputError(f"{origin}: unsupported {found}, or padded", "supported: square images and patches, without padding")
    for block in module.blocks:
        _expect(origin, "block", block, "Block")
        _expect(origin, "attention", block.attn, "Attention")
        _expect(origin, "MLP", block.mlp, "Mlp")
        for what, part in {
            "norm of the queries": block.attn.q_norm, "norm of the keys": block.attn.k_norm,
            "norm inside the attention": getattr(block.attn, "norm", None), "norm inside the MLP": block.mlp.norm,
            "gate of the attention": getattr(block.attn, "gate", None),
        }.items():  # fmt: skip
            _expect(origin, what, part, "Identity", "NoneType")
        for norm in (block.norm1, block.norm2):
            _expect_norm(origin, norm, block.norm1.eps if hasattr(block.norm1, "eps") else None)
    for norm in (module.norm_pre, module.norm, module.fc_norm):
        if not isinstance(norm, nn.Identity):
            _expect_norm(origin, norm, module.blocks[0].norm1.eps)
    if not isinstance(module.norm, nn.Identity) and not isinstance(module.fc_norm, nn.Identity):
        raise InputError(f"{origin}: unsupported norms both before and after pooling", f"supported: {SUPPORTED}")
    if (pool := module.attn_pool) is not None:
        _expect(origin, "attention pooling", pool, "AttentionPoolLatent")
        for what, part in {"norm of the pool's queries": pool.q_norm, "norm of the pool's keys": pool.k_norm}.items():
            _expect(origin, what, part, "Identity")
        _expect(origin, "MLP of the pool", pool.mlp, "Mlp")
        _expect_norm(origin, pool.norm, None)
        if pool.latent_len != 1 or pool.pos_embed is not None:
            raise InputError(
                f"{origin}: unsupported pool of {pool.latent_len} queries or with positions", f"supported: {SUPPORTED}"
            )


def _expect(origin: str, what: str, part: object, *kinds: str) -> None:
    if (found := type(part).__name__) not in kinds:
        known = {"GluMlp": " (gated, as SwiGLU)", "SwiGLU": " (gated)", "SwiGLUPacked": " (gated, SwiGLU)"}.get(found, "")
        raise InputError(f"{origin}: unsupported {what} {found}{known}, expected {' or '.join(kinds)}", f"supported: {SUPPORTED}")


def _expect_norm(origin: str, norm: nn.Module, eps: float | None) -> None:
    if not isinstance(norm, nn.LayerNorm) or (eps is not None and norm.eps != eps):
        found = f"{type(norm).__name__} (eps {getattr(norm, 'eps', None)})"
        raise InputError(f"{origin}: unsupported norm {found}, expected LayerNorms of one eps", f"supported: {SUPPORTED}")
