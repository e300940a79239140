"""Measure what this machine's GPU runtimes make of dense and decomposed ViT shapes; see docs/gpu.md.

scripts/gpu_suite.sh --name NAME [-o FOLDER]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from export.cli.output import complain, say
from export.compare.gpu.bundle_paths import bundle_paths
from export.compare.gpu.records import GpuResults, resume
from export.compare.gpu.suite import exit_code, run_suite
from export.compare.gpu.torch_path import matmul_ceiling, torch_paths
from runtime.machine.facts import machine_facts
from vitnla.common.errors import VitDeployError


def main() -> int:
    """Carry on the file of that name, or begin one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the machine, such as h100: the file is gpu-NAME.json")
    parser.add_argument("-o", "--output", type=Path, default=Path("results"), help="its folder")
    parser.add_argument("--work", type=Path, default=Path("artifacts/gpu"), help="where bundles and engines are kept")
    asked = parser.parse_args()
    file = asked.output / f"gpu-{asked.name}.json"
    command = shlex.join(["scripts/gpu_suite.sh", *sys.argv[1:]])
    try:
        results = resume(file, GpuResults(name=asked.name, command=command, machine=machine_facts()))
        paths = (*torch_paths(), *bundle_paths(asked.work, command))
        results = run_suite(paths, results, file, say, matmul_ceiling)
    except VitDeployError as error:
        complain(error)
        return error.exit_code
    measured = len(results.done)
    say(f"{file}: {measured} rows measured, {len(results.failed)} failed, {len(results.skipped)} paths skipped")
    if not results.rows:
        say(
            "error: nothing here can be measured\nhint:  "
            + "; ".join(dict.fromkeys(part for one in results.skipped for part in one.remedy.split("; ")))
        )
    return exit_code(results)


if __name__ == "__main__":
    sys.exit(main())
