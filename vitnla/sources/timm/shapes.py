"""Constructor arguments of a timm ViT, inferred from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitnla.common.errors import InputError

ANCHORS = ("patch_embed.proj.weight",)
"""A name that every timm ViT has."""
HEAD = ("head.weight", "head.bias")
_NOT_SQUARE = "images and patches that are not square are not supported; train or export with square ones"


def patch_size(tensors: Mapping[str, Tensor], origin: str) -> int | None:
    """Return the side of the patches that a file's convolution takes, by whatever name; None where it is stored as a linear.

    Raises:
        InputError: the patches are not square.
    """
    shape = next((tensor.shape for tensor in tensors.values() if tensor.ndim == 4), None)
    if shape is None:
        return None
    if shape[2] != shape[3]:
        raise InputError(f"{origin}: expected square patches, found {shape[2]} x {shape[3]}", _NOT_SQUARE)
    return int(shape[2])


def arguments_of_shapes(tensors: Mapping[str, Tensor], module: Any, origin: str) -> dict[str, Any]:
    """Return the arguments of timm's `VisionTransformer` that the tensors decide; pooling and norms are `pooling_arguments`.

    Args:
        tensors: a state_dict in timm's names; only shapes are read.
        module: the model by the name's defaults, which decides where shapes leave a choice.
        origin: the file, for errors.

    Raises:
        InputError: the positions are those of images that are not square.
    """
    embed = tensors["patch_embed.proj.weight"]
    dim, depth = len(embed), len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    prefix = sum(name in tensors for name in ("cls_token", "dist_token")) + registers
    first = "blocks.0."
    found: dict[str, Any] = {
        "num_classes": len(tensors["head.weight"]) if "head.weight" in tensors else 0,
        "in_chans": embed.shape[1], "patch_size": embed.shape[2], "embed_dim": dim, "depth": depth,
        "class_token": "cls_token" in tensors, "reg_tokens": registers, "pre_norm": "norm_pre.weight" in tensors,
        "qkv_bias": f"{first}attn.qkv.bias" in tensors, "proj_bias": f"{first}attn.proj.bias" in tensors,
        "qk_norm": f"{first}attn.q_norm.weight" in tensors, "pos_embed": "learn" if "pos_embed" in tensors else "none",
        "init_values": 1e-5 if f"{first}ls1.gamma" in tensors else None,  # the value is overwritten by the file's
    }  # fmt: skip
    if (hidden := tensors.get(f"{first}mlp.fc1.weight")) is not None:
        found["mlp_ratio"] = len(hidden) / dim
    if "pos_embed" in tensors:
        grid, found["no_embed_class"] = _grid(tensors["pos_embed"].shape[1], prefix, bool(module.no_embed_class), origin)
        default = module.patch_embed.img_size[0]
        fits = default // found["patch_size"] == grid  # a remainder of the default size shows in no tensor
        found["img_size"] = default if fits else grid * found["patch_size"]
    return found


def pooling_arguments(
    tensors: Mapping[str, Tensor], module: Any, given: Mapping[str, Any], origin: str
) -> tuple[dict[str, Any], str]:
    """Return the arguments of pooling and of the norm around it, and in words how certain they are.

    timm's rule decides what the tensors do not: mean pooling has `fc_norm`, other pooling has `norm`, unless somebody chose otherwise.

    Args:
        tensors: a state_dict in timm's names.
        module: the model by the name's defaults.
        given: arguments that the user or the model's own config states.
        origin: the file, for errors.

    Raises:
        InputError: the tensors contradict what is given.
    """
    norm, fc_norm, latent = "norm.weight" in tensors, "fc_norm.weight" in tensors, "attn_pool.latent" in tensors
    default, default_fc_norm = module.global_pool, "fc_norm.weight" in module.state_dict()
    found: dict[str, Any] = {"final_norm": norm or fc_norm, "fc_norm": fc_norm}
    stated = given.get("global_pool")
    token = "cls_token" in tensors
    if stated is not None:
        if (stated == "map") != latent or (stated == "token" and not token):
            lacks = "a class token" if stated == "token" else "the pool's weights (attn_pool)"
            problem = (
                f"has {'attn_pool' if latent else 'no'} weights of an attention pool"
                if lacks.startswith("the")
                else f"lacks {lacks}"
            )
            raise InputError(
                f"{origin}: global_pool={stated} was asked for, but the file {problem}", "leave global_pool out, or correct it"
            )
        return found | {"global_pool": stated}, ""
    if latent:
        return found | {"global_pool": "map"}, ""
    if not token:
        pool = default if default not in ("token", "map") else "avg"
        return found | {"global_pool": pool}, "there is no class token"
    if default != "map" and (fc_norm, norm) == (default_fc_norm, not default_fc_norm):
        return found | {"global_pool": default}, "the default of the name; the file cannot say"
    pool = "avg" if fc_norm else "token" if norm else default if default != "map" else "token"
    return found | {
        "global_pool": pool
    }, f"by timm's rule, as the file has {'fc_norm' if fc_norm else 'norm' if norm else 'no last norm'}"


def _grid(positions: int, prefix: int, no_prefix_positions: bool, origin: str) -> tuple[int, bool]:
    """Return the side of the patch grid, and whether prefix tokens lack positions; the name's default is tried first."""
    for without in (no_prefix_positions, not no_prefix_positions):
        patches = positions - (0 if without else prefix)
        side = round(max(patches, 0) ** 0.5)
        if side and side * side == patches:
            return side, without
    found = f"{positions - (0 if no_prefix_positions else prefix)} positions of patches"
    raise InputError(f"{origin}: expected a square grid of patches, found {found}, of images that are not square", _NOT_SQUARE)
