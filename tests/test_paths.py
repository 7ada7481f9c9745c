from lusbio import paths


def test_folders_are_in_the_checkout_unless_a_variable_says_otherwise(monkeypatch, tmp_path):
    for variable in ("LUSBIO_BUILD", "LUSBIO_FIGURES", "LUSBIO_DATA"):
        monkeypatch.delenv(variable, raising=False)
    assert paths.build_folder("runs") == paths.ROOT / "build" / "runs"
    assert paths.figures_folder("smoke", "synthetic") == paths.ROOT / "figures" / "smoke" / "synthetic"
    assert paths.data_folder() == paths.ROOT / "build" / "data"
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    assert paths.build_folder("runs") == tmp_path / "runs"
    assert paths.data_folder() == tmp_path / "data"


def test_a_relative_folder_starts_at_the_checkout_wherever_a_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUSBIO_DATA", "../patients")
    assert paths.data_folder() == paths.ROOT / "../patients"
