"""Place the labels of the points of a chart so that they cover neither points, nor lines, nor one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHARACTER_PX, LINE_PX, GAP_PX = 6.6, 13.0, 8.0
"""Pixels, for an 11 px sans-serif face: mean width of a character, height of a line; and the distance from a point's centre."""
_TOLERATED = 0.15
"""A label of which more than this share of its area is covered on every side is left out."""


@dataclass(frozen=True)
class Side:
    """Direction from a point to its label: -1 is left or up, 1 right or down, 0 in line with the point."""

    across: int
    down: int

    @property
    def plotly(self) -> str:
        """Plotly's `textposition`."""
        return f"{('top', 'middle', 'bottom')[self.down + 1]} {('left', 'center', 'right')[self.across + 1]}"

    @property
    def anchor(self) -> str:
        """SVG's `text-anchor`."""
        return ("end", "middle", "start")[self.across + 1]


SIDES = (Side(1, 0), Side(1, -1), Side(-1, 0), Side(-1, -1), Side(1, 1), Side(-1, 1), Side(0, -1), Side(0, 1))
"""The sides of a point, in order of preference."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: Box) -> float:
        """Return the area of the intersection, square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


def place_labels(
    points: Sequence[tuple[float, float]], texts: Sequence[str], obstacles: Sequence[Box], area: Box
) -> list[Side | None]:
    """Return a side for each text, chosen greedily in the order given; None where every side is covered, or the text is empty.

    Args:
        points: centres of the points in pixels.
        texts: their labels, of one line each.
        obstacles: boxes that labels must not cover, those of the points included.
        area: labels stay inside it.
    """
    taken = list(obstacles)
    sides: list[Side | None] = []
    for point, text in zip(points, texts, strict=True):
        chosen = _best(point, text, taken, area) if text else None
        if chosen is not None:
            taken.append(label_box(point, text, chosen))
        sides.append(chosen)
    return sides


def label_box(point: tuple[float, float], text: str, side: Side) -> Box:
    """Return the rectangle of a label on that side of its point."""
    width, (x, y) = CHARACTER_PX * len(text), point
    left = {-1: x - GAP_PX - width, 0: x - width / 2, 1: x + GAP_PX}[side.across]
    # Beside the point the label is centred on its height; above and below it, corners included, it keeps the gap, as Plotly's does.
    middle = y + side.down * (GAP_PX + LINE_PX / 2)
    return Box(left, middle - LINE_PX / 2, left + width, middle + LINE_PX / 2)


def line_boxes(start: tuple[float, float], end: tuple[float, float], step: float = 4.0) -> Iterator[Box]:
    """Yield boxes of 4 x 4 pixels that cover a straight line, `step` pixels apart."""
    (x0, y0), (x1, y1) = start, end
    count = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / step))
    for index in range(count + 1):
        x, y = x0 + (x1 - x0) * index / count, y0 + (y1 - y0) * index / count
        yield Box(x - 2, y - 2, x + 2, y + 2)


def _best(point: tuple[float, float], text: str, taken: Sequence[Box], area: Box) -> Side | None:
    def covered(side: Side) -> float:
        box = label_box(point, text, side)
        size = (box.right - box.left) * (box.bottom - box.top)
        return (size - box.shared(area) + sum(box.shared(other) for other in taken)) / size

    best = min(SIDES, key=covered)
    return best if covered(best) <= _TOLERATED else None
