"""The files of each target's example. They are kept in `templates/` as they are written, so they can be read and linted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitnla.common.registry import Registry

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Target:
    """An example.

    Args:
        files: path in the example -> path below `TEMPLATES`.
        start: the commands that a reader types first, in the example's folder.
    """

    files: Mapping[str, str]
    start: str


TARGETS: Registry[Target] = Registry("target")
TARGETS.add(
    "python",
    Target(
        {"classify.py": "python/classify.py", "requirements.txt": "python/requirements.txt", "README.md": "python/README.md"},
        "pip install -r requirements.txt && python classify.py",
    ),
)
TARGETS.add(
    "node",
    Target(
        {
            "classify.mjs": "node/classify.mjs", "preprocess.mjs": "shared/preprocess.mjs", "package.json": "node/package.json",
            ".npmrc": "node/npmrc", "README.md": "node/README.md",
        },
        "npm install && node classify.mjs",
    ),
)  # fmt: skip
TARGETS.add(
    "web",
    Target(
        {
            **{name: f"web/{name}" for name in (
                "index.html", "style.css", "app.js", "classifier.js", "picture.js", "copy-runtime.mjs", "serve.mjs", "package.json",
                "README.md",
            )},
            "preprocess.mjs": "shared/preprocess.mjs",
        },
        "npm install && npm start",
    ),
)  # fmt: skip
TARGETS.add(
    "cpp",
    Target(
        {
            name: f"cpp/{name}"
            for name in (
                "CMakeLists.txt", "main.cpp", "classifier.hpp", "settings.hpp", "preprocess.hpp", "images.hpp", "images.cpp",
                "orientation.hpp", "README.md",
            )
        },
        "cmake -B build && cmake --build build -j && build/classify",
    ),
)  # fmt: skip
