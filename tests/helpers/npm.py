"""The packages of the examples for Node and the web."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.apps.targets import TARGETS, TEMPLATES


def npm_install(target: str, names: tuple[str, ...], folder: Path) -> None:
    """What a user types first, in a folder with these files of an example; the test is skipped where npm cannot."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node and npm")
    for name in names:
        shutil.copyfile(TEMPLATES / TARGETS[target].files[name], folder / name)
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"npm install: {done.stderr.strip().splitlines()[-1]}")
