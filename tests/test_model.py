"""The model that comes with lusbio, where it does."""

import json

import pandas as pd
import pytest

from lusbio.cohorts.download import REGISTRY_FOLDER
from lusbio.files import ROOT, file_sha256
from lusbio.scoring.final_model import describe_model

FOLDER = ROOT / "model"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no model/ here: `make model` makes it")


def test_it_is_small_simulated_and_no_miniature():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8_000_000
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    assert card["simulated"] and card["network"]["profile"] != "smoke" and set(card["experts"]) >= {"lung_severity"}
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == describe_model(card)


def test_the_registry_has_its_checksums():
    registry = pd.read_csv(REGISTRY_FOLDER / "model.csv").set_index("path")
    assert registry["sha256"].to_dict() == {f"model/{path.name}": file_sha256(path) for path in FOLDER.iterdir()}
