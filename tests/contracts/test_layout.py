"""The rooms and who may import whom; the packaging; the start-up time's cause."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from textwrap import dedent

import pytest

import export
import runtime
import vitnla

ROOT = Path(__file__).parents[2]
ROOMS = ("vitnla", "export", "runtime")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def offenders(room: str, allowed: tuple[str, ...]) -> list[str]:
    """Imports of a room from another room that are not allowed."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / room).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in ROOMS and not name.startswith(allowed)
    ]


def test_vitnla_knows_nothing_of_export_and_runtime() -> None:
    assert offenders("vitnla", ("vitnla",)) == []


def test_runtime_knows_only_the_foundations() -> None:
    assert offenders("runtime", ("runtime", "vitnla.common")) == []


EXPORT_FLOORS = (
    ("graph",), ("precision", "engine"), ("bundle", "latency"), ("from_onnx", "pipeline", "torch_runners", "layer_parity"),
    ("compare", "batch", "serve", "study"), ("tune",), ("cli",),
)  # fmt: skip
"""The sub-rooms of `export`, lowest first: each imports its own floor and those below."""


def test_no_arrow_of_export_runs_up() -> None:
    floor = {room: level for level, rooms in enumerate(EXPORT_FLOORS) for room in rooms}
    known = {path.stem for path in (ROOT / "export").iterdir() if path.is_dir() or path.suffix == ".py"} - {
        "__init__",
        "__pycache__",
    }
    assert known == set(floor)
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "export").rglob("*.py")
        if (own := path.relative_to(ROOT / "export").with_suffix("").parts[0]) != "__init__"
        for name in imports(path)
        if name.startswith("export.") and floor[name.split(".")[1]] > floor[own]
    ]
    assert upward == [], "\n".join(upward)


RUNNER_FLOORS = (
    ("availability", "traits", "ort_options"), ("base", "trt/cuda"), ("trt/library", "trt/inspector", "batches"),
    ("ort", "openvino_cpu", "fixed_delay", "trt/runner"), ("registry",), ("runtime_precision",),
)  # fmt: skip
"""The modules of `runtime.runners`, lowest first: the registry names runners and imports none of them."""


def test_no_arrow_of_the_runners_runs_up() -> None:
    folder = ROOT / "runtime/runners"
    floor = {name: level for level, names in enumerate(RUNNER_FLOORS) for name in names}
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.py") if path.stem != "__init__"
    }
    assert set(files) == set(floor)
    upward = [
        f"{own} imports {other}"
        for own, path in files.items()
        for name in imports(path)
        if (other := name.removeprefix("runtime.runners.").replace(".", "/")) in floor and floor[other] > floor[own]
    ]
    assert upward == []


def test_foundations_data_and_algebra_need_no_torch() -> None:
    for folder in ("vitnla/common", "vitnla/data", "vitnla/allocation", "vitnla/linalg"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.is_relative_to(ROOT / "vitnla/linalg/torch"):
                continue
            assert not [name for name in imports(path) if name.split(".")[0] in {"torch", "onnx", "onnxruntime"}], path


def test_the_algebra_and_the_path_of_an_onnx_file_run_without_torch() -> None:
    code = """
        import builtins, sys
        plain = builtins.__import__
        def without_torch(name, *rest, **named):
            if name.split(".")[0] == "torch":
                raise ImportError("torch is not installed")
            return plain(name, *rest, **named)
        builtins.__import__ = without_torch
        from importlib import import_module
        from pkgutil import iter_modules
        import numpy as np
        import export.from_onnx.export_onnx, vitnla.linalg
        from vitnla.methods import METHODS
        for module in iter_modules(vitnla.linalg.__path__, "vitnla.linalg."):
            import_module(module.name)
        from export.from_onnx.decompose import GRAPH_EDITS
        assert all(METHODS[name].works_on_graphs for name in GRAPH_EDITS)
        from vitnla.linalg.low_rank import whitened_svd
        print(whitened_svd(np.eye(3), np.eye(3), 2).rank, "torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("2 False", "")


def test_the_path_of_an_onnx_file_names_no_torch() -> None:
    for path in (ROOT / "export/from_onnx").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "torch"], path


@pytest.mark.parametrize("package", [vitnla, export, runtime])
def test_packages_are_the_folders_of_this_checkout(package: object) -> None:
    assert Path(str(package.__file__)).parent.parent == ROOT  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "statement",
    [
        "import runtime.bundle.schema, runtime.results.schema, runtime.runners.registry, runtime.bench.run",
        "import export.cli.main",
    ],
)
def test_start_up_loads_nothing_heavy(statement: str) -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'plotly'}"
    code = f"{statement}\nimport sys\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_module_shadows_a_library() -> None:
    names = {path.name for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert not names & {"onnx.py", "torch.py", "tensorrt.py", "openvino.py", "onnxruntime.py"}


def test_no_file_has_outgrown_its_job() -> None:
    long = {
        str(path): count
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def start_up_imports(path: Path) -> set[str]:
    """Our own modules that a file imports when it is itself imported: not those inside functions, nor those for the type checker."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_module_imports_itself_by_a_detour() -> None:
    files = {
        path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for room in ROOMS for path in (ROOT / room).rglob("*.py")
    }
    modules = {path: name.removesuffix(".__init__") for path, name in files.items()}
    known = set(modules.values())
    graph = {name: start_up_imports(path) & known - {name} for path, name in modules.items()}
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(known)
