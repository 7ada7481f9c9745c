import json
from dataclasses import replace

import pytest
from helpers import TINY, made_up_run, small_study

from lusbio.files import build_folder
from lusbio.profiles import find_profile
from lusbio.runs.origin import choose_initial_weights, describe_origin, record_runs
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_TASK, DISEASE, SEVERITY


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


def read_records(folder) -> tuple[dict, dict]:
    return tuple(json.loads((folder / f"{name}.json").read_text()) for name in ("run", "timing"))


def test_the_origin_says_simulated_or_real_profile_weights_and_commit(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", SEVERITY)
    line = describe_origin(study, [run])
    assert study.origin([run]) == line
    for part in ("**Simulated**", "40 videos, 20 patients", "`tiny`", "scratch", "CPU (32-true)", "commit"):
        assert part in line


def test_times_stay_out_of_what_is_compared(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", SEVERITY)
    timing = record_runs(study, [run], tmp_path, anew=True)
    described, written = read_records(tmp_path)
    assert "minutes" not in json.dumps(described) and timing["minutes"] == 1.5
    assert written == timing


def test_runs_of_later_notebooks_count_too_and_once(study, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_FIGURES", str(tmp_path / "figures"))
    own = made_up_run(study, tmp_path / "own", SEVERITY)
    later = made_up_run(study, tmp_path / "later", DISEASE)
    later = replace(later, spec=replace(later.spec, cohort="synthetic_convex", seed=3), minutes=2.25)
    assert study.record([later]) == {}
    assert not study.folder.exists()  # notebook 02 has not been there
    timing = study.record([own], anew=True)
    assert timing["minutes"] == 1.5
    first, _ = read_records(study.folder)
    for _ in range(2):
        assert study.record([own, later])["minutes"] == 3.75
        described, timing = read_records(study.folder)
        assert timing["minutes"] == 3.75
        assert [(run["run"], run["kind"]) for run in timing["runs"]] == [
            ("own", "end-to-end"),
            ("later", "end-to-end, synthetic convex"),
        ]
        assert list(described["runs"]) == ["own", "later"] and described["seeds"] == [0, 3]
    kept = [name for name in first if name not in ("seeds", "runs")]
    assert {name: described[name] for name in kept} == {name: first[name] for name in kept}
    study.record([own], anew=True)
    assert read_records(study.folder)[0] == first
    runs = build_folder(study.profile.name, study.cohort.name, "runs.txt")  # for make, which asks 02 again
    assert runs.read_text() == "own\n"


def test_a_biomarker_network_that_starts_from_another_is_no_end_to_end_one(study):
    start = {"initial_weights": "run:biomarkers-fold0-3f2a"}
    kinds = [study.specs(task, **start)[0].kind for task in (BIOMARKER_TASK, SEVERITY)]
    assert kinds == ["biomarker network, pretrained", "pretrained on biomarkers"]
    spec = study.specs(SEVERITY, initial_weights="run:measured_signs-fold0-3f2a")[0]
    assert spec.kind == "from measured_signs"


def test_a_narrow_network_starts_from_scratch_and_says_which_width_a_file_needs(study, monkeypatch):
    wished = replace(study, profile=replace(TINY, initial_weights="imagenet"))
    name, line = choose_initial_weights(wished)
    assert name == "scratch" and "WIDTH=64" in line and "16 channels" in line
    monkeypatch.setenv("LUSBIO_WIDTH", "24")
    assert find_profile("paper").training.width == 24
    monkeypatch.setenv("LUSBIO_WIDTH", "20")
    with pytest.raises(ValueError, match="'20', expected a multiple of 8"):
        find_profile("paper")


def test_weights_are_looked_for_once_so_that_notebooks_mean_the_same_runs(study, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    assert choose_initial_weights(study)[0] == "scratch"
    path = tmp_path / "tiny" / "small" / "initial_weights.json"
    settled = json.loads(path.read_text())
    settled["tsm_resnet18"] = {"name": "resnet18-f37072fd", "description": "from resnet18-f37072fd.pth (ImageNet)"}
    path.write_text(json.dumps(settled))
    line = "tsm_resnet18: from resnet18-f37072fd.pth (ImageNet)"
    assert choose_initial_weights(study) == ("resnet18-f37072fd", line) and study.describe_weights() == line
    assert {spec.initial_weights for spec in study.specs(SEVERITY)} == {"resnet18-f37072fd"}
    assert choose_initial_weights(study, "i3d_resnet50")[0] == "scratch"
    assert list(json.loads(path.read_text())) == ["tsm_resnet18", "i3d_resnet50"]
