"""Preprocessing and class names of an ONNX file, from options or from the metadata that vitdeploy writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from export.from_onnx.source import OnnxSource
from export.graph.metadata import PREFIX
from vitnla.common.errors import InputError
from vitnla.common.notes import note_once
from vitnla.common.schema import first_complaint
from vitnla.data.dataset import Dataset
from vitnla.data.formats.text_files import read_lines
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.description import Labels


@dataclass(frozen=True)
class Given:
    """User-given description of the model.

    Args:
        preprocessing: a JSON file of our `Preprocessing`; or `mean` and `std` per channel, and `interpolation`, instead.
        labels: a file of class names, one a line, or our `labels.json`.
    """

    preprocessing: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    labels: Path | None = None


def find_preprocessing(source: OnnxSource, given: Given) -> Preprocessing:
    """Return the preprocessing, from the options, else from the file's metadata.

    Raises:
        InputError: neither has one, both kinds of option were given, or the preprocessing does not fit the graph.
    """
    found = _preprocessing(source, given)
    wanted = (source.channels or found.channels, source.size or found.image_size)
    if (found.channels, found.image_size) != wanted:
        raise InputError(
            f"the preprocessing makes {found.channels} x {found.image_size}² images, but {source.spec} takes {wanted[0]} x {wanted[1]}²",
            "give one mean and std per channel, and the image_size that the graph takes",
        )
    if len(found.std) != found.channels or not all(found.std):
        hint = "such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        raise InputError(f"expected {found.channels} values of std that are not 0, got {list(found.std)}", hint)
    return found


def find_labels(source: OnnxSource, given: Given, data: Dataset, classes: int) -> tuple[str, ...]:
    """Return class names in the order of the logits, from the file given, else the metadata, else the data (with a note).

    If the data have another number of classes, the names are the class numbers.

    Raises:
        InputError: the file or the metadata do not name as many as the graph has classes.
    """
    if given.labels is not None:
        found, origin = _read_labels(given.labels), str(given.labels)
    elif (text := source.metadata.get(f"{PREFIX}labels")) is not None:
        found, origin = _labels_of(source, text), f"the metadata of {source.spec}"
    else:
        if len(data.labels) != classes:
            return tuple(f"class {index}" for index in range(classes))
        note_once(f"{source.spec} names no classes: its {classes} are taken to be those of data '{data.name}', in their order")
        return data.labels
    if len(found) != classes:
        hint = "give its class names with --labels FILE, one a line"
        raise InputError(f"{source.spec} has {classes} classes, but {origin} names {len(found)}", hint)
    return found


def _preprocessing(source: OnnxSource, given: Given) -> Preprocessing:
    values = {"mean": given.mean, "std": given.std, "interpolation": given.interpolation}
    named = {name: value for name, value in values.items() if value is not None}
    if given.preprocessing is not None:
        if named:
            raise InputError(f"expected --preprocessing or --{' and --'.join(named)}, got both", "leave out one")
        return Preprocessing.read(given.preprocessing)
    if given.mean is not None and given.std is not None:
        if source.size is None:
            hint = "give --preprocessing FILE.json with image_size, mean, std and interpolation"
            raise InputError(f"{source.spec} takes images of any size, so --mean and --std do not say enough", hint)
        return _checked({"image_size": source.size, **named}, "--mean, --std and --interpolation")
    if named:
        raise InputError(f"expected --mean and --std together, got only --{' and --'.join(named)}", "give both")
    if (text := source.metadata.get(f"{PREFIX}preprocessing")) is not None:
        try:
            return _checked(json.loads(text), f"the metadata of {source.spec}")
        except ValueError as error:
            raise InputError(f"the metadata of {source.spec} is no JSON: {error}", "give --preprocessing FILE.json") from error
    hint = "give --mean and --std as it was trained with, or --preprocessing FILE.json (image_size, mean, std, interpolation)"
    raise InputError(f"{source.spec} does not say how its images are prepared", hint)


def _checked(values: Any, origin: str) -> Preprocessing:
    try:
        return Preprocessing.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{origin}: {first_complaint(error)}", "see docs/onnx-models.md") from error


def _read_labels(path: Path) -> tuple[str, ...]:
    if path.suffix == ".json":
        return Labels.read(path).labels
    return tuple(read_lines(path, "class names"))


def _labels_of(source: OnnxSource, text: str) -> tuple[str, ...]:
    try:
        return Labels.model_validate({"labels": json.loads(text)}).labels
    except ValueError as error:
        raise InputError(f"{source.spec}: its metadata hold damaged labels: {error}", "give --labels FILE") from error
