"""User options of a source model beside its SPEC. Torch is not imported here: `onnx:FILE` works without it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint
from vitnla.data.formats.text_files import read_lines
from vitnla.data.preprocessing import Preprocessing

Value = bool | int | float | str | None


class SourceOptions(Record):
    """Options of `load_model`. They take precedence over the source's own files; the shapes of its tensors over them."""

    image_size: Annotated[int, Field(ge=1)] | None = None
    """Side of the images; positions are resampled where the weights have another. `None` keeps the weights' own."""
    model_args: dict[str, Value] = Field(default_factory=dict)
    """Arguments of the library's constructor, such as `global_pool`."""
    weights_key: str | None = None
    """Key of the weights in a checkpoint that holds several, such as `state_dict`; or a prefix of their names."""
    preprocessing: Path | None = None
    """A JSON file of our `Preprocessing`; or `mean` and `std` per channel, and `interpolation`, instead."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    labels: Path | None = None
    """Class names, one a line, or our `labels.json`."""

    def refuse(self, names: Iterable[str], spec: str, hint: str) -> None:
        """Raise where one of the named options is set.

        Raises:
            InputError: names the options that this kind of source does not take.
        """
        default = SourceOptions()
        if wrong := [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != getattr(default, name)]:
            raise InputError(f"{spec}: {' and '.join(wrong)} cannot be applied to this kind of model", hint)


NO_OPTIONS = SourceOptions()


def parse_model_args(words: Iterable[str]) -> dict[str, Value]:
    """Return `NAME=VALUE` words, each perhaps several separated by commas, as typed arguments: true, false, none, numbers, text.

    Raises:
        InputError: a word holds no `=`, or a name is given twice with two values.
    """
    found: dict[str, Value] = {}
    for word in (part.strip() for words_of in words for part in words_of.split(",")):
        name, equals, text = (part.strip() for part in word.partition("="))
        if not name or not equals or not text:
            raise InputError(
                f"--model-args: expected NAME=VALUE, got '{word}'", "such as --model-args global_pool=avg,fc_norm=false"
            )
        value, name = _typed(text), name.replace("-", "_")
        if name in found and found[name] != value:
            raise InputError(f"--model-args: {name} is given as {found[name]} and as {value}", "leave out one")
        found[name] = value
    return found


def choose_preprocessing(
    found: Mapping[str, Any], options: SourceOptions, *, image_size: int, channels: int, origin: str
) -> Preprocessing:
    """Return the preprocessing of a model for images of `channels` x `image_size`².

    Args:
        found: fields of `Preprocessing` as the source has them, of its own image size; mean and std may be missing.
        options: user options, which take precedence.
        image_size: side of the model's images. `resize_size` grows with it, so that the same share is cut out.
        channels: of the model's images.
        origin: names the source in errors.

    Raises:
        InputError: mean or std are not known or have another number of channels, or the file given makes other images.
    """
    given = {name: value for name in ("mean", "std", "interpolation") if (value := getattr(options, name)) is not None}
    if options.preprocessing is not None:
        if given:
            raise InputError(f"expected --preprocessing or --{' and --'.join(given)}, got both", "leave out one")
        chosen = Preprocessing.read(options.preprocessing)
        if chosen.image_size != image_size:
            hint = f"give --image-size {chosen.image_size} to resample the model's positions, or correct the file"
            raise InputError(
                f"{options.preprocessing} makes images of {chosen.image_size} px, {origin} takes {image_size} px", hint
            )
    else:
        fields = {**found, **given, "image_size": image_size}
        if (old := found.get("image_size", image_size)) != image_size and fields.get("resize_size") is not None:
            fields["resize_size"] = max(image_size, math.floor(fields["resize_size"] * image_size / old))
        if missing := [name for name in ("mean", "std") if name not in fields]:
            raise InputError(f"{origin} does not say how its images are normalised: no {' and '.join(missing)}", _NORMAL_HINT)
        try:
            chosen = Preprocessing.model_validate(fields)
        except ValidationError as error:
            raise InputError(f"{origin}: preprocessing: {first_complaint(error)}", _NORMAL_HINT) from error
    for name, values in (("mean", chosen.mean), ("std", chosen.std)):
        if len(values) != channels or (name == "std" and not all(values)):
            wanted = f"{channels} value{'s' if channels > 1 else ''} of {name}{' that are not 0' if name == 'std' else ''}"
            message = (
                f"{origin}: expected {wanted}, for a model of {channels} channel{'s' if channels > 1 else ''}, got {list(values)}"
            )
            raise InputError(message, f"give --mean and --std with {channels} number{'s' if channels > 1 else ''} each")
    return chosen


def assumed_preprocessing(chosen: Preprocessing, options: SourceOptions, whose: str) -> tuple[str, ...]:
    """Return a note on the parts of a preprocessing that neither the weights nor the user state."""
    if options.preprocessing is not None:
        return ()
    crop = (
        f"resize to {chosen.resize_size}, crop to {chosen.image_size}" if chosen.resize_size else f"resize to {chosen.image_size}"
    )
    parts = {
        "mean": f"mean {_listed(chosen.mean)}",
        "std": f"std {_listed(chosen.std)}",
        "interpolation": chosen.interpolation,
        "": crop,
    }
    left = [words for name, words in parts.items() if not name or getattr(options, name) is None]
    return (
        f"images are prepared as for {whose}, as weights do not say it: {', '.join(left)} (--mean, --std, --interpolation, --preprocessing)",
    )


def _listed(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)


_NORMAL_HINT = (
    "give --mean and --std as it was trained with, such as --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5, or --preprocessing FILE.json"
)


def choose_labels(
    found: tuple[str, ...] | None, options: SourceOptions, classes: int, origin: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names in the order of the outputs, and notes: from `--labels`, else as the source has them, else numbered.

    Raises:
        InputError: there are not as many as outputs.
    """
    place = str(options.labels) if options.labels is not None else origin
    names = found if options.labels is None else read_labels(options.labels)
    if names is None:
        numbered = tuple(f"class {index}" for index in range(classes))
        note = f"class names are not known: '{numbered[0]}' to '{numbered[-1]}' stand for them; --labels FILE, one a line, gives them"
        return numbered, (note,)
    if len(names) != classes:
        raise InputError(
            f"{place}: expected {classes} class names, one for each output, got {len(names)}", "give --labels FILE, one a line"
        )
    return names, ()


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names of a file, one a line, or of our `labels.json`.

    Raises:
        InputError: the file is missing, empty or damaged.
    """
    from vitnla.sources.description import Labels  # which holds these options

    return Labels.read(path).labels if path.suffix == ".json" else tuple(read_lines(path, "class names"))


def _typed(text: str) -> Value:
    """Convert text to a bool, None, an int or a float where it is one."""
    plain = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
