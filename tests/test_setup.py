"""The house rules that are cheap to check: dependencies, rooms, sizes, and what stays out."""

import ast
import functools
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_anatomy import MACHINE_PATH
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lusbio
from lusbio.files import ROOT
from lusbio.runs.spec import BACKBONE_FILES, DECIDING

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [*map(Requirement, lines)] for name, lines in PROJECT["optional-dependencies"].items()}
DECLARED = [*RUNTIME, *EXTRAS["dev"], *EXTRAS["cluster"], *EXTRAS["label"]]
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
    for tool in ("pytest", "pytest-xdist", "ruff", "nbstripout", "PyYAML"):
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

GROUND = "vocabulary profiles errors files"
BELOW_PAPER = f"{GROUND} dicom videos simulation statistics cohorts signs network runs experts report scoring labelling"
ROOMS = {
    **dict.fromkeys(GROUND.split(), ""),
    "dicom": GROUND,
    "videos": f"{GROUND} dicom",
    "simulation": GROUND,
    "statistics": GROUND,
    "cohorts": f"{GROUND} dicom videos simulation",
    "signs": f"{GROUND} videos",
    "network": f"{GROUND} videos",
    "runs": f"{GROUND} videos cohorts network",
    "experts": f"{GROUND} videos statistics cohorts network runs signs",
    "report": f"{GROUND} statistics cohorts runs experts",
    "scoring": f"{GROUND} videos statistics cohorts network runs signs experts",
    "labelling": f"{GROUND} videos cohorts",
    "paper": BELOW_PAPER,
    "publish": BELOW_PAPER,
    "cli": f"{BELOW_PAPER} publish",
}
"""From the ground up: what each room of the package may import besides itself."""

PACKAGE = ROOT / "lusbio"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
ANY_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
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
TORCH = {"torch", "pytorch_lightning"}
NEED_TORCH = ("runs/assembly.py", "runs/gpu.py", "runs/progress.py")
"""Besides the network's files, those that are imported only where something is trained or predicted."""


def _room(path: Path) -> str:
    """The module or subpackage of lusbio that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, also within functions unless ``top_level``."""
    todo: list[ast.AST] = [_parse(path)]
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


def _files_imported(path: Path) -> set[Path]:
    """Files of the package that a file imports."""
    found = set()
    for name in _imports(path):
        parts = name.split(".")
        stems = [ROOT.joinpath(*parts[:length]) for length in range(len(parts), 1, -1)] if parts[0] == "lusbio" else []
        candidates = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
        found |= set(list(filter(Path.is_file, candidates))[:1])
    return found


@ANY_MODULE
def test_a_room_imports_only_what_its_line_names(path):
    room = _room(path)
    assert room in ROOMS, f"{room} is a new room: give it a line in ROOMS"
    assert _rooms_imported(path) - set(ROOMS[room].split()) == set()


def test_rooms_stand_on_those_before_them():
    before: set[str] = set()
    for room, allowed in ROOMS.items():
        assert set(allowed.split()) <= before, room
        before.add(room)


def test_a_line_names_no_room_that_is_not_needed():
    needed: dict[str, set[str]] = {}
    for path in MODULES:
        needed.setdefault(_room(path), set(GROUND.split())).update(_rooms_imported(path))
    lines = {room: set(allowed.split()) for room, allowed in ROOMS.items() if room not in ("paper", "publish", "cli")}
    assert {room: allowed - needed[room] for room, allowed in lines.items() if allowed - needed[room]} == {}


def test_no_two_files_import_each_other():
    graphlib.TopologicalSorter({path: _files_imported(path) for path in MODULES}).prepare()  # raises CycleError


def test_files_of_the_paper_stand_alone():
    """What one notebook is about helps no other one; what two need belongs into a room below."""
    of_paper = {path for path in MODULES if _room(path) == "paper" and path.name != "__init__.py"}
    importers = {path.name: {file.name for file in _files_imported(path) & of_paper} for path in MODULES}
    assert {name: files for name, files in importers.items() if files} == {}


@ANY_MODULE
def test_heavy_imports_wait_until_they_are_needed(path):
    at_import = _roots(path, top_level=True)
    assert at_import & HEAVY == set()
    if _room(path) != "network" and str(path.relative_to(PACKAGE)) not in NEED_TORCH:
        assert at_import & TORCH == set()


@ANY_MODULE
def test_every_room_keeps_to_its_own_libraries(path):
    room, used = _room(path), _roots(path)
    if room != "videos":
        assert used & {"av", "imageio"} == set(), "only videos.py opens or writes a video"
    if path.name != "annotator.py":
        assert "anywidget" not in used, "only the annotator is a widget"
    if room != "publish":
        assert used & {"papermill", "nbconvert", "nbformat"} == set(), "only publish/ runs notebooks"
    if room in ("report", "statistics", "cohorts", "simulation"):
        assert used & TORCH == set(), f"{room} knows nothing of torch"


def test_importing_the_report_brings_no_torch():
    """Nor does what it imports: a table can be made where there is no torch."""
    names = [path.relative_to(ROOT).with_suffix("").parts for path in MODULES if _room(path) in ("report", "paper")]
    script = "import sys\n" + "".join(f"import {'.'.join(parts)}\n" for parts in names if parts[-1] != "__init__")
    script += "print(sorted({'torch', 'pytorch_lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_import_is_declared():
    declared = {IMPORT_NAMES.get(r.name, r.name) for r in [*RUNTIME, *EXTRAS["cluster"], *EXTRAS["label"]]}
    # jupyter_client and IPython come with ipykernel, distributed with dask.
    allowed = declared | {"lusbio", "jupyter_client", "IPython", "distributed"} | set(sys.stdlib_module_names)
    assert {path.name: _roots(path) - allowed for path in MODULES if _roots(path) - allowed} == {}


# --- the package: how much there is to read ---


def _count_code(path: Path) -> int:
    """Lines without blanks, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(_parse(path)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                prose.update(range(statement.lineno, statement.end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(number not in prose and not re.match(r"\s*(#|$)", line) for number, line in lines)


def test_the_package_stays_thin():
    """The number goes up with a capability of its own alone, and down whenever something becomes unnecessary."""
    assert sum(map(_count_code, MODULES)) <= 10980


def test_the_hour_is_an_hour():
    files = [PACKAGE / f"{name}.py" for name in lusbio.HOUR]
    assert [file for file in files if not file.is_file()] == []
    assert sum(map(_count_code, files)) <= 1600
    assert [name for name in lusbio.HOUR if f"``{name}``" not in lusbio.__doc__] == []


def test_few_modules_stand_outside_the_rooms():
    assert len([path for path in MODULES if path.parent == PACKAGE]) <= 7


def test_files_that_decide_the_numbers_of_trainings_say_so_on_top():
    marker = (
        "# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew."
    )
    deciding = {*DECIDING, *BACKBONE_FILES.values()}
    marked = {path for path in MODULES if path.read_text(encoding="utf-8").splitlines()[:1] == [marker]}
    assert {str(path.relative_to(PACKAGE)) for path in marked} == deciding
    mentioned = {path for path in MODULES if "decides the numbers of trainings" in path.read_text(encoding="utf-8")}
    assert mentioned == marked, "the marker is the first line, word by word"


# --- the tests ---


def test_test_modules_import_helpers_and_never_each_other():
    files = sorted((ROOT / "tests").glob("*.py"))
    names = {path.stem for path in files if path.stem.startswith(("test_", "conftest"))}
    assert {path.name: _roots(path) & names for path in files if _roots(path) & names} == {}


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
