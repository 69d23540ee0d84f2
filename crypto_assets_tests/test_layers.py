"""Imports run one way, as the design says, and importing does nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import crypto_assets

PACKAGE = "crypto_assets"
# From the top down; what stands on one line does not know of each other, but for ALLIES.
LAYERS = (
    grimp.Layer("docs"),
    grimp.Layer("cli", "notebooks"),
    grimp.Layer("operations"),
    grimp.Layer("definitions"),
    grimp.Layer("automation"),
    grimp.Layer("monitoring"),
    grimp.Layer("assets", "checks", independent=False),
    grimp.Layer("providers", "calculations", "warehouse", "plots"),
    grimp.Layer("settings", "periods", "tables", independent=False),
)
BESIDE = {"sandbox", "__main__"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, include_external_packages=True, cache_dir=None)


def importers_of(graph: grimp.ImportGraph, package: str) -> set[str]:
    """The parts of our package that import this library, or this part."""
    modules = {package}
    if package in graph.modules and not graph.is_module_squashed(package):
        modules |= graph.find_descendants(package)
    found = {
        importer
        for module in modules & graph.modules
        for importer in graph.find_modules_that_directly_import(module)
    }
    outside = {i for i in found if i != package and not i.startswith(f"{package}.")}
    return {i.removeprefix(f"{PACKAGE}.").split(".")[0] for i in outside}


def test_every_part_of_the_package_has_its_layer(graph: grimp.ImportGraph) -> None:
    layered = {part for layer in LAYERS for part in layer.module_tails}
    assert {name.split(".")[1] for name in graph.find_children(PACKAGE)} == layered | BESIDE


def test_imports_run_one_way(graph: grimp.ImportGraph) -> None:
    broken = graph.find_illegal_dependencies_for_layers(LAYERS, containers={PACKAGE})
    assert sorted(f"{b.importer} -> {b.imported}" for b in broken) == []


@pytest.mark.parametrize(
    "part", ["providers", "calculations", "plots", "periods", "settings", "tables"]
)
@pytest.mark.parametrize("library", ["dagster", "duckdb"])
def test_what_is_plain_python_knows_neither_dagster_nor_duckdb(
    graph: grimp.ImportGraph, part: str, library: str
) -> None:
    assert part not in importers_of(graph, library)


def test_only_orchestration_knows_dagster(graph: grimp.ImportGraph) -> None:
    # The I/O manager is the one place of the warehouse that is Dagster's too.
    assert importers_of(graph, "dagster") <= {
        *("operations", "definitions", "automation", "monitoring", "assets", "checks", "warehouse")
    }


@pytest.mark.parametrize("part", ["calculations", "plots", "periods", "settings", "tables"])
def test_what_is_pure_does_not_fetch(graph: grimp.ImportGraph, part: str) -> None:
    assert part not in importers_of(graph, "requests")


def test_the_sandbox_knows_nothing_of_the_rest(graph: grimp.ImportGraph) -> None:
    parts = {f"{PACKAGE}.sandbox"} | graph.find_descendants(f"{PACKAGE}.sandbox")
    known = {name for part in parts for name in graph.find_modules_directly_imported_by(part)}
    ours = {name for name in known if name == PACKAGE or name.startswith(f"{PACKAGE}.")}
    assert {name for name in ours if not name.startswith(f"{PACKAGE}.sandbox")} == set()


def test_nobody_but_the_command_line_and_operations_knows_the_sandbox(
    graph: grimp.ImportGraph,
) -> None:
    assert importers_of(graph, f"{PACKAGE}.sandbox") <= {"cli", "operations"}


# --- importing does nothing else

# Reports files opened outside the installation, anything made or changed, and connections.
AUDIT = """
import sys

allowed = sys.argv[2].split(":")
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink",
           "os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.copyfile", "shutil.move",
           "tempfile.mkstemp", "tempfile.mkdtemp", "sqlite3.connect"}
NETWORK = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
           "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}

def hook(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(path, int):
            return
        path = path.decode() if isinstance(path, bytes) else str(path)
        writes = (mode and set(mode) & set("wax+")) or (flags & 3)
        inside = any(path.startswith(start) for start in allowed)
        if path != "/dev/null" and (writes or not inside):
            print("open", path, mode)
    elif event in CHANGES | NETWORK and args[0] not in HARMLESS:
        print(event, *args[:2])

# Dagster's croniter asks the platform module how wide a pointer is, and that asks `file`.
HARMLESS = {"file"}
# When imported, filelock tries whether the temporary folder has hard links.
import filelock

sys.addaudithook(hook)
__import__(sys.argv[1])
heavy = ("dagster", "pandas", "duckdb", "matplotlib")
print("loaded", *(name for name in heavy if name in sys.modules))
"""


def what_importing_does(module: str, folder: Path) -> tuple[list[str], str]:
    """Import in a process of its own; tell what it did and which heavy libraries it loaded."""
    source = Path(crypto_assets.__file__).parents[1]
    # What an interpreter may read: itself, its libraries, the package, the system's own tables.
    installed = {
        sys.prefix,
        sys.base_prefix,
        f"{source}/{PACKAGE}/",
        f"{source}/{PACKAGE}.egg-info/",
    }
    allowed = ":".join(
        installed | {"__editable__", "/proc", "/sys", "/etc", "/usr", "/lib", "/dev/urandom"}
    )
    # Settings that would be refused if anybody read them.
    for name in ("crypto_assets.yaml", ".env"):
        (folder / name).write_bytes(b"\xff")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("CRYPTO_ASSETS_", "DAGSTER"))},
        "HOME": str(folder),
        "PYTHONPATH": str(source),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, module, allowed],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert {path.name for path in folder.iterdir()} == {"crypto_assets.yaml", ".env"}
    *did, loaded = done.stdout.splitlines()
    return did, loaded.removeprefix("loaded").strip()


@pytest.mark.parametrize("module", ["crypto_assets", "crypto_assets.cli"])
def test_the_command_line_loads_no_heavy_library(module: str, tmp_path: Path) -> None:
    assert what_importing_does(module, tmp_path) == ([], "")


def test_importing_the_definitions_fetches_opens_and_makes_nothing(tmp_path: Path) -> None:
    assert what_importing_does("crypto_assets.definitions", tmp_path)[0] == []


def test_the_providers_load_neither_dagster_nor_duckdb(tmp_path: Path) -> None:
    assert what_importing_does("crypto_assets.providers.coingecko", tmp_path) == ([], "pandas")


def test_plots_load_matplotlib_only_when_one_is_drawn(tmp_path: Path) -> None:
    assert what_importing_does("crypto_assets.plots", tmp_path) == ([], "pandas")
