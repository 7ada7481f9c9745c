from lusbio.files import ROOT, build_folder, data_folder, figures_folder


def test_folders_are_in_the_checkout_unless_a_variable_says_otherwise(monkeypatch, tmp_path):
    for variable in ("LUSBIO_BUILD", "LUSBIO_FIGURES", "LUSBIO_DATA"):
        monkeypatch.delenv(variable, raising=False)
    assert build_folder("runs") == ROOT / "build" / "runs"
    assert figures_folder("smoke", "synthetic") == ROOT / "figures" / "smoke" / "synthetic"
    assert data_folder() == ROOT / "build" / "data"
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    assert build_folder("runs") == tmp_path / "runs"
    assert data_folder() == tmp_path / "data"


def test_a_relative_folder_starts_at_the_checkout_wherever_a_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUSBIO_DATA", "../patients")
    assert data_folder() == ROOT / "../patients"
