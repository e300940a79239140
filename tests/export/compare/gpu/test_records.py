"""The shapes, the arithmetic and the file of the GPU suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.compare.gpu.records import GpuResults, Measurement, Row, achieved_tflops, resume, write
from export.compare.gpu.shapes import LINEARS, RANK_MULTIPLE, Shape, image_flops, shapes, vit_config
from vitnla.common.errors import InputError
from vitnla.model.cost import encoder_macs

MACHINE = {
    "cpu": "x",
    "packages": {"torch": "2"},
    "gpus": [{"name": "G", "capability": "SM90", "driver": "1", "sm_clock_mhz": 5}],
}
FRESH = GpuResults(name="test", command="gpu_suite.sh", machine=MACHINE)


def row(batch: int, failure: str | None = None) -> Row:
    measured = Measurement(
        host_ms=(2.0,), event_ms=(1.0,), launches=3, settled=True, tflops=1.0, ceiling_share=None, facts={"version": "2"}
    )
    return Row(
        path="torch-fp16", precision="fp16", size="S/16", variant="dense", batch=batch, flops=7,
        measured=None if failure else measured, failure=failure,
    )  # fmt: skip


def test_flops_of_vit_b_are_those_of_the_literature() -> None:
    assert image_flops(vit_config(Shape("B/16", "dense"))) == pytest.approx(2 * 17.58e9, rel=2e-3)  # 17.58 GMACs, as timm counts


@pytest.mark.parametrize("shape", [shape for shape in shapes() if shape.variant == "decomposed"], ids=str)
def test_ranks_are_multiples_and_halve_what_they_factorise(shape: Shape) -> None:
    config, dense = vit_config(shape), vit_config(Shape(shape.size, "dense"))
    ranks = [getattr(config.blocks[0].ranks, name) for name in LINEARS]
    assert ranks[1] is None
    assert all(rank % RANK_MULTIPLE == 0 and rank > 0 for rank in (ranks[0], *ranks[2:]))
    assert 0.45 < encoder_macs(config, dense).ratio < 0.56  # proj, a twelfth of the linears, stays whole


def test_tflops_are_by_the_median() -> None:
    assert achieved_tflops(4_000_000_000, (1.0, 2.0, 90.0)) == pytest.approx(2.0)


def test_a_file_is_carried_on_and_failures_are_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "gpu-test.json"
    write(path, FRESH.with_row(row(1)).with_row(row(8, "out of memory")))
    found = resume(path, FRESH.model_copy(update={"command": "again"}))
    assert (found.done, [one.batch for one in found.failed], found.command) == ({row(1).key}, [8], "again")
    assert [one.failure for one in found.with_row(row(8)).rows] == [None, None]


def test_clocks_do_not_make_another_machine_but_versions_do(tmp_path: Path) -> None:
    path = tmp_path / "gpu-test.json"
    write(path, FRESH)
    throttled = {**MACHINE, "gpus": [{**MACHINE["gpus"][0], "sm_clock_mhz": 9}]}  # type: ignore[dict-item]
    assert resume(path, FRESH.model_copy(update={"machine": throttled})).rows == ()
    newer = {**MACHINE, "packages": {"torch": "3"}}
    with pytest.raises(InputError, match="other versions: packages differ") as caught:
        resume(path, FRESH.model_copy(update={"machine": newer}))
    assert "--name" in caught.value.hint


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gpu-test.json"
    path.write_text(FRESH.to_json()[:40])
    with pytest.raises(InputError, match=r"gpu-test\.json"):
        resume(path, FRESH)
