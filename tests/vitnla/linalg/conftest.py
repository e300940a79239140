"""Every test of the algebra runs on both libraries and on both types."""

from __future__ import annotations

import pytest

from tests.helpers.arrays import LIBRARIES, Library


@pytest.fixture(params=LIBRARIES, scope="session")
def array(request: pytest.FixtureRequest) -> Library:
    return LIBRARIES[request.param]
