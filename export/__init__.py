"""Export of decomposed models to verified bundles, and the tools on top: tune, compare, serve, the command line.

docs/api.md describes the public names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.bundle.from_model import export_bundle
    from export.bundle.plan import ExportOptions

_HOMES = {"ExportOptions": "export.bundle.plan", "export_bundle": "export.bundle.from_model"}
__all__ = ["ExportOptions", "export_bundle"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'export' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
