"""Helpers shared by the adapters of the transformers format: settings of `config.json`, and the widths derived from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

from pydantic import BeforeValidator, ConfigDict

from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.model.config import Activation
from vitnla.sources.tensors import ACTIVATIONS, SourceTensors, numbered_labels


class Settings(Record):
    """The subset of transformers' settings that is used here."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the settings from a JSON file that transformers wrote.

        Raises:
            InputError: the file is missing, is no JSON, or has an unsupported setting; names it.
        """
        try:
            return super().read(path)
        except InputError as error:
            raise InputError(error.message, "expected what transformers' save_pretrained writes; correct that setting") from error


def _one_side(value: object) -> object:
    """Return a pair of equal sides as one number."""
    if not isinstance(value, list | tuple):
        return value
    if len(value) != 2 or value[0] != value[1]:
        raise ValueError("images and patches that are not square are not supported, expected a number or two equal ones")
    return value[0]


Square = Annotated[int, BeforeValidator(_one_side)]
"""The side of a square, which transformers writes as a number or twice."""


class Encoder(Settings):
    """Settings common to the configs of all transformers ViTs."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    patch_size: Square
    num_channels: int
    image_size: Square
    id2label: dict[int, str] | None = None

    def activation(self, origin: str) -> Activation:
        """Return the canonical name of the activation.

        Raises:
            InputError: it is not supported.
        """
        if self.hidden_act not in ACTIVATIONS:
            raise InputError(f"{origin}: unsupported hidden_act '{self.hidden_act}'", f"supported: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[self.hidden_act]


class Shape(TypedDict):
    """Arguments of `ViTConfig.uniform` common to all families."""

    image_size: int
    patch_size: int
    channels: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float
    activation: Activation
    norm_eps: float
    ignore_remainder: bool


def shape(settings: Encoder, image_size: int, mlp_ratio: float, origin: str) -> Shape:
    """Return the common part of a config, for images of `image_size`, which the processor decides."""
    return Shape(
        image_size=image_size, patch_size=settings.patch_size, channels=settings.num_channels, dim=settings.hidden_size,
        depth=settings.num_hidden_layers, heads=settings.num_attention_heads, mlp_ratio=mlp_ratio,
        activation=settings.activation(origin), norm_eps=settings.layer_norm_eps,
        ignore_remainder=image_size % settings.patch_size != 0,
    )  # fmt: skip


def class_labels(id2label: dict[int, str] | None, classes: int, origin: str) -> tuple[str, ...]:
    """Return the class names of a head of that many outputs.

    Raises:
        InputError: the config names another number of classes.
    """
    default = {index: f"LABEL_{index}" for index in range(classes)}
    if id2label is None or id2label == default:  # transformers' placeholders, which it leaves out of the file where there are two
        return numbered_labels(classes)
    if sorted(id2label) != list(range(classes)):
        message = f"{origin}: the classifier has {classes} outputs, but id2label names {len(id2label)}, or other numbers"
        raise InputError(message, "correct id2label in config.json")
    return tuple(id2label[index] for index in range(classes))


def first_rows(source: SourceTensors, name: str) -> tuple[dict[str, Any], int]:
    """Return a classifier as the canonical head, and its number of outputs."""
    head = source.linear(name, "head")
    return head, len(head["head.weight"])
