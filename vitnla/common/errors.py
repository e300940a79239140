"""Errors for the user: one line, a hint, and an exit code; tracebacks are for bugs."""

from __future__ import annotations

from collections.abc import Iterable


class VitDeployError(Exception):
    """Base of every error that the user can correct.

    Args:
        message: one line with the expected and the found.
        hint: one line on what to do.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(VitDeployError):
    """A file, folder, name or number that was given is not usable (exit code 2)."""


class VerdictError(VitDeployError):
    """The work ran and its verdict is negative: parity or a budget was not met (exit code 1)."""

    exit_code = 1


class MissingDependencyError(VitDeployError):
    """A needed runtime, package or device is absent (exit code 3)."""

    exit_code = 3


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """Return the error for a name that is not known; it lists those that are."""
    return InputError(f"unknown {kind} '{name}'", f"choose one of: {', '.join(sorted(choices))}")
