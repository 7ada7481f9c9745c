"""What stands on the page of the paper, in which order and under which words."""

from typing import NamedTuple

from lusbio.vocabulary import BIOMARKERS


class Section(NamedTuple):
    """A heading of the page and the artefacts below it.

    Attributes:
        anchor: What a link to it ends in.
        title: The heading.
        artefacts: Names without suffix; each may have a PNG, a Markdown and a CSV file.
        notebook: Which one makes the first artefact.
        needs: What else it takes, for readers of a page without it.
    """

    anchor: str
    title: str
    artefacts: tuple[str, ...]
    notebook: str = ""
    needs: str = ""


SECTIONS = (
    Section("fig1", "Fig. 1: the idea", ("fig1",), "02_biomarkers"),
    Section("fig2", "Fig. 2: the annotator", ("fig2",), "05_agreement"),
    Section("fig3", "Fig. 3: the cohort", ("fig3",), "01_cohort"),
    Section("fig4", "Fig. 4: a frame per severity", ("fig4",), "01_cohort"),
    Section("table1", "Table 1: every task, every classifier", ("table1", "cost"), "03_experts"),
    Section("table2", "Table 2: finding biomarkers", ("table2", "biomarker_aucs", "learning_curves"), "02_biomarkers"),
    Section("table3", "Table 3: generalization", ("table3",), "04_generalization", "the POCOVID cohort"),
    Section(
        "table4",
        "Table 4: agreement with the specialist",
        ("table4", "agreement", "table4_public"),
        "05_agreement",
        "a specialist's grades; the public raters are those of POCOVID and COVIDx-US",
    ),
    Section("table5", f"Table 5: the {len(BIOMARKERS)} biomarkers", ("table5",), "01_cohort"),
    Section("table6", "Table 6: another backbone", ("table6",), "06_another_backbone"),
    Section("table7", "Table 7: severity in detail", ("table7",), "03_experts"),
    Section("beyond", "What the paper did not have: paired differences", ("differences",), "03_experts"),
    Section(
        "closer",
        "What the paper did not have: a closer look",
        ("label_efficiency", "kappa", "confusion", "operating_points", "calibration", "reliability", "importance"),
        "10_closer_look",
    ),
    Section(
        "real",
        "What the paper did not have: real patients",
        ("real_patients", "real_findings"),
        "07_real_patients",
        "COHORT=covid_blues",
    ),
    Section(
        "leakage",
        "What the paper did not have: how splits lie",
        ("leakage", "leakage_severity"),
        "09_leakage",
        "COHORT=pocovid",
    ),
    Section(
        "simulator",
        "About the simulator",
        (
            "contact_sheet",
            "simulator_layers",
            "simulator_targets",
            "simulator_realism",
            "real_and_simulated",
            "transfer",
            "transfer_ladder",
        ),
        "08_simulator",
        "COVID-BLUES for what compares with real patients",
    ),
)
"""In the paper's order; what no section names goes into a last one, "More"."""

ABOUT_ONE_COHORT = ("simulator", "leakage", "real")
"""Sections that other cohorts do without."""

CAPTIONS = {
    "fig1": "One network, trained once, finds biomarkers; light experts decide. Below: a network per task.",
    "fig2": "What a rater ticks for a video. The indent and break rows are judged while the pleura slides.",
    "fig3": "Videos per patient and per class of each task.",
    "fig4": "One frame of a test video per severity; a grade is a judgement over the whole video.",
    "table1": "Dots: means over runs with 95 % intervals over patients. Open circles: published.",
    "biomarker_aucs": "AUC of each biomarker, mean and SD over runs, with how many test videos show it.",
    "table3": "Networks and experts on patients of another cohort, nothing trained there; 95 % intervals over groups.",
    "leakage": "The same model on the same videos, split more and more honestly; 95 % intervals over groups.",
    "agreement": "Agreement with the specialist's grades, with 95 % intervals over patients.",
    "cost": "Minutes of training of each route against what they bring.",
    "label_efficiency": "What each route reaches when only a share of the patients has labels of the task.",
    "confusion": "What was decided for what was true: counts, coloured by share of the true class.",
    "reliability": "How often decisions were right that were said to be right with some probability.",
    "importance": "AUC lost when one biomarker is shuffled among patients that were held out.",
    "learning_curves": "Validation accuracy by epoch, one line per run.",
    "contact_sheet": "Each biomarker, drawn alone by the simulator.",
}
