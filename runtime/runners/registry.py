"""Names to runners. Nothing is imported until a runner is asked for."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from runtime.runners.base import Runner
from vitnla.common.errors import MissingDependencyError
from vitnla.common.registry import Registry

GROUP = "vitdeploy.runners"
_BUILT_IN = {
    "ort": "runtime.runners.ort:OrtRunner",
    "openvino": "runtime.runners.openvino_cpu:OpenVinoRunner",
    "trt": "runtime.runners.trt.runner:TrtRunner",
    "trt-rtx": "runtime.runners.trt.runner:TrtRtxRunner",
}
_FIXED_DELAY = "runtime.runners.fixed_delay:FixedDelayRunner"
"""Hidden; for `vitdeploy bench --self-test`."""


def runner_names() -> list[str]:
    """Every registered name, built-in or from an installed package, in alphabetical order."""
    return sorted(_registry())


def runner(name: str) -> Runner:
    """A new runner by its name.

    Raises:
        InputError: the name is not registered; lists those that are.
        MissingDependencyError: the module that defines it cannot be imported.
        ValueError: two packages register one name.
    """
    entry = EntryPoint(name, _FIXED_DELAY, GROUP) if name == "fixed-delay" else _registry()[name]
    try:
        made: Runner = entry.load()()
    except ImportError as error:
        message = f"runtime '{name}' cannot be imported from {entry.value}: {error}"
        raise MissingDependencyError(message, "install the package that it names") from error
    return made


def _registry() -> Registry[EntryPoint]:
    """Read anew each time: it is quick, and there is no cache to go stale when the path changes."""
    found: Registry[EntryPoint] = Registry("runtime")
    for name, value in _BUILT_IN.items():
        found.add(name, EntryPoint(name, value, GROUP))
    for entry in entry_points(group=GROUP):
        found.add(entry.name, entry)
    return found
