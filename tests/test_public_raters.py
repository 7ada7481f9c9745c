import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.pocovid import read_public_raters
from lusbio.errors import CohortError
from lusbio.paper.agreement import make_public_raters_table


def test_the_real_raters_agree_as_was_measured_by_hand(data_folder):
    if not (data_folder / "covidx_us").is_dir() or not (data_folder / "pocovid").is_dir():
        pytest.skip("POCOVID and COVIDx-US are not both here")
    raters = read_public_raters(data_folder)
    assert len(raters) == 32 and raters["group_id"].nunique() == 8
    values = make_public_raters_table(raters, draws=200).cells.set_index("metric")["value"]
    assert values["agreement"] == pytest.approx(43.75)
    assert values["within_one"] == 100
    assert values[["kappa", "quadratic_kappa"]].round().tolist() == [19, 71]
    assert np.mean(raters["pocovid"] - raters["covidx_us"]) == pytest.approx(0.375)


def test_without_the_scores_it_is_said_how_to_get_them(tmp_path):
    with pytest.raises(CohortError, match="lusbio fetch pocovid"):
        read_public_raters(tmp_path)


def test_a_pair_without_a_grade_is_named(data_folder, tmp_path):
    if not (data_folder / "covidx_us").is_dir() or not (data_folder / "pocovid").is_dir():
        pytest.skip("POCOVID and COVIDx-US are not both here")
    (tmp_path / "pocovid").symlink_to((data_folder / "pocovid").resolve())
    scores = pd.read_csv(data_folder / "covidx_us" / "LUSS_metadata.csv")
    (tmp_path / "covidx_us").mkdir()
    kept = scores[scores["id"] != "36_grepmed_normal"]
    kept.to_csv(tmp_path / "covidx_us" / "LUSS_metadata.csv", index=False)
    with pytest.raises(CohortError, match="no grade of covidx_us for video 'Reg-Grep-Alines'"):
        read_public_raters(tmp_path)
