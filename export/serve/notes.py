"""README of a model repository, for its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.bundle.schema import Bundle

if TYPE_CHECKING:
    from export.serve.write import Packaged


def readme(bundle: Bundle, made: Packaged) -> str:
    """Return the README of a packaged repository."""
    return "\n".join(
        [
            f"# {bundle.name} for Triton Inference Server",
            "",
            "    tritonserver --model-repository=model_repository",
            "    kubectl apply -f inferenceservice.yaml      # once its storageUri is filled in",
            "",
            f"Models: {', '.join(made.models)}. Clients call `{made.entry}`.",
            "",
            *(f"- {note}" for note in made.notes),
            "",
        ]
    )
