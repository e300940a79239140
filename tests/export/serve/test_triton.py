"""The Triton repository: read back through Triton's own schema, its preprocessing run, its batches chosen from measurements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.serve.batches import batches, within
from export.serve.config import model_config
from export.serve.write import REPOSITORY, TritonRequest, write_repository
from runtime.bundle.schema import Bundle, TensorSpec
from tests.helpers.bundles import copy_bundle
from tests.helpers.cells import cell
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset
from vitnla.data.preprocessing import Preprocessing


def parsed(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_every_config_is_triton_s_own_schema_and_names_files_that_are_there(tiny_bundle: Bundle, tmp_path: Path) -> None:
    made = write_repository(TritonRequest(tiny_bundle, None, 2, "cpu"), tmp_path / "out", replace=False)
    repository = tmp_path / "out" / REPOSITORY
    assert sorted(made.models) == sorted(folder.name for folder in repository.iterdir())
    for name in made.models:
        config = parsed(repository / name / "config.pbtxt")
        assert config.name == name
        assert config.max_batch_size == 32
        assert (repository / name / "1").is_dir()
        for tensor in config.output:
            if tensor.label_filename:
                assert (repository / name / tensor.label_filename).read_text().split() == list("abcdefghij")
    model = parsed(repository / tiny_bundle.name / "config.pbtxt")
    assert (model.backend, model.instance_group[0].count) == ("onnxruntime", 2)
    assert list(model.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert [warm.batch_size for warm in model.model_warmup] == [8, 16, 32]
    for warm in model.model_warmup:
        size = (repository / tiny_bundle.name / "warmup" / warm.inputs["images"].input_data_file).stat().st_size
        assert size == 4 * 8 * 8
    service = json.loads((tmp_path / "out" / "inferenceservice.yaml").read_text().partition("\n")[2])
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] == "triton"
    assert any("no model for the TensorRT backend" in note for note in made.notes)


def test_the_ensemble_prepares_pixels_as_we_do(tiny_bundle: Bundle, tiny_data: Dataset, tmp_path: Path) -> None:
    made = write_repository(TritonRequest(tiny_bundle, None, 1, "auto"), tmp_path / "out", replace=False)
    repository = tmp_path / "out" / REPOSITORY
    ensemble = parsed(repository / made.entry / "config.pbtxt")
    assert ensemble.platform == "ensemble"
    value = {"pixels": tiny_data.split("test").pixels()}
    for step in ensemble.ensemble_scheduling.step:  # as Triton does it: tensors of the ensemble to those of a model, and back
        session = onnxruntime.InferenceSession(repository / step.model_name / "1" / "model.onnx")
        answers = session.run(list(step.output_map), {own: value[outer] for own, outer in step.input_map.items()})
        value |= dict(zip(step.output_map.values(), answers, strict=True))
    prepared = Preprocessing.model_validate(tiny_bundle.manifest.preprocessing)(tiny_data.split("test").images)
    np.testing.assert_allclose(value["prepared"], prepared, atol=1e-5)
    direct = onnxruntime.InferenceSession(tiny_bundle.model_path).run(None, {"images": prepared})[0]
    np.testing.assert_allclose(value["logits"], direct, atol=1e-4)


def test_a_folder_that_exists_is_refused_and_stays(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    request = TritonRequest(tiny_bundle, None, 1, "auto")
    with pytest.raises(InputError, match="already exists"):
        write_repository(request, tmp_path / "out", replace=False)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    write_repository(request, tmp_path / "out", replace=True)
    assert not (tmp_path / "out" / "mine.txt").exists()
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        write_repository(TritonRequest(tiny_bundle, None, 1, "tpu"), tmp_path / "other", replace=False)
    assert not (tmp_path / "other").exists()


def test_a_bundle_without_labels_names_no_labels_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "nameless", labels=())
    made = write_repository(TritonRequest(bundle, None, 1, "auto"), tmp_path / "out", replace=False)
    assert not list((tmp_path / "out").rglob("labels.txt"))
    assert any("no labels" in note for note in made.notes)


def test_a_graph_of_a_fixed_batch_is_no_batching_model(tiny_bundle: Bundle, tmp_path: Path) -> None:
    fixed = tiny_bundle.manifest.input.model_copy(update={"shape": (4, 1, 8, 8)})
    answer = TensorSpec(name="logits", dtype="float32", shape=(4, 10))
    bundle = copy_bundle(tiny_bundle, tmp_path / "fixed", input=fixed, output=answer)
    config = model_config("m", "onnxruntime", bundle, batches([], "m", ("ort",)), 1, "KIND_CPU")
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [4, 1, 8, 8])
    assert not config.HasField("dynamic_batching")


def test_batches_are_those_that_bench_found_best() -> None:
    rates = ((1, 100.0), (8, 300.0), (16, 310.0), (64, 200.0))
    cells = [cell("m", rate, 0.9, batch=batch) for batch, rate in rates] + [cell("other", 9000.0, 0.9, batch=128)]
    found = batches(cells, "m", ("ort",))
    assert (found.preferred, found.largest, found.measured) == ((8, 16), 16, True)
    assert within(found, 8).preferred == (8,)
    assert within(found, 4).preferred == (4,)
    assert not batches(cells, "absent", ("ort",)).measured
