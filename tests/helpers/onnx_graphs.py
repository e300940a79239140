"""Tiny ViTs as a third party would hand them over: ONNX files, by torch's two exporters, of three implementations."""

from __future__ import annotations

import importlib
import logging
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from vitnla.model import VisionTransformer, ViTConfig
from vitnla.training.initialise import new_model

CHANNELS, SIZE, CLASSES, DIM, HIDDEN = 3, 8, 5, 16, 32
SOURCES = ("vit", "dinov2", "ours")
EXPORTERS = ("dynamo", "torchscript")


class Logits(nn.Module):
    """A transformers classifier as a function from images to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


@cache
def tiny(source: str) -> nn.Module:
    """A model of random weights, so strong that what a linear does can be seen in the logits."""
    generator = torch.Generator().manual_seed(4)
    model = _ours() if source == "ours" else Logits(_theirs(source))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def write_graph(path: Path, source: str, exporter: str, batch: int | None = None) -> Path:
    """Export a tiny model; the batch is dynamic unless one is given."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model, example = tiny(source), torch.zeros(batch or 2, CHANNELS, SIZE, SIZE)
    names = {"input_names": ["pixels"], "output_names": ["scores"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = None if batch else ({0: torch.export.Dim("n")},)
            torch.onnx.export(
                model, (example,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **names
            )  # fmt: skip
        else:
            axes = None if batch else {"pixels": {0: "n"}, "scores": {0: "n"}}
            torch.onnx.export(model, (example,), path, dynamo=False, dynamic_axes=axes, opset_version=17, **names)
    return path


def write_data(path: Path, classes: int = CLASSES) -> Path:
    """Random images for them."""
    generator = np.random.default_rng(3)
    splits = np.array(["train"] * 320 + ["test"] * 21)
    images = generator.integers(0, 256, (len(splits), SIZE, SIZE, CHANNELS), np.uint8)
    np.savez(path, images=images, labels=np.arange(len(splits)) % classes, splits=splits)
    return path


def linear_graph(
    weight: np.ndarray, node: str, *, outputs: int, extra: list[onnx.NodeProto] | None = None
) -> onnx.ModelProto:  # fmt: skip
    """x [n, k] -> node, a line of ONNX text over x and the initialiser w -> y."""
    parsed = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 20]> g (float[n, {weight.shape[0]}] x) => (float[n, {outputs}] y) {{ {node} }}'
    )
    parsed.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return parsed


def _ours() -> VisionTransformer:
    return new_model(
        ViTConfig.uniform(
            image_size=SIZE, patch_size=4, channels=CHANNELS, classes=CLASSES, dim=DIM, depth=2, heads=2, mlp_ratio=HIDDEN / DIM
        ),
        seed=1,
    )


def _theirs(source: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    _complete_torchvision()
    torch.manual_seed(0)
    widths = {
        "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 4,
        "num_channels": CHANNELS, "num_labels": CLASSES,
    }  # fmt: skip
    if source == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(intermediate_size=HIDDEN, **widths))
    return transformers.Dinov2ForImageClassification(transformers.Dinov2Config(mlp_ratio=HIDDEN // DIM, **widths))


_KEPT = []


def _complete_torchvision() -> None:
    """torchvision, where it is installed beside a CPU-only torch, wants two operators that transformers never calls."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # a library that is collected takes its operators with it
