"""Notes to the user about how input was read: one line on stderr, each text once per process."""

from __future__ import annotations

import logging
from functools import cache

_log = logging.getLogger("vitdeploy")


@cache
def note_once(text: str) -> None:
    """Log `text` as a warning, which Python prints on stderr where nobody configured logging; repeated texts are dropped.

    One command may load the same data several times, and says the same thing about them each time.
    """
    _log.warning("note: %s", text)
