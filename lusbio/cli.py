"""The command line, ``lusbio VERB``: each verb calls one function."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lusbio.errors import LusbioError, name_way_out
from lusbio.profiles import PROFILES, find_profile


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after ``lusbio``; None takes them from the command line.

    Returns:
        0 when it worked; 1 when what was handed in is wrong, after one line (or one per problem) on
        standard error; 130 when interrupted.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except LusbioError as error:
        for line in str(error).splitlines():
            _say(f"error: {line}")
        return 1
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder should be
        _say(f"error: {error.filename or ''}: {error.strerror or error}{name_way_out(error.errno)}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; what is finished is kept, run it again to go on")
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    parser = argparse.ArgumentParser(prog="lusbio", description="Lung ultrasound biomarkers. Research only.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add_verb(name: str, run: Callable, what: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=what)
        verb.set_defaults(run=run)
        return verb

    fetch = add_verb("fetch", run_fetch, "download a public cohort or the model, checksummed; resumes")
    fetch.add_argument("name", choices=["model", "covid_blues", "pocovid", "covidx_us"])

    simulate = add_verb("simulate", run_simulate, "make a synthetic cohort with exact truth; resumes")
    simulate.add_argument("--out", type=Path, required=True, help="folder to write")
    simulate.add_argument("--patients", type=_whole_number(1), default=189)
    simulate.add_argument("--seed", type=_whole_number(0), default=0)
    simulate.add_argument("--probe", choices=["linear", "convex"], default="linear")
    simulate.add_argument("--size", type=_whole_number(16), default=224, help="pixels, height and width")
    simulate.add_argument("--frames", type=_whole_number(1), help="frames of every video (default: 60 to 150)")

    check = add_verb("check", run_check, "list every problem of a cohort, or what is in it")
    check.add_argument("cohort", type=_cohort, help="covid_blues, pocovid, or a folder with cohort.csv and videos")

    label = add_verb("label", run_label, "label the videos of a folder, blinded, on a page of this machine")
    label.add_argument("cohort", type=Path, metavar="FOLDER", help="holds cohort.csv and the videos")
    label.add_argument("--rater", required=True, help="who labels, e.g. r1")
    label.add_argument("--new-rater", action="store_true", help="the rater begins")
    label.add_argument("--role", choices=["trainee", "specialist"])
    label.add_argument("--experience", help='e.g. "6 months"')
    label.add_argument("--seed", type=_whole_number(0), help="of the order of the videos (default: 0)")
    label.add_argument("--repeats", type=float, help="share of the videos that come back unmarked (default: 0.1)")
    label.add_argument("--port", type=_whole_number(1), default=0, help="default: one that is free")
    label.add_argument("--no-browser", action="store_true", help="only print the page's address")

    merge = add_verb("merge", run_merge, "write ratings as the labels of a cohort")
    merge.add_argument("cohort", type=Path, metavar="FOLDER", help="holds cohort.csv and the videos")
    merge.add_argument("--trainee", required=True, help="the rater whose severity and biomarkers are taken")
    merge.add_argument("--specialist", help="the rater whose severity is taken as the specialist's")
    merge.add_argument("--out", type=Path, required=True, help="the table to write")
    merge.add_argument("--replace", action="store_true", help="ratings replace labels that differ")
    merge.add_argument("--label-studio", type=Path, metavar="FILE.json", help="write the ratings as its tasks, too")
    for verb in (label, merge):
        verb.add_argument("--ratings", type=Path, metavar="FOLDER", help="the ratings (default: ratings/ in FOLDER)")

    take = add_verb("import", run_import, "make a cohort that names nobody from a hospital's DICOM files")
    take.add_argument("folder", type=Path, help="searched with its subfolders")
    take.add_argument("--out", type=Path, required=True, help="cohort folder to write; OUT.private beside it stays")

    copy = add_verb("notebooks", run_notebooks, "copy the notebooks that come with lusbio into a folder")
    copy.add_argument("folder", type=Path, metavar="DIR")

    train = add_verb("train", run_train, "train the networks of the paper, or with --final one for use")
    train.add_argument("--cohort", type=_cohort, default="synthetic", help="synthetic, covid_blues, ... or a folder")
    train.add_argument("--profile", choices=list(PROFILES), default="laptop")
    which = train.add_mutually_exclusive_group()
    which.add_argument("--final", action="store_true", help="one network and its experts, nobody held out for testing")
    which.add_argument("--table1", action="store_true", help="only Table 1: no fewer labels, no other backbone")
    train.add_argument("--out", type=Path, help="with --final: the model folder to write")
    for verb in (simulate, train):
        verb.add_argument("--jobs", type=_whole_number(1), default=os.cpu_count() or 1, help="default: all cores")

    score = add_verb("score", run_score, "biomarkers and decisions for videos, as CSV on standard output")
    score.add_argument("videos", nargs="+", type=Path, metavar="VIDEO_OR_FOLDER")
    score.add_argument("--model", type=Path, help="model folder or run (default: the model that comes with lusbio)")
    return parser


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def _cohort(text: str) -> str:
    """A cohort as it is typed: a folder counts from where the command is called."""
    return str(Path(text).resolve()) if Path(text).is_dir() else text


def _say(line: str) -> None:
    """For a person; standard output is for what other programs read."""
    print(line, file=sys.stderr)


def run_fetch(options: argparse.Namespace) -> None:
    """``lusbio fetch``."""
    from lusbio.cohorts.download import fetch

    print(fetch(options.name))


def run_simulate(options: argparse.Namespace) -> None:
    """``lusbio simulate``."""
    from lusbio.cohorts.synthetic import simulate_cohort

    frames = (options.frames, options.frames) if options.frames else (60, 150)
    chosen = {name: getattr(options, name) for name in ("patients", "seed", "probe", "size", "jobs")}
    cohort = simulate_cohort(options.out, frames=frames, **chosen)
    print(f"{options.out}: {len(cohort.table)} videos of {cohort.table['patient_id'].nunique()} patients")


def run_check(options: argparse.Namespace) -> None:
    """``lusbio check``."""
    from lusbio.cohorts.load import TABLE_FILE, check_cohort, describe_cohort, load_cohort

    problems = check_cohort(options.cohort)
    if (Path(options.cohort) / "ratings").is_dir() and (Path(options.cohort) / TABLE_FILE).is_file():
        from lusbio.labelling.ratings import rating_problems

        problems += rating_problems(Path(options.cohort))
    if problems:
        raise LusbioError("\n".join(problems))
    print(describe_cohort(load_cohort(options.cohort, find_profile("laptop"))))


def run_label(options: argparse.Namespace) -> None:
    """``lusbio label``: whatever is wrong is said here, since the page's kernel has no terminal."""
    from lusbio.cohorts.table import read_table
    from lusbio.labelling.page import serve_annotator
    from lusbio.labelling.ratings import RatingLog

    folder = options.cohort.resolve()
    ratings = options.ratings.resolve() if options.ratings else folder / "ratings"
    read_table(folder / "cohort.csv")
    begun = {name: getattr(options, name) for name in ("new_rater", "role", "experience", "seed", "repeats")}
    RatingLog(ratings, options.rater, **begun)
    settings = {"folder": str(folder), "rater": options.rater, "ratings": str(ratings)}
    serve_annotator(settings, options.port, browser=not options.no_browser)


def run_merge(options: argparse.Namespace) -> None:
    """``lusbio merge``."""
    from lusbio.cohorts.table import read_table, write_table
    from lusbio.labelling.merge import merge_ratings, write_label_studio
    from lusbio.labelling.ratings import rating_problems, read_ratings

    source, ratings = options.cohort / "cohort.csv", options.ratings or options.cohort / "ratings"
    if options.out.resolve() == source.resolve():
        raise LusbioError(f"--out {options.out}: cohort.csv is never edited; name another file")
    table = read_table(source)
    if problems := rating_problems(options.cohort, ratings):
        raise LusbioError("\n".join(problems))
    given = read_ratings(ratings)
    merged, notes = merge_ratings(table, given, options.trainee, options.specialist, replace=options.replace)
    for note in notes:
        _say(note)
    write_table(merged, options.out)
    print(options.out)
    if options.label_studio:
        write_label_studio(given, table, options.label_studio)
        print(options.label_studio)


def run_import(options: argparse.Namespace) -> None:
    """``lusbio import``."""
    from lusbio.cohorts.hospital import KEPT, import_dicom

    out = options.out.resolve()
    files = import_dicom(options.folder, out, _say)
    kept = files[files["outcome"] == KEPT]
    _say(f"{out}.private stays here: it ties the cohort to its patients")
    print(f"{out}: {len(kept)} videos of {kept['patient_id'].nunique()} patients, {len(files)} files seen")


def run_notebooks(options: argparse.Namespace) -> None:
    """``lusbio notebooks``."""
    from lusbio.files import shipped_files, write_text

    texts = {options.folder / file.name: file.read_text(encoding="utf-8") for file in shipped_files("notebooks")}
    if edited := [path for path, text in texts.items() if path.exists() and path.read_text(encoding="utf-8") != text]:
        raise LusbioError(
            "\n".join(f"{path}: is there already, with other content; not overwritten" for path in edited)
        )
    for path, text in texts.items():
        write_text(text, path)
    print(f"{options.folder}: {len(texts)} notebooks, to be read with `jupyter lab {options.folder}`")


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Take SIGTERM (of ``timeout``, a batch system, ``kill``) as an interrupt, which ends the worker processes too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except SystemExit as error:  # what Lightning makes of an interrupt when the run trains in this process
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, before)


def run_train(options: argparse.Namespace) -> None:
    """``lusbio train``, with and without ``--final``."""
    if options.out and not options.final:
        raise LusbioError("--out goes with --final; without it, runs lie in the build folder")
    with _ended_like_interrupted():
        from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE
        from lusbio.runs.plan import list_grid, list_specs
        from lusbio.runs.study import open_study

        study = open_study(options.profile, options.cohort, options.jobs, protocol="final" if options.final else None)
        for backbone in (USUAL_BACKBONE,) if options.final or options.table1 else (USUAL_BACKBONE, OTHER_BACKBONE):
            _say(study.describe_weights(backbone))
        if options.final:
            from lusbio.files import build_folder
            from lusbio.scoring.final_model import train_final

            folder = options.out or build_folder("models", f"{study.cohort.name}-{study.profile.name}")
            train_final(study, folder, _say)
            print(folder)
        else:
            for run in study.train(list_specs(study) if options.table1 else list_grid(study)):
                print(run.folder)


def _say_whole(paths: Iterable[Path]) -> None:
    from lusbio.dicom import names_no_region

    for path in filter(names_no_region, paths):
        _say(f"{path}: names no ultrasound region; its whole frames are scored, with whatever is written on them")


def run_score(options: argparse.Namespace) -> None:
    """``lusbio score``: CSV on standard output."""
    from lusbio.cohorts.table import list_some
    from lusbio.scoring.score import find_model, find_videos, score_in_blocks
    from lusbio.videos import files_below

    videos, model = find_videos(options.videos), find_model(options.model)
    _say(f"{model.notice} Model: {model.network.folder.name}, trained on {model.network.spec.cohort}")
    if others := [name for place in options.videos if place.is_dir() for name in files_below(place)[1]]:
        _say(f"{len(others)} files are of no type that is read, and not scored: {list_some(others)}")
    _say_whole(videos.values())
    for number, scores in enumerate(score_in_blocks(videos, model)):
        scores.to_csv(sys.stdout, index=False, header=not number, float_format="%.4f", lineterminator="\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
