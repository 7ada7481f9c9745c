from dataclasses import replace

import numpy as np
import pytest
from helpers import made_up_run, small_study

from lusbio.errors import NothingToDo
from lusbio.paper import closer_look
from lusbio.paper.closer_look import compare_label_needs, decide_with_fewer_labels, make_label_efficiency
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, Kind

pytestmark = pytest.mark.usefixtures("one_fit")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def rows(study, tmp_path, monkeypatch):
    """Of made-up severity networks: right with all labels, blind with half of them."""
    specs = {share: study.specs(SEVERITY, label_fraction=share)[:1] for share in (0.5, 1.0)}
    runs = {1.0: made_up_run(study, tmp_path / "all", SEVERITY), 0.5: made_up_run(study, tmp_path / "half", SEVERITY)}
    runs[0.5].predictions[[f"p_{k}" for k in range(4)]] = 0.25
    found = {specs[share][0]: runs[share] for share in specs}
    biomarkers = [made_up_run(study, tmp_path / f"biomarkers{fold}", fold=fold) for fold in (0, 1)]
    monkeypatch.setattr(closer_look, "find_runs", lambda wanted: [found[spec] for spec in wanted])
    monkeypatch.setattr(closer_look, "list_with_fewer_labels", lambda study, task: specs)
    monkeypatch.setattr(Study, "runs", lambda study, task, **_: {BIOMARKER_TASK: biomarkers}[task])
    return decide_with_fewer_labels(study)


def test_both_routes_are_decided_on_the_folds_of_the_networks(rows):
    assert list(rows) == [0.5, 1.0]
    for network, experts in rows.values():
        assert (network.features, experts.features) == (Kind.END_TO_END, Kind.BIOMARKERS)
        assert [run.spec.fold for run in experts.runs] == [run.spec.fold for run in network.runs] == [0]


def test_both_routes_are_measured_with_each_share_of_labels(study, rows):
    cells = make_label_efficiency(rows, study).cells
    table = cells.set_index(["route", "fraction", "metric"])["mean"]
    assert table["end_to_end", 0.5, "auc"] == 50 and table["end_to_end", 1.0, "auc"] == 100
    assert table["biomarkers", 1.0, "accuracy"] == 100  # the rule is in the biomarkers
    patients = cells.groupby("fraction")["patients"].first()
    assert patients[0.5] == np.ceil(patients[1.0] / 2)


def test_who_loses_less_is_said_with_an_interval(study, rows):
    (row,) = compare_label_needs(rows, study.draws).itertuples()
    assert row.fraction == 0.5 and row.end_to_end == 50
    assert row.difference == pytest.approx(row.end_to_end - row.biomarkers)
    assert row.ci_low <= row.difference <= row.ci_high and f"{row.difference:+.1f}" in row.finding
    assert ("less (" in row.finding) == (row.ci_low > 0)
    assert compare_label_needs({1.0: rows[1.0]}, study.draws)["finding"].empty


def test_real_patients_are_not_asked_and_what_was_made_before_goes(study, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_FIGURES", str(tmp_path))
    real = replace(study, cohort=replace(study.cohort, simulated=False))
    real.folder.mkdir(parents=True)
    (real.folder / "label_efficiency.csv").touch()
    with pytest.raises(NothingToDo, match="Left out here: networks with fewer labels"):
        decide_with_fewer_labels(real)
    assert not list(real.folder.iterdir())
