"""Run and measure bundles. Imports only `vitnla.common`, and works where torch is not installed.

The names of docs/api.md can be imported from here; each is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.bundle.api import load_bundle, open_session
    from runtime.bundle.schema import Bundle, Manifest
    from runtime.runners.base import Session
    from runtime.runners.registry import runner_names

_MODULES = {
    "Bundle": "runtime.bundle.schema", "Manifest": "runtime.bundle.schema", "Session": "runtime.runners.base", "load_bundle": "runtime.bundle.api",
    "open_session": "runtime.bundle.api", "runner_names": "runtime.runners.registry",
}  # fmt: skip
__all__ = ["Bundle", "Manifest", "Session", "load_bundle", "open_session", "runner_names"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'runtime' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
