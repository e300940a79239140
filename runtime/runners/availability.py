"""Availability of a runtime on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from vitnla.common.errors import MissingDependencyError


@dataclass(frozen=True)
class Availability:
    """Availability of a runtime here; if it is unavailable, the reason and the remedy, one line each."""

    ok: bool
    reason: str = ""
    remedy: str = ""

    def require(self, name: str) -> None:
        """Raise if the runtime cannot run.

        Raises:
            MissingDependencyError: with the reason and the remedy.
        """
        if not self.ok:
            raise MissingDependencyError(f"runtime '{name}' cannot run here: {self.reason}", self.remedy)
