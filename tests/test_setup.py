"""The house rules that are cheap to check: dependencies, layers, and what stays out."""

import ast
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lusbio
from lusbio.files import ROOT
from lusbio.publish.run_notebook import MACHINE_PATH

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [*map(Requirement, lines)] for name, lines in PROJECT["optional-dependencies"].items()}
DECLARED = [*RUNTIME, *EXTRAS["dev"], *EXTRAS["cluster"]]
PINS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    )
}
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


# --- dependencies: one list in three files ---


def test_pins_are_exact_and_name_no_place():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_every_declared_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def _everything_pulled_in() -> Iterator[importlib.metadata.Distribution]:
    """Distributions reachable from the declared ones, as far as they are installed here."""
    todo, seen = list(DECLARED), set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield distribution
        for line in distribution.requires or []:
            needed = Requirement(line)
            extras = requirement.extras | {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)


def test_whatever_the_dependencies_pull_in_is_pinned_too():
    names = {canonicalize_name(distribution.metadata["Name"]) for distribution in _everything_pulled_in()}
    # What a CUDA build of torch brings along follows from that build; the pins are for all builds.
    unpinned = {name for name in names - set(PINS) if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert unpinned == set()


def test_pins_install_on_the_oldest_python():
    """Debian 12 has Python 3.11.2, and some packages want 3.11.5."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for distribution in _everything_pulled_in():
        name = canonicalize_name(distribution.metadata["Name"])
        if PINS.get(name) == distribution.version:
            needs = SpecifierSet(distribution.metadata.get("Requires-Python") or "")
            assert needs.contains(oldest), f"{name} {distribution.version} needs Python {needs}"


def test_every_runtime_dependency_has_the_same_range_in_conda_s_file():
    yaml = pytest.importorskip("yaml")
    lines = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = {requirement.name: requirement for requirement in map(Requirement, lines)}
    assert conda["python"].specifier == SpecifierSet(PROJECT["requires-python"])
    for requirement in RUNTIME:
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        assert name in conda, f"environment.yml has no line for {requirement}"
        assert conda[name].specifier == requirement.specifier
    for tool in ("pytest", "ruff", "nbstripout", "PyYAML"):
        (wanted,) = [requirement for requirement in EXTRAS["dev"] if requirement.name == tool]
        assert conda[tool.lower()].specifier == wanted.specifier
    assert "av" in conda, "imageio[pyav] has no extras in conda"


def test_every_line_of_conda_s_file_says_why():
    for line in (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines():
        if line.startswith("  - ") and "conda-forge" not in line:
            assert re.search(r"  # \w", line), line


def test_pre_commit_uses_the_pinned_versions_and_strips_what_make_strips():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, version in re.findall(r"\[(\w+)==([\d.]+)\]", text):
        assert PINS[name] == version
    keys = [set(re.search(r'--extra-keys "(.*?)"', file, re.DOTALL)[1].split()) for file in (text, makefile)]
    assert keys[0] - {"\\"} == keys[1] - {"\\"}


def test_the_citation_is_of_this_version_and_of_the_paper():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lusbio.__version__
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2206.08398"
    assert [author["family-names"] for author in paper["authors"]][::11] == ["Gare", "Galeotti"]
    assert len(paper["authors"]) == 12


# --- the package: who may import what ---

LAYERS = (
    "vocabulary profiles errors files paths",
    "videos splits metrics weighted_metrics statistics models simulation",
    "cohorts clips experts labels progress",
    "training",
    "runs resident many_videos cluster",
    "assembly grid mixed",
    "evidence execution",
    "decisions provenance scoring transfer",
    "tables biomarker_tables routes elsewhere final",
    "comparison label_efficiency agreement importance closer_look explanations generalization",
    "leakage leakage_tables",
    "real_patients real_patients_decisions real_patients_tables",
    "figures",
    "result_figures drawings page_contents page_tables paper_page cli notebooks",
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
MODULES = [path for path in sorted((ROOT / "lusbio").rglob("*.py")) if path != ROOT / "lusbio/__init__.py"]
IMPORT_NAMES = {
    "pytorch-lightning": "pytorch_lightning",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "dask-jobqueue": "dask_jobqueue",
}
HEAVY = {
    *("av", "imageio", "pooch", "pandera", "skops", "pydicom", "papermill", "nbconvert", "nbformat"),
    *("jupyter_client", "IPython", "dask", "distributed", "dask_jobqueue", "monai"),
}


def _room(path: Path) -> str:
    """The module or subpackage of lusbio that a file belongs to."""
    return path.relative_to(ROOT / "lusbio").parts[0].removesuffix(".py")


def _imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, also within functions unless ``top_level``."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: import by the full name, lusbio..."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))


def _roots(path: Path, *, top_level: bool = False) -> set[str]:
    return {name.split(".")[0] for name in _imports(path, top_level=top_level)}


def _rooms_imported(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in _imports(path) if name.startswith("lusbio.")}
    return names - {"__version__", _room(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_never_go_up(path):
    room = _room(path)
    assert room in LEVEL, f"{room} has no layer: add it to LAYERS, where design puts it"
    above = {name for name in _rooms_imported(path) if LEVEL[name] > LEVEL[room]}
    assert above == set(), f"{room} is below {above}"


def test_no_two_rooms_import_each_other():
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        graph.setdefault(_room(path), set()).update(_rooms_imported(path))
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_imports_wait_until_they_are_needed(path):
    at_import = _roots(path, top_level=True)
    assert at_import & HEAVY == set()
    if _room(path) not in ("models", "clips", "training", "progress", "assembly", "resident"):
        assert at_import & {"torch", "pytorch_lightning"} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_room_keeps_to_its_own_libraries(path):
    room, used = _room(path), _roots(path)
    if room != "videos":
        assert used & {"av", "imageio"} == set(), "only videos.py opens or writes a video"
    if room != "notebooks":
        assert used & {"papermill", "nbconvert", "nbformat"} == set(), "only notebooks.py runs notebooks"
    if room in ("tables", "figures"):
        assert used & {"torch", "pytorch_lightning"} == set(), "tables and figures know nothing of torch"
    if room == "models":
        assert _rooms_imported(path) <= {"errors", "files", "paths"}, "models know nothing of ultrasound"


def test_every_import_is_declared():
    declared = {IMPORT_NAMES.get(r.name, r.name) for r in [*RUNTIME, *EXTRAS["cluster"]]}
    # jupyter_client comes with ipykernel, distributed with dask.
    allowed = declared | {"lusbio", "jupyter_client", "distributed"} | set(sys.stdlib_module_names)
    assert {path.name: _roots(path) - allowed for path in MODULES if _roots(path) - allowed} == {}


# --- what stays out of the repository ---


def _written_files() -> list[Path]:
    """What git tracks or would track, without what only bytes can tell."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_no_file_holds_a_path_of_one_machine():
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in _written_files()
        if (match := MACHINE_PATH.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}


def test_nothing_imports_pickle_or_torchvision():
    unsafe = re.compile(
        r"^\W*(import|from) (pickle|cloudpickle|dill|torchvision)\b|allow_pickle=True|joblib\.(load|dump)\("
        r"|weights_only=False",
        flags=re.MULTILINE,
    )
    sources = [path for path in _written_files() if path.suffix in (".py", ".ipynb") and path != Path(__file__)]
    found = {path.name: match.group() for path in sources if (match := unsafe.search(path.read_text("utf-8")))}
    assert found == {}
