"""Registry of runners by name. A runner's module is imported on first use."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from runtime.runners.base import Runner
from runtime.runners.traits import Traits
from vitnla.common.errors import MissingDependencyError
from vitnla.common.plugins import load_plugin, plugins
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
    """Return every registered name, built-in or from an installed package, in alphabetical order."""
    return sorted(_registry())


def runner(name: str) -> Runner:
    """Return a new runner by its name.

    Raises:
        InputError: the name is not registered; lists those that are.
        MissingDependencyError: the module that defines it cannot be imported, or the runner has no traits.
        ValueError: two packages register one name.
    """
    entry = EntryPoint(name, _FIXED_DELAY, GROUP) if name == "fixed-delay" else _registry()[name]
    made: Runner = load_plugin("runtime", entry)()
    if not isinstance(getattr(made, "traits", None), Traits):
        message = f"runtime '{name}': expected {entry.value} to have `traits`, a Traits, got none"
        raise MissingDependencyError(message, "install a version of it that is written for this vitdeploy")
    return made


def traits(name: str) -> Traits:
    """Return the traits of a runtime.

    Raises:
        InputError, MissingDependencyError, ValueError: see `runner`.
    """
    return runner(name).traits


def known_traits() -> dict[str, Traits]:
    """Return the traits of every registered runtime by name, built-in ones first; omits those that cannot be imported."""
    found = {}
    for name in _registry():
        try:
            found[name] = traits(name)
        except MissingDependencyError:
            continue  # whoever asks for it by name is told why
    return found


def _registry() -> Registry[EntryPoint]:
    return plugins("runtime", GROUP, _BUILT_IN)
