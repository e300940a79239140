"""Decompositions of a trained model, by name. Configs need no torch; the registry is built when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitnla.methods.catalogue import METHODS
    from vitnla.methods.registry import Decomposition, Method

_HOMES = {"METHODS": "catalogue", "Decomposition": "registry", "Method": "registry"}
__all__ = ["METHODS", "Decomposition", "Method"]


def __getattr__(name: str) -> Any:
    """The thing of that name, from the module that holds it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
