"""The canonical Vision Transformer, into which every supported model is converted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.config import LINEARS, LinearName, ViTConfig
from vitnla.model.layers import TABLES, AttentionPool, Block, norm


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al. 2021) with pre-norm blocks; all widths and ranks come from its config.

    `forward` is `classify(encode(embed(images)))`; training and calibration use the three parts separately.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embed = nn.Conv2d(config.channels, dim, config.patch_size, stride=config.patch_size)
        self.prefix = nn.Parameter(torch.zeros(config.prefix_tokens, dim)) if config.prefix_tokens else None
        self.pos_embed = TABLES[config.position.kind](config)
        self.blocks = nn.ModuleList(Block(config, block) for block in config.blocks)
        self.embed_norm = nn.LayerNorm(dim, eps=config.norm_eps) if config.embed_norm else nn.Identity()
        self.norm = nn.Identity() if config.final_norm == "none" else norm(config.norm, dim, config.norm_eps)
        self.pool = None if config.attention_pool is None else AttentionPool(dim, config.attention_pool, config.activation)
        features = config.features
        self.head = (
            nn.Linear(features, config.classes)
            if config.head_hidden is None
            else nn.Sequential(nn.Linear(features, config.head_hidden), nn.Tanh(), nn.Linear(config.head_hidden, config.classes))
        )

    def embed(self, images: Tensor) -> Tensor:
        """Embed images [B, C, H, W] -> tokens [B, prefix + patches, dim], a table of positions added, normed where `embed_norm`."""
        first, table = self.config.prefix_tokens, self.pos_embed
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = tokens if table is None else tokens + table[first:]
        if self.prefix is not None:
            prefix = self.prefix if table is None else self.prefix + table[:first]
            tokens = torch.cat([prefix.expand(images.shape[0], -1, -1), tokens], dim=1)
        out: Tensor = self.embed_norm(tokens)
        return out

    def encode(self, tokens: Tensor) -> Tensor:
        """Run tokens [B, N, dim] through every block; N may be less than the full sequence."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def classify(self, encoded: Tensor) -> Tensor:
        """Compute the last block's output [B, N, dim] -> logits [B, classes]."""
        out: Tensor = self.head(self.features(encoded))
        return out

    def features(self, encoded: Tensor) -> Tensor:
        """Compute the head's input: the last block's output [B, N, dim] -> [B, config.features].

        Tokens are selected before the norm, so a model that reads its class token norms only one. It also keeps ONNX Runtime
        1.32 from fusing the last sum and the norm into a SkipLayerNormalization, which takes as long as ten norms on the CPU.
        """
        each, after = (nn.Identity(), self.norm) if self.config.final_norm == "pooled" else (self.norm, nn.Identity())
        patches = encoded[:, self.config.prefix_tokens :]
        if self.pool is not None:
            pooled: Tensor = self.pool(each(patches))
            return pooled
        parts = {
            "cls": lambda: each(encoded[:, 0]), "dist": lambda: each(encoded[:, 1]), "mean": lambda: each(patches).mean(dim=1),
            "mean-all": lambda: each(encoded).mean(dim=1),
        }  # fmt: skip
        out: Tensor = after(torch.cat([parts[name]() for name in self.config.pooling.split("+")], dim=-1))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Compute images [B, C, H, W] -> logits [B, classes]."""
        return self.classify(self.encode(self.embed(images)))

    def exportable(self) -> VisionTransformer:
        """Return an equivalent model with `config.exportable()`; the model itself where that changes nothing."""
        config = self.config.exportable()
        if config == self.config:
            return self
        tensors = self.state_dict()
        if self.config.layer_scale and not config.layer_scale:
            tensors = self._without_layer_scale(tensors)
        with torch.device("meta"):
            model = VisionTransformer(config)
        model.load_state_dict(tensors, assign=True)
        return model.train(self.training)

    def _without_layer_scale(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fold gains into the linear before them: g * (W x + b) = (diag(g) W) x + g * b."""
        tensors = dict(tensors)
        for index, block in enumerate(self.config.blocks):
            for number, owner, name in ((1, "attn", "proj"), (2, "mlp", "fc2")):
                gain = tensors.pop(f"blocks.{index}.ls{number}.gamma").double()
                factor = ".U" if getattr(block.ranks, name) is not None else ""  # y = U (V x) + b
                linear = f"blocks.{index}.{owner}.{name}{factor}"
                for part, scale in (("weight", gain[:, None]), ("bias", gain)):
                    tensor = tensors[f"{linear}.{part}"]
                    tensors[f"{linear}.{part}"] = (scale * tensor.double()).to(tensor.dtype)
        return tensors

    def linear(self, block: int, name: LinearName) -> nn.Module:
        """Return the linear `name` of a block: `nn.Linear`, or `LowRankLinear` where the config gives it a rank."""
        owner = self.blocks[block].attn if name in ("qkv", "proj") else self.blocks[block].mlp
        module = getattr(owner, name)
        assert isinstance(module, nn.Module)
        return module

    def linear_names(self) -> list[tuple[int, LinearName]]:
        """Return (block, name) of every encoder linear, in the order in which they run."""
        return [(block, name) for block in range(len(self.config.blocks)) for name in LINEARS]
