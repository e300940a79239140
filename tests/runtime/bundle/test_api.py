"""`from runtime import load_bundle, open_session`, where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime import load_bundle, open_session, runner_names
from runtime.bundle.schema import Bundle
from vitnla.common.errors import InputError

ROOT = Path(__file__).parents[3]
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it is then an ImportError
import numpy as np
from runtime import load_bundle, open_session
bundle = load_bundle(sys.argv[1])
images, expected = bundle.reference()
answers = open_session(bundle, threads=1).run(images)
print(float(np.abs(answers - expected).max() / np.abs(expected).max()))
"""


def test_runs_a_bundle_where_torch_cannot_be_imported(tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tiny_bundle.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0 <= float(done.stdout) < 1e-4


def test_a_session_opens_from_a_folder_and_answers_the_reference(tiny_bundle: Bundle) -> None:
    images, expected = load_bundle(str(tiny_bundle.folder)).reference()
    session = open_session(str(tiny_bundle.folder), threads=1)
    np.testing.assert_allclose(session.run(images), expected, atol=1e-4)
    assert session.facts()["threads"] == 1


def test_says_what_is_wrong(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a bundle"):
        load_bundle(tmp_path)
    with pytest.raises(InputError, match="unknown runtime 'oort'"):
        open_session(tiny_bundle, "oort")


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(runtime, name) is not None for name in runtime.__all__)
    assert "ort" in runner_names()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        runtime.nothing  # noqa: B018
