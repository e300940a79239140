"""Import check of the libraries that models come from, all in one process as in a conversion."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from vitnla.common.schema import Record

LIBRARIES = {
    "torchvision": "from torchvision.models import vit_b_16",
    "timm": "from timm.models.vision_transformer import VisionTransformer",
    "transformers": "from transformers import ViTForImageClassification, ViTImageProcessor",
}
"""Package -> the import needed from it. torchvision comes first, since the other two import it where it is installed."""
_PROGRAM = """
import json, sys
for name, line in json.loads(sys.argv[1]).items():
    try:
        exec(line)
        found = None
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
    print(json.dumps([name, found]), flush=True)
"""
_TIMEOUT_S = 180.0


class LibraryCheck(Record):
    """Result of importing a library of models together with the others."""

    name: str
    version: str | None
    """Installed version; null where it is not installed."""
    ok: bool
    reason: str = ""
    """Reason for the failure, in one line."""
    remedy: str = ""


def check_libraries(lines: dict[str, str] | None = None) -> list[LibraryCheck]:
    """Import torchvision, timm and transformers in one fresh process, and return for each whether that worked.

    Args:
        lines: package -> the import to try, instead of `LIBRARIES`.
    """
    lines = LIBRARIES if lines is None else lines
    versions = {name: _version(name) for name in lines}
    found = _import({name: line for name, line in lines.items() if versions[name] is not None})
    return [_check(name, versions, found.get(name, "the process that imported it ended or hung")) for name in lines]


def _check(name: str, versions: dict[str, str | None], reason: str | None) -> LibraryCheck:
    here = versions[name]
    if here is None:
        return LibraryCheck(name=name, version=None, ok=False, reason="not installed", remedy=f"pip install {name}")
    if reason is None:
        return LibraryCheck(name=name, version=here, ok=True)
    remedy = f"pip install --upgrade {name}"
    if "torchvision::" in reason or name == "torchvision":
        remedy = "install torch and torchvision of one release and one build (both CPU, or both of one CUDA) from the same index"
    return LibraryCheck(name=name, version=here, ok=False, reason=" ".join(reason.split())[:200], remedy=remedy)


def _import(lines: dict[str, str]) -> dict[str, str | None]:
    """Return package -> reason why its import failed, `None` where it did not; omits packages that were not reached."""
    command = [sys.executable, "-c", _PROGRAM, json.dumps(lines)]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
    return dict(json.loads(line) for line in output.splitlines() if line.startswith("["))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
