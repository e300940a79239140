"""Mapping of a data set's classes to a model's classes; the only module that compares class names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitnla.common.class_names import are_features
from vitnla.common.errors import InputError
from vitnla.data.formats.synsets import SYNSETS, is_synset, parse_synset

Number = TypeVar("Number", bound=np.generic)
_FIRST = 5
"""Number of names of a list that are shown."""
_NUMBERED = re.compile(r"(?:class|label)?[\s_-]*\d+", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\W_]+")
_OPTION = "--class-map FILE (lines of DATA NAME<TAB>MODEL NAME, or of DATA NAME<TAB>#NUMBER)"


class ClassMismatch(InputError):
    """The classes of the data are not those of the model (exit code 2).

    Args:
        overlap: true if at least half of the names match: then the others are probably misspelt.
        features: true if the model gives features instead of classes.
    """

    def __init__(self, message: str, hint: str, *, overlap: bool = False, features: bool = False) -> None:
        super().__init__(message, hint)
        self.overlap, self.features = overlap, features


@dataclass(frozen=True)
class ClassMapping:
    """The outputs of a model that correspond to the classes of a data set.

    Args:
        columns: the model's class for each class of the data; `None` where they are equal and in the same order.
        unmatched: the reason why labels cannot score this model; `None` where they can.
        features: true if the model gives features instead of classes, so that its largest output is no prediction.
        note: a note for the user on how classes were matched.
    """

    columns: tuple[int, ...] | None = None
    unmatched: str | None = None
    features: bool = False
    note: str | None = field(default=None, compare=False)

    def scored(self, outputs: NDArray[Number]) -> NDArray[Number]:
        """Select outputs [N, model classes] -> [N, data classes], in the data's order; the largest is the predicted label.

        Where the data have fewer classes than the model, only theirs can be predicted.
        """
        return outputs if self.columns is None else outputs[:, list(self.columns)]


SAME = ClassMapping()


def match_classes(names: Sequence[str], model: Sequence[str], data: str = "data") -> ClassMapping:
    """Match the class names of data with those of a model.

    Names are compared without case and separators ("Black_Cat" is "black cat"); of several synonyms, separated by commas, the
    first one will do. A name `#N` is the model's class of that number. Where one side has only numbers ("7", "class 7"), classes
    are taken in order, if there are as many.

    Args:
        names: class names of the data, in the order of their labels.
        model: class names of the model, in the order of its outputs; none if it has no names.
        data: name of the data, for messages.

    Raises:
        ClassMismatch: a name of the data is not one of the model's, is one of several, or two are the same.
    """
    if not model or tuple(names) == tuple(model):
        return SAME
    if are_features(model):
        found = f"the model gives {len(model)} features and no classes, so labels of data '{data}' say nothing about it"
        raise ClassMismatch(found, "give the model with its classifier", features=True)
    same = len(names) == len(model)
    if same and all(_primary(one) == _primary(other) for one, other in zip(names, model, strict=True)):
        return SAME
    candidates = _candidates(names, model)
    columns = [found[0] for found in candidates if len(found) == 1]
    unnamed = _only_numbers(names) or _only_numbers(model)
    if len(columns) == len(names) and (same or not unnamed):
        return ClassMapping(tuple(_distinct(columns, names, model)), note=_note(len(names), model, data))
    if unnamed:
        if same:
            nameless = f"data '{data}'" if _only_numbers(names) else "the model"
            return ClassMapping(
                note=f"{nameless} has numbers for class names: the {len(model)} classes are taken in the order that they have"
            )
        found = (
            f"the model has {len(model)} classes, but data '{data}' has {len(names)}, and one of the two has numbers for names"
        )
        raise ClassMismatch(f"{found}: {_lists(names, model)}", f"map them with {_OPTION}")
    raise _mismatch(names, model, data, candidates)


def read_class_map(path: Path) -> dict[str, str]:
    """Read names of data classes -> names of model classes.

    The file is a JSON object, or lines of `DATA NAME<TAB>MODEL NAME`, or the lines of `LOC_synset_mapping.txt`.

    Raises:
        InputError: the file cannot be read, or a line is none of these.
    """
    hint = "one pair a line, with a tab between the names; or a JSON object of names"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the class map {path}: {error}", hint) from error
    if text.lstrip().startswith("{"):
        return _checked_object(path, text, hint)
    pairs: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, tab, target = line.partition("\t")
        if not tab:
            name, target = parse_synset(line)
        if not name.strip() or not target.strip():
            raise InputError(f"{path}, line {number}: expected DATA NAME<TAB>MODEL NAME, got '{line[:60]}'", hint)
        pairs[name.strip()] = target.strip()
    if not pairs:
        raise InputError(f"{path}: expected pairs of class names, got an empty file", hint)
    return pairs


def renamed(names: Sequence[str], pairs: Mapping[str, str], origin: str) -> tuple[str, ...]:
    """Return the names, with those in `pairs` (compared without case and separators) replaced.

    Raises:
        InputError: it has none of them.
    """
    folded = {_folded(name): target for name, target in pairs.items()}
    if not any(_folded(name) in folded for name in names):
        found = f"{origin}: expected names of the data's classes, such as {_some(names)}; got {_some(tuple(pairs))}"
        raise InputError(found, "the name of the data's class comes first in each pair")
    return tuple(folded.get(_folded(name), name) for name in names)


def _checked_object(path: Path, text: str, hint: str) -> dict[str, str]:
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: expected a JSON object of class names, got: {error}", hint) from error
    if not all(isinstance(value, str) for value in found.values()):
        raise InputError(f"{path}: expected names as values, got {_some([str(value) for value in found.values()])}", hint)
    return dict(found)


def _candidates(names: Sequence[str], model: Sequence[str]) -> list[list[int]]:
    """Return the model's classes that each name may match."""
    exact, whole, first = ({}, {}, {})  # type: tuple[dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]
    for number, name in enumerate(model):
        for table, key in ((exact, name), (whole, _folded(name)), (first, _primary(name))):
            table.setdefault(key, []).append(number)

    def look_up(name: str) -> list[int]:
        if re.fullmatch(r"#\d+", name):
            return [int(name[1:])] if int(name[1:]) < len(model) else []
        found = (exact.get(name), whole.get(_folded(name)), first.get(_folded(name)), first.get(_primary(name)))
        return next((numbers for numbers in found if numbers), [])

    return [look_up(name) for name in names]


def _distinct(columns: Sequence[int], names: Sequence[str], model: Sequence[str]) -> Sequence[int]:
    if repeated := [column for column, count in Counter(columns).items() if count > 1]:
        both = [name for name, column in zip(names, columns, strict=True) if column == repeated[0]]
        found = (
            f"expected one class of the data for each of the model's, got '{both[0]}' and '{both[1]}' for '{model[repeated[0]]}'"
        )
        raise ClassMismatch(found, "merge these classes of the data, or map them apart with --class-map", overlap=True)
    return columns


def _note(count: int, model: Sequence[str], data: str) -> str:
    if count == len(model):
        return f"the classes of data '{data}' are matched with the model's by name, since they are in another order"
    return (
        f"data '{data}' has {count} of the model's {len(model)} classes, matched by name: "
        f"predictions are scored among these {count} classes only"
    )


def _mismatch(names: Sequence[str], model: Sequence[str], data: str, candidates: Sequence[Sequence[int]]) -> ClassMismatch:
    matched = sum(len(found) == 1 for found in candidates)
    overlap = 2 * matched >= len(names)
    several = next((name for name, found in zip(names, candidates, strict=True) if len(found) > 1), None)
    unknown = next((name for name, found in zip(names, candidates, strict=True) if not found), None)
    message = f"{matched} of {len(names)} classes of data '{data}' match the model's by name: {_lists(names, model)}"
    if matched and unknown is not None:
        message += f"; the model has no '{unknown}'"
    elif several is not None:
        message += f"; the model has several '{several}'"
    if all(map(is_synset, names)):
        hint = f"these are synset ids: put {SYNSETS} of ImageNet into the data folder, or give it with --class-map FILE"
        return ClassMismatch(message, hint, overlap=overlap)
    return ClassMismatch(message, f"map them with {_OPTION}", overlap=overlap)


def _lists(names: Sequence[str], model: Sequence[str]) -> str:
    return f"the data has {_some(names)}; the model has {_some(model)}"


def _some(names: Sequence[str]) -> str:
    """Return the first five names."""
    shown = ", ".join(f"'{name}'" for name in names[:_FIRST])
    return f"{shown}, ... ({len(names)})" if len(names) > _FIRST else shown


def _only_numbers(names: Sequence[str]) -> bool:
    return all(_NUMBERED.fullmatch(name.strip()) for name in names)


def _folded(name: str) -> str:
    """Return a name without case and separators; a name of punctuation only is unchanged."""
    return _SEPARATORS.sub(" ", name.casefold()).strip() or name


def _primary(name: str) -> str:
    """Return the first of several synonyms, folded."""
    return _folded(name.partition(",")[0])
