"""How long names are broken: at their own joints, in charts and in the terminal."""

from __future__ import annotations

import re

_JOINTS = re.compile(r"(?<=[-_/ ])")


def fold(name: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken after hyphens, underscores, slashes and blanks; inside a part only where it is longer."""
    lines = [""]
    for part in _JOINTS.split(name):
        if len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]
