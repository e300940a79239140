"""Batch evaluation by local processes: what is written, what is kept, and what happens when something breaks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.batch.evaluate import EvaluationRequest, Summary, evaluate
from export.graph.inputs import bundle_preparation
from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle
from runtime.process.child import Child
from runtime.runners.base import RunOptions
from runtime.runners.registry import runner
from tests.helpers.bundles import copy_bundle
from tests.helpers.evaluations import quiet, rows
from tests.helpers.images import BAD, GOOD, write_images
from vitnla.common.errors import InputError
from vitnla.data.image_files import ImageFiles


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of the bundle's ten, each of 14 images of several kinds; two files of class `b` are broken."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in "abc":
        for number, mode in enumerate(("L", "RGB", "RGBA", "CMYK", "P", "L", "L") * 2):
            (root / label).mkdir(exist_ok=True)
            image = Image.fromarray(generator.integers(0, 256, (12, 9, 3), np.uint8)).convert(mode)
            image.save(root / label / f"{number:02d}.{'tif' if mode == 'CMYK' else 'png'}")
    whole = (root / "b" / "00.png").read_bytes()
    (root / "b" / "00.png").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "05.png").write_text("no image")
    return root


def request(bundle: Bundle, data: Path, output: Path, **changes: object) -> EvaluationRequest:
    values: dict[str, object] = {
        "bundle": bundle, "target": Target("ort"), "data": f"folder:{data}", "split": "all", "destination": output,
        "engine": "local", "address": None, "workers": 1, "threads": 1, "batch": 4, "shard": 6, "limit": None, "repeat": 1,
        "replace": False,
    }  # fmt: skip
    return EvaluationRequest(**{**values, **changes})  # type: ignore[arg-type]


def kill_one(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the first process that is told to do a shard killed right then."""
    killed: list[int] = []
    ask = Child.ask

    def asked(self: Child, command: str, extra_s: float = 0.0, **arguments: object) -> dict[str, object]:
        if command == "shard" and not killed:
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)
        return ask(self, command, extra_s, **arguments)

    monkeypatch.setattr(Child, "ask", asked)
    return killed


def check_whole(output: Path, summary: Summary, photos: Path) -> None:
    """Every image once, the two broken ones with their reason."""
    found = rows(output)
    assert [row["index"] for row in found] == list(range(42))
    assert {row["path"] for row in found} == {str(path) for path in photos.rglob("*.*")}
    assert (summary.images, summary.unreadable, summary.labelled) == (42, 2, 40)
    broken = {Path(str(row["path"])).name: row for row in found if row["error"]}
    assert sorted(broken) == ["00.png", "05.png"]
    assert all("expected a complete image file" in str(row["error"]) and row["predicted"] is None for row in broken.values())
    assert len((output / "unreadable.jsonl").read_text().splitlines()) == 2


def test_predictions_are_those_of_the_runner(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    summary = evaluate(request(tiny_bundle, photos, tmp_path / "out", workers=2), quiet)
    check_whole(tmp_path / "out", summary, photos)
    session = runner("ort").load(tiny_bundle, RunOptions(1))
    prepare, right = bundle_preparation(tiny_bundle), 0
    for row in rows(tmp_path / "out"):
        label = Path(str(row["path"])).parent.name
        assert row["label"] == "abc".index(label)
        if row["error"]:
            continue
        logits = session.run(prepare(ImageFiles(Path("/"), (str(row["path"]),))))[0].astype(np.float64)
        wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(row["probabilities"], wanted, atol=1e-5)
        assert row["predicted"] == logits.argmax() == row["top5"][0]  # type: ignore[index]
        assert row["name"] == "abcdefghij"[int(logits.argmax())]
        assert len(row["top5"]) == 5  # type: ignore[arg-type]
        right += logits[:3].argmax() == row["label"]  # the data have three of the ten classes
    assert summary.top1 == pytest.approx(right / 40)
    assert summary.scored_classes == 3


def test_a_second_run_keeps_what_is_done_and_mends_what_is_not(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    wanted = request(tiny_bundle, photos, tmp_path / "out")
    first = evaluate(wanted, quiet)
    before = rows(tmp_path / "out")
    parts = sorted((tmp_path / "out" / "parts").iterdir())
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    (tmp_path / "out" / "parts" / f".{parts[3].name}.x1").write_bytes(parts[3].read_bytes())  # a writer killed before its rename
    times = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    again = evaluate(wanted, quiet)
    assert again.resumed == 42 - 12
    assert rows(tmp_path / "out") == before
    assert [path.name for path, time in times.items() if path.stat().st_mtime_ns != time] == [parts[2].name]
    assert again.top1 == first.top1
    assert evaluate(wanted, quiet).images_per_s is None


def test_a_killed_worker_loses_and_doubles_nothing(
    tiny_bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = kill_one(monkeypatch)
    summary = evaluate(request(tiny_bundle, photos, tmp_path / "out"), quiet)
    assert len(killed) == 1
    check_whole(tmp_path / "out", summary, photos)


def test_a_run_that_is_stopped_goes_on_where_it_was(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    def stop(done: float, total: float, item: str) -> None:
        if done:
            raise KeyboardInterrupt

    wanted = request(tiny_bundle, photos, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        evaluate(wanted, stop)
    summary = evaluate(wanted, quiet)
    assert 0 < summary.resumed < 42
    check_whole(tmp_path / "out", summary, photos)


def test_another_evaluation_or_folder_is_refused(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    evaluate(request(tiny_bundle, photos, tmp_path / "out", limit=6), quiet)
    with pytest.raises(InputError, match="holds an evaluation with batch 4, expected 8"):
        evaluate(request(tiny_bundle, photos, tmp_path / "out", limit=6, batch=8), quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(InputError, match="is no evaluation"):
        evaluate(request(tiny_bundle, photos, tmp_path / "mine"), quiet)
    assert (tmp_path / "mine" / "file").exists()


def test_images_without_classes_and_a_bundle_without_labels(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "nameless", labels=())
    summary = evaluate(request(bundle, photos / "a", tmp_path / "out", repeat=2), quiet)
    assert (summary.images, summary.labelled, summary.top1) == (28, 0, None)
    found = rows(tmp_path / "out")
    assert all(row["name"] is None and row["label"] is None and row["predicted"] is not None for row in found)
    assert [row["predicted"] for row in found[:14]] == [row["predicted"] for row in found[14:]]


def test_odd_images_are_read_or_listed_with_their_reason(tiny_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    write_images(folder)
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(folder / "float.tif")
    summary = evaluate(request(tiny_bundle, folder, tmp_path / "out"), quiet)
    found = {Path(str(row["path"])).name: row for row in rows(tmp_path / "out")}
    reasons = {name: str(row["error"]) for name, row in found.items() if row["error"]}
    assert set(reasons) == {*BAD, "float.tif"} - {"missing.png"}
    assert "exceeds limit" in reasons["huge.png"]
    assert "32 bits a channel (mode F)" in reasons["float.tif"]
    assert summary.peak_rss_mb < 1_000  # huge.png alone would take 400 MB as grey, 1,200 as RGB
    read = {name: np.asarray(found[name]["probabilities"], np.float32) for name in GOOD}
    for name, like in (("grey16.png", "grey.png"), ("animated.gif", "photo.png"), ("alpha.png", "photo.png")):
        np.testing.assert_allclose(read[name], read[like], atol=0.02, err_msg=name)
    np.testing.assert_allclose(read["rotated.jpg"], read["tall.jpg"], atol=1e-6)  # the pixels as they are stored
