"""A KServe InferenceService for the repository."""

from __future__ import annotations

import json
import re
from typing import Any

_STORAGE = "s3://BUCKET/model_repository"


def inference_service(name: str, gpu: bool) -> str:
    """Return the InferenceService as JSON, which is valid YAML; the operator fills in `storageUri`."""
    limits = {"cpu": "2", "memory": "4Gi", **({"nvidia.com/gpu": "1"} if gpu else {})}
    service: dict[str, Any] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63]},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "triton"},
                    "protocolVersion": "v2",
                    "storageUri": _STORAGE,
                    "resources": {
                        "limits": limits,
                        "requests": {"cpu": "1", "memory": "2Gi"} | ({"nvidia.com/gpu": "1"} if gpu else {}),
                    },
                }
            }
        },
    }
    return "# Put model_repository where the cluster can read it, and its address below.\n" + json.dumps(service, indent=2) + "\n"
