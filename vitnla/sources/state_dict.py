"""Extraction of weights from training checkpoints: beside optimiser state or averages, under wrappers' prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitnla.common.errors import InputError

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher")
"""Keys of averaged weights, preferred to those of the last step, as in timm's `load_state_dict(use_ema=True)`."""
PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "module", "student", "net", "network")
"""Keys of the weights of the last step."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before every name, in either order."""
_SHOWN = 5


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and notes for the user on the choices made to find them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def shown(names: Iterable[str]) -> str:
    """Return at most five names, and how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in listed[:_SHOWN]) + rest


def choose_state_dict(loaded: object, origin: str, key: str | None = None) -> Weights:
    """Return the state_dict inside a loaded checkpoint, without the prefixes of wrappers.

    Args:
        loaded: what `torch.load(weights_only=True)` gave.
        origin: the file, for errors and notes.
        key: which entry to take, dots for entries of entries; or a prefix of names, which `without_prefix` looks at. `None` takes
            averaged weights where there are any, else those of the last step.

    Raises:
        InputError: there is no mapping of names to tensors, or no such entry.
    """
    notes: tuple[str, ...] = ()
    entry = None if key is None else _entry(loaded, key)
    chosen = entry
    if chosen is None:
        chosen, path = _descend(loaded)
        first = path.partition(".")[0]
        if others := [name for name in _candidates(loaded) if name != first]:
            why = "the average of the weights, as timm does" if first in AVERAGES[:2] else "which goes before them"
            notes = (f"{origin}: took '{path}', {why}; {shown(others)} there too (--weights-key {others[0]} takes that)",)
    if isinstance(chosen, Mapping) and chosen and all(isinstance(value, Tensor) for value in chosen.values()):
        tensors = _unwrapped({str(name): value for name, value in chosen.items()})
        if key is None or entry is not None or any(name.startswith(f"{key.rstrip('.')}.") for name in tensors):
            return Weights(tensors, notes)
    if isinstance(loaded, Mapping):
        found = f"a mapping with {shown(str(name) for name in loaded)}"
        mappings = [str(name) for name, value in loaded.items() if isinstance(value, Mapping)]
        hint = f"name the entry that holds them: --weights-key {mappings[0] if mappings else 'KEY'}"
    else:
        found, hint = f"a {type(loaded).__name__}", "save model.state_dict() instead"
    wanted = f"weights under '{key}'" if key is not None else "a state_dict of tensors"
    raise InputError(f"{origin}: expected {wanted}, found {found}", hint)


def without_prefix(
    tensors: Mapping[str, Tensor], anchors: Iterable[str], origin: str, key: str | None = None, keep: Iterable[str] = ()
) -> Weights:
    """Return the tensors of the model by its own names, where a trainer put it into another module (`model.`, `backbone.`).

    Args:
        tensors: by their names in the file.
        anchors: names of which every model of this kind has one, such as `patch_embed.proj.weight`; their prefix is the model's.
        origin: the file, for errors and notes.
        key: the prefix to take, where there are several.
        keep: names outside of the prefix that belong to the model all the same, such as the head beside a backbone.

    Raises:
        InputError: several models are in the file, or none under `key`.
    """
    wanted = None if key is None else f"{key.rstrip('.')}."
    anchor = next((name for name in anchors if any(f".{other}".endswith(f".{name}") for other in tensors)), None)
    if anchor is None or (anchor in tensors and wanted is None):
        return Weights(dict(tensors))
    prefixes = [name.removesuffix(anchor) for name in tensors if f".{name}".endswith(f".{anchor}")]
    if wanted is not None:  # a key that named an entry of the checkpoint has done its work
        prefixes = [prefix for prefix in prefixes if prefix.startswith(wanted)] or prefixes
    averaged = [prefix for prefix in prefixes if any(part in AVERAGES or "ema" in part.split("_") for part in prefix.split("."))]
    if len(prefixes) > 1 and len(averaged) != 1:
        hint = f"choose one: --weights-key {prefixes[0].rstrip('.') or prefixes[1].rstrip('.')}"
        raise InputError(f"{origin}: expected one model, found several, under {shown(prefixes)}", hint)
    prefix = averaged[0] if len(prefixes) > 1 else prefixes[0]
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    inside |= {name: tensors[name] for name in keep if name in tensors and name not in inside}
    left = [name for name in tensors if not name.startswith(prefix) and inside.get(name) is not tensors[name]]
    note = f"{origin}: took the weights under '{prefix}'"
    return Weights(inside, (f"{note}, left out {shown(left)}" if left else note,) if prefix else ())


def fitting_prefix(expected: Iterable[str], found: Iterable[str]) -> str | None:
    """Return the prefix under which most of the expected names are found, if it is most of them."""
    names, wanted = set(found), list(expected)
    prefixes = {name.removesuffix(wanted[0]) for name in names if wanted and f".{name}".endswith(f".{wanted[0]}")} - {""}
    scored = {prefix: sum(f"{prefix}{name}" in names for name in wanted) for prefix in prefixes}
    best = max(scored, key=lambda prefix: scored[prefix], default=None)
    return best if best is not None and scored[best] * 2 > len(wanted) else None


def _candidates(loaded: object) -> list[str]:
    """Return the keys of weights in a mapping, averages first."""
    if not isinstance(loaded, Mapping):
        return []
    return [name for name in (*AVERAGES, *PLAIN) if isinstance(loaded.get(name), Mapping) and loaded[name]]


def _descend(loaded: Any, path: str = "") -> tuple[Any, str]:
    """Return the innermost mapping under the first candidates, and its keys joined by dots."""
    if (
        isinstance(loaded, Mapping)
        and not all(isinstance(value, Tensor) for value in loaded.values())
        and (names := _candidates(loaded))
    ):
        return _descend(loaded[names[0]], f"{path}.{names[0]}".lstrip("."))
    return loaded, path


def _entry(loaded: object, key: str) -> object:
    """Return the entry of that dotted key; None where there is none."""
    for part in key.rstrip(".").split("."):
        if not isinstance(loaded, Mapping) or not isinstance(loaded.get(part), Mapping):
            return None
        loaded = loaded[part]
    return _descend(loaded)[0]


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefixes of wrappers from names, if every tensor has them."""
    tensors = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}  # a count of AveragedModel
    while tensors and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
