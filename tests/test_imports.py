"""Imports run downward through the layers of ARCHITECTURE.md, and the light packages stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top down. A module may import its own package and those of lower layers, not others of the same layer.
LAYERS: tuple[set[str], ...] = (
    {"__main__"},
    {"cli"},
    {"workflow"},
    {"report", "verification"},
    {"training"},
    {"evaluation"},
    {"baselines"},
    {"preparation"},
    {"provenance", "run_folder"},
    {"models"},
    {"data"},
    {"records"},
    {"paper"},
    {"locks", "interrupts", "atomic", "formatting", "processors", "compiled_loops", "launchers", "remote"},
    {"errors", "notes"},
)
HEAVY = {"torch", "torchvision", "timm"}
LIGHT = ("report", "records", "paper")  # they import none of these


def modules() -> dict[str, Path]:
    paths = sorted((ROOT / "repro").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in it, but not for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    """The name below `repro` that stands for a module's layer: its package, or the module itself."""
    return module.split(".")[1] if "." in module else ""


def layer(name: str) -> int:
    found = [index for index, names in enumerate(LAYERS) if name in names]
    assert found, f"repro.{name} belongs to no layer: add it to LAYERS and to ARCHITECTURE.md"
    return found[0]


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_lower_layers(module: str) -> None:
    here, packages = package(module), {package(each) for each in modules()}
    if not here:  # `repro` itself exports functions of its packages
        return
    for name in imports(modules()[module]):
        there = package(name) if name.startswith("repro.") else ""
        if there in packages - {"", here}:
            assert layer(here) < layer(there), f"{module} imports {name}"


@pytest.mark.parametrize("name", LIGHT)
def test_report_records_and_paper_import_no_torch(name: str) -> None:
    below = [module for module in modules() if package(module) == name and not module.endswith("__main__")]
    code = f"import sys\nfor name in {below!r}: __import__(name)\nprint({HEAVY!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
    for module in below:
        assert not {each.split(".")[0] for each in imports(modules()[module])} & HEAVY, module
