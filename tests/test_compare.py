from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from helpers import made_up_row

from lusbio.experts.rows import Row, choose_by_validation
from lusbio.report.compare import compare_budgets, compare_routes, compare_signs, give_verdicts
from lusbio.statistics.bootstrap import estimate, paired_difference
from lusbio.vocabulary import BIOMARKER_NAMES


def make_run(learnt: Sequence[str]) -> SimpleNamespace:
    masked = sorted(set(BIOMARKER_NAMES) - set(learnt))
    return SimpleNamespace(spec=SimpleNamespace(task="biomarkers"), info={"masked": masked}, folder="run")


RUN = make_run(BIOMARKER_NAMES[:2])
STUDY = SimpleNamespace(
    draws=20, table=pd.DataFrame({"lung_severity": [0, 1] * 10, **dict.fromkeys(BIOMARKER_NAMES, 0.0)})
)


def judge(network: Row, expert: Row, before: list[Row] | None = None, study=STUDY, table=None, draws=300):
    """The line of the verdict; the network validates as it tests, and half of the epochs do as well as all."""
    network, expert = replace(network, validated=network.held_out), replace(expert, runs=(RUN,))
    table = table or compare_routes([network, expert], draws)
    budgets = compare_budgets({1.0: [network, expert], 0.5: before or [network, expert]}, draws)
    (verdict,) = give_verdicts(table, budgets, [network, expert], study).cells.itertuples()
    return verdict


def test_the_expert_is_chosen_on_validation_and_the_difference_is_paired():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    validated_best = made_up_row("biomarkers", "RF", 1, skill=0.2, validation_accuracy=0.9)
    tested_best = made_up_row("biomarkers", "MLP", 2, skill=3.0, validation_accuracy=0.1)
    table = compare_routes([network, tested_best, validated_best], draws=300)
    (row,) = table.cells.itertuples()
    chosen = choose_by_validation([tested_best, validated_best])
    assert compare_routes([network, chosen], draws=300).cells.equals(table.cells)
    assert table.note == "Tested on 20 patients."
    assert row.expert == "RF / RF / RF" and row.difference == pytest.approx(row.biomarkers - row.end_to_end)
    assert row.ci_low < row.difference < row.ci_high < 0 and row.p_holm == row.p_value
    assert table.shown["p holm"][0] == f"{row.p_holm:.3f}"
    assert table.shown["difference"][0] == f"{row.difference:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]"
    verdict = judge(network, validated_best, table=table)
    assert verdict.verdict == "worse" and f"{row.biomarkers:.1f}" in verdict.sentence


def test_the_verdict_goes_whichever_way_the_numbers_go():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    verdicts = {}
    for name, expert in {
        "same": made_up_row("biomarkers", "RF", 0),
        "better": made_up_row("biomarkers", "RF", 1, skill=4.0),
        "unclear": made_up_row("biomarkers", "RF", 7, skill=1.0),
    }.items():
        verdicts[name] = judge(network, expert).verdict
    assert verdicts == {"same": "matches", "better": "beats", "unclear": "undecided"}


def test_a_verdict_says_whether_half_of_the_epochs_would_have_given_the_same():
    network, expert = made_up_row("end_to_end", "E2E", 0), made_up_row("biomarkers", "RF", 1, skill=4)
    same = judge(network, expert)
    assert same.verdict == "beats" and "this holds when the budget doubles" in same.sentence
    weaker = made_up_row("biomarkers", "RF", 1, skill=1.0)
    moving = judge(network, expert, [network, weaker])
    assert moving.verdict == "beats" and "still moves" in moving.sentence


def test_the_change_with_the_budget_is_paired_in_all_four_rows():
    network, expert = made_up_row("end_to_end", "E2E", 0), made_up_row("biomarkers", "RF", 1, skill=2)
    fewer = [made_up_row("end_to_end", "E2E", 2), made_up_row("biomarkers", "RF", 3, skill=1.5)]
    (row,) = compare_budgets({1.0: [network, expert], 0.5: fewer}, 200).itertuples()
    auc = [100 * estimate(one.held_out, 2)["auc"].value for one in (network, expert, *fewer)]
    assert row.before == pytest.approx(auc[3] - auc[2])
    assert row.change == pytest.approx(auc[1] - auc[0] - row.before)
    assert row.change_low < row.change < row.change_high and not row.holds
    (still,) = compare_budgets({1.0: fewer, 0.5: fewer}, 200).itertuples()
    assert still.change == still.change_low == still.change_high == 0 and still.holds


def test_there_is_no_verdict_where_labels_of_a_biomarker_are_the_task():
    network, expert = made_up_row("end_to_end", "E2E", 0), made_up_row("biomarkers", "RF", 1, skill=4)
    leaky = STUDY.table.assign(**{BIOMARKER_NAMES[0]: (STUDY.table["lung_severity"] == 0).astype(float)})
    said = judge(network, expert, study=SimpleNamespace(draws=20, table=leaky))
    assert said.verdict == "leak" and "give a class of the task away" in said.sentence
    of_another = leaky.rename(columns={BIOMARKER_NAMES[0]: BIOMARKER_NAMES[5], BIOMARKER_NAMES[5]: BIOMARKER_NAMES[0]})
    assert judge(network, expert, study=SimpleNamespace(draws=20, table=of_another)).verdict == "beats"


def test_the_power_is_large_where_the_interval_is_small():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    table = compare_routes([network, made_up_row("biomarkers", "RF", 7, skill=1.0)], draws=300)
    powers = []
    for half_width in (10.0, 2.5, 1.25):
        cells = table.cells.assign(ci_low=-half_width, ci_high=half_width)
        expert = made_up_row("biomarkers", "RF", 7, skill=1.0)
        powers.append(judge(network, expert, table=replace(table, cells=cells)).power)
    assert powers == pytest.approx([7.1, 50.0, 97.5], abs=0.1)


def test_an_interval_without_zero_is_not_enough_after_the_correction():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    table = compare_routes([network, made_up_row("biomarkers", "RF", 4, skill=0.8)], draws=300)
    assert table.cells["ci_high"].item() < 0 and table.cells["p_holm"].item() < 0.05
    unsure = replace(table, cells=table.cells.assign(p_holm=0.2))
    expert = made_up_row("biomarkers", "RF", 4, skill=0.8)
    worse, corrected = (judge(network, expert, table=one).verdict for one in (table, unsure))
    assert (worse, corrected) == ("worse", "undecided")


def test_there_is_no_verdict_about_a_network_that_learnt_nothing():
    study, expert = SimpleNamespace(draws=200, table=STUDY.table), made_up_row("biomarkers", "RF", 0)
    skilled, coin = (judge(made_up_row("end_to_end", "E2E", 5, skill), expert, study=study) for skill in (1.0, 0.0))
    assert coin.verdict == "chance" and "not above chance" in coin.sentence
    assert skilled.verdict != "chance" and "not above chance" not in skilled.sentence


def test_there_is_no_verdict_from_a_handful_of_patients(monkeypatch):
    rows = made_up_row("end_to_end", "E2E", 0, skill=1.0), made_up_row("biomarkers", "RF", 1, skill=4.0)
    assert judge(*rows).verdict == "beats"
    monkeypatch.setattr("lusbio.report.compare.FEWEST_PATIENTS", 21)
    verdict = judge(*rows)
    assert verdict.verdict == "few" and "fewer than 21 patients were tested" in verdict.sentence


def test_what_signs_add_is_a_paired_difference_to_the_chosen_experts():
    experts = [made_up_row("biomarkers", "DT", 1, skill=0.5), made_up_row("biomarkers", "RF", 2, 0.5, 0.9)]
    signs = made_up_row("measured_signs", "validated best", 3, skill=2.0)
    both = made_up_row("signs_and_biomarkers", "validated best", 3, skill=2.0)
    cells = compare_signs([*experts, signs, both], 50).cells
    assert cells["features"].tolist() == ["measured_signs", "signs_and_biomarkers"]
    assert cells["ci_low"].gt(0).all() and cells["p_holm"].lt(0.2).all()
    forest = paired_difference(signs.held_out, experts[1].held_out, 50)["auc"]
    assert cells["mean"][0] == pytest.approx(100 * forest.value)
