from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import made_up_row

from lusbio.report.compare import compare_routes, give_verdicts, judge_learning


def learning(*accuracies: float) -> pd.DataFrame:
    """The log of one severity run."""
    epochs = np.arange(1, len(accuracies) + 1)
    return pd.DataFrame({"task": "lung_severity", "fold": 0, "epoch": epochs, "val_accuracy": accuracies})


FLAT = judge_learning(learning(*[0.5] * 12))


def test_the_expert_is_chosen_on_validation_and_the_difference_is_paired():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    validated_best = made_up_row("biomarkers", "RF", 1, skill=0.2, validation_accuracy=0.9)
    tested_best = made_up_row("biomarkers", "MLP", 2, skill=3.0, validation_accuracy=0.1)
    table = compare_routes([network, tested_best, validated_best], draws=300)
    (row,) = table.cells.itertuples()
    assert row.expert == "RF / RF / RF" and row.difference == pytest.approx(row.biomarkers - row.end_to_end)
    assert row.ci_low < row.difference < row.ci_high < 0 and row.p_holm == row.p_value
    assert table.shown["p holm"][0] == f"{row.p_holm:.3f}"
    assert table.shown["difference"][0] == f"{row.difference:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]"
    (verdict,) = give_verdicts(table, FLAT, [network], 100).cells.itertuples()
    assert verdict.verdict == "worse" and f"{row.biomarkers:.1f}" in verdict.sentence


def test_the_verdict_goes_whichever_way_the_numbers_go():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    verdicts = {}
    for name, expert in {
        "same": made_up_row("biomarkers", "RF", 0),
        "better": made_up_row("biomarkers", "RF", 1, skill=4.0),
        "unclear": made_up_row("biomarkers", "RF", 7, skill=1.0),
    }.items():
        compared = compare_routes([network, expert], draws=300)
        (verdicts[name],) = give_verdicts(compared, FLAT, [network], 20).cells["verdict"]
    assert verdicts == {"same": "matches", "better": "beats", "unclear": "undecided"}


def test_there_is_no_verdict_while_the_network_still_learns():
    rising = judge_learning(learning(*np.linspace(0.2, 0.6, 12)))
    assert not rising["flat"].item() and rising["gain"].item() > 10
    network, expert = (made_up_row("end_to_end", "E2E", 0), made_up_row("biomarkers", "RF", 1, skill=4))
    (row,) = give_verdicts(compare_routes([network, expert], draws=50), rising, [network], 20).cells.itertuples()
    assert row.verdict == "undertrained" and "still learning" in row.sentence


def test_a_flat_curve_is_flat_and_a_short_one_shows_nothing():
    assert FLAT["flat"].item() and FLAT["gain"].item() == pytest.approx(0, abs=1e-9)
    falling = judge_learning(learning(0.2, 0.6, 0.5, 0.5, 0.45, 0.4))
    assert falling["flat"].item()
    assert not judge_learning(learning(0.5, 0.5))["flat"].item()


def test_an_interval_without_zero_is_not_enough_after_the_correction():
    network = made_up_row("end_to_end", "E2E", 0, skill=1.0)
    table = compare_routes([network, made_up_row("biomarkers", "RF", 4, skill=1.0)], draws=300)
    assert table.cells["ci_high"].item() < 0 and table.cells["p_holm"].item() < 0.05
    (worse,) = give_verdicts(table, FLAT, [network], 20).cells["verdict"]
    unsure = replace(table, cells=table.cells.assign(p_holm=0.2))
    (corrected,) = give_verdicts(unsure, FLAT, [network], 20).cells["verdict"]
    assert (worse, corrected) == ("worse", "undecided")


def test_a_network_that_learnt_nothing_is_said_to_be_one():
    network = made_up_row("end_to_end", "E2E", 0)
    coin = replace(network, validated=made_up_row("end_to_end", "E2E", 5, skill=0.0).held_out)
    skilled = replace(network, validated=network.held_out)
    table = compare_routes([network, made_up_row("biomarkers", "RF", 0)], draws=50)
    said = [give_verdicts(table, FLAT, [row], 200).cells["sentence"].item() for row in (coin, skilled)]
    assert "not above chance" in said[0] and "not above chance" not in said[1]
