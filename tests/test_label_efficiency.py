import numpy as np
import pytest
from small_cohort import TINY, make_small_cohort
from test_rows import made_up_run

from lusbio.paper import label_efficiency
from lusbio.paper.label_efficiency import compare_label_needs, make_label_efficiency
from lusbio.runs.spec import prepare_cohort


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("cohort")), TINY)


@pytest.fixture
def trained(prepared, tmp_path, monkeypatch):
    """Made-up severity networks: right with all labels, blind with half of them; and their specs by share."""
    specs = {share: prepared.specs("lung_severity", label_fraction=share)[:1] for share in (0.5, 1.0)}
    runs = {1.0: made_up_run(prepared, tmp_path / "all", "lung_severity")}
    runs[0.5] = made_up_run(prepared, tmp_path / "half", "lung_severity")
    runs[0.5].predictions[[f"p_{k}" for k in range(4)]] = 0.25
    found = {specs[share][0]: runs[share] for share in specs}
    monkeypatch.setattr(label_efficiency, "find_runs", lambda wanted: [found[spec] for spec in wanted])
    return specs, [made_up_run(prepared, tmp_path / "biomarkers")]


def test_both_routes_are_measured_with_each_share_of_labels(prepared, trained):
    table = make_label_efficiency(*trained, prepared).set_index(["route", "fraction", "metric"])["mean"]
    assert table["end_to_end", 0.5, "auc"] == 50 and table["end_to_end", 1.0, "auc"] == 100
    assert table["biomarkers", 1.0, "accuracy"] == 100  # the rule is in the biomarkers
    patients = make_label_efficiency(*trained, prepared).groupby("fraction")["patients"].first()
    assert patients[0.5] == np.ceil(patients[1.0] / 2)


def test_who_loses_less_is_said_with_an_interval(prepared, trained):
    (row,) = compare_label_needs(*trained, prepared).itertuples()
    assert row.fraction == 0.5 and row.end_to_end == 50
    assert row.difference == pytest.approx(row.end_to_end - row.biomarkers)
    assert row.ci_low <= row.difference <= row.ci_high and f"{row.difference:+.1f}" in row.finding
    assert ("less (" in row.finding) == (row.ci_low > 0)
