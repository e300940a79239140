"""`vitdeploy methods`."""

from __future__ import annotations

from export.cli.output import Json, emit


def methods(json: Json = False) -> None:
    """List the decompositions."""
    from rich.console import Console
    from rich.table import Table

    from vitnla.methods import METHODS

    known = [METHODS[name] for name in METHODS]
    if json:
        emit({"methods": [{"name": method.name, "kind": method.kind, "summary": method.summary} for method in known]})
        return
    table = Table("method", "kind", "what it does", "settings (--set NAME=VALUE)", box=None)
    for method in known:
        table.add_row(
            method.name,
            method.kind,
            method.summary,
            " ".join(method.config.model_fields),
        )
    Console().print(table)
