"""`gradbench tables`: the papers' tables, printed numbers beside those of finished runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.cli.arguments import (
    Parser,
    add_config_dir,
    existing_folders,
    split_words,
    with_dirs,
)
from gradbench.cli.faults import as_error
from gradbench.errors import GradbenchError, printable, unknown
from gradbench.support.progress import duration, say, step

if TYPE_CHECKING:
    from gradbench.report.papers.fill import FilledTable
    from gradbench.report.papers.missing import MissingRun

DESCRIPTION = """\
Each table of the papers, cell by cell: published, measured with interval, difference. Numbers are
those of finished runs under outputs/ and results/, or in the folders of results=. Networks stand
below each other, each with its width; of a network the run that fills most cells wins, of several
the newest, and each table says which it was made from. A cell that is not measured says why.

  gradbench tables [list]                  the tables, and what they hold
  gradbench tables NAME ... | --all        [results=DIR,DIR] [format=FORMAT] [out=DIR]
  gradbench tables NAME ... | --all        --plan | --run  [key=value ...]
"""
EPILOG = """\
  format=         terminal (default), markdown, csv, html
  out=DIR         writes NAME.md, .csv and .html there, or the one of format=; .html is a page
                  of its own, where format=html alone prints a part to put into one
  experiment=NAME backbone=NAME   only the runs of that experiment, of that network

Settings of `gradbench run` (data.root=DIR backbone.width=32 backbone.checkpoint=FILE limit=N) go
to the runs of --plan and --run. --config-dir DIR adds your own table/NAME.yaml.
"""
FORMATS = {"terminal": "", "markdown": ".md", "csv": ".csv", "html": ".html"}
FILTERS = ("experiment", "backbone")
"""Settings that choose among the runs."""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("words", nargs="*", metavar="list | NAME | key=value", help="see below")
    parser.add_argument("--all", action="store_true", help="all tables")
    parser.add_argument(
        "--plan", action="store_true",
        help="what is missing, why, the runs that would fill it, and the time they would take",
    )  # fmt: skip
    parser.add_argument(
        "--run", action="store_true",
        help="first make those runs, into outputs/tables/ or the first folder of results=; what is "
        "kept in the store is not computed again, so it goes on after a kill",
    )  # fmt: skip
    add_config_dir(parser)


def main(args: Namespace) -> None:
    """Print, write or plan tables."""
    with step("loading libraries"):
        from gradbench.report.papers.table import read_table, table_files

    dirs, makes_runs = args.config_dir, args.plan or args.run
    if args.words[:1] == ["list"] or not (args.words or args.all or makes_runs):
        _list(args.words[1:], dirs)
        return
    names, own, others = split_words(args.words, ("results", "format", "out", *FILTERS))
    filters = {key: own[key] for key in FILTERS if key in own}
    known = table_files(dirs)
    for name in names:
        if name not in known:
            raise unknown("table", name, known)
    names = list(known) if args.all else list(dict.fromkeys(names))
    if not names:
        raise GradbenchError(f"name a table, or --all for all: {', '.join(sorted(known))}")
    if (others or filters) and not makes_runs:
        word = [*others, *("=".join(pair) for pair in filters.items())][0]
        raise GradbenchError(f"{word} is a setting of runs, and none is made: add --plan or --run")
    out = Path(own["out"]).expanduser() if own.get("out") else None
    form = own.get("format", "" if out else "terminal")
    if form and form not in FORMATS:
        raise unknown("format", form, FORMATS)
    places = [Path(name).expanduser() for name in own.get("results", "").split(",") if name]
    if not args.run:
        existing_folders("results", own.get("results", ""))
    places = places or [Path("outputs"), Path("results")]
    tables = [read_table(name, dirs) for name in names]
    failed = []
    if makes_runs:
        filled = _fill(tables, places, dirs, needed=False)
        runs = _missing_runs(filled, others, filters, dirs)
        if args.plan:
            _plan(filled, runs, others, dirs)
            return
        failed = _make(runs, others, places[0], dirs)
    _write(_fill(tables, places, dirs, needed=not args.run), form, out)
    if failed:
        raise GradbenchError(f"these runs failed, as said above: {', '.join(failed)}")


def _list(extra: Sequence[str], dirs: Sequence[Path]) -> None:
    from gradbench.config import group_files
    from gradbench.report.papers.table import read_table, table_files

    if extra:
        raise GradbenchError(f"`tables list` takes no {extra[0]}: --config-dir DIR alone")
    detectors = set(group_files("detector", dirs))
    tables = [read_table(name, dirs) for name in table_files(dirs)]
    width = max(len(table.name) for table in tables)
    print(f"tables ({len(tables)}): name, published numbers, of them with a method that is built")
    for table in tables:
        built = table.printed["detector"].isin(detectors).sum()
        print(f"  {table.name:<{width}}  {len(table.printed):>4}  {built:>4}  {table.description}")


def _fill(
    tables: Sequence, places: Sequence[Path], dirs: Sequence[Path], needed: bool
) -> list[FilledTable]:
    from gradbench.report.finished_run import find_runs
    from gradbench.report.papers.fill import fill

    with step(f"reading the runs under {' and '.join(map(str, places))}"):
        runs = find_runs(places)
    unfilled = [table.name for table in tables if len(table.places)]
    if needed and not runs and unfilled:
        raise GradbenchError(
            f"no finished run under {' or '.join(map(str, places))}: `gradbench tables "
            f"{unfilled[0]} --run` makes them, results=DIR names other folders"
        )
    filled = []
    for table in tables:
        with step(f"filling the table {table.name}"):
            filled.append(fill(table, runs, dirs))
    return filled


def _missing_runs(
    filled: Sequence[FilledTable], words: Sequence[str], filters: dict[str, str], dirs: list[Path]
) -> list[MissingRun]:
    from gradbench.cli.composing import compose, prepare_overrides
    from gradbench.data.dataset import DataSettings
    from gradbench.report.papers.missing import missing_runs

    prepare_overrides(words, dirs)
    data = compose([word for word in words if word.startswith("data.")], dirs)["data"]
    runs = missing_runs(filled, dirs, DataSettings(Path(data["root"]), data["download"]))
    return [r for r in runs if all(getattr(r, key) == value for key, value in filters.items())]


def _make(
    runs: Sequence[MissingRun], settings: Sequence[str], root: Path, dirs: Sequence[Path]
) -> list[str]:
    """Make the runs that are missing; return the folders of those that failed."""
    from gradbench.cli.composing import compose, hydra_faults
    from gradbench.cli.run_command import carry_out
    from gradbench.report.claim import unclaimed_folder

    failed = []
    for run in runs:
        if run.absent:
            place = f"{run.experiment}, {run.backbone}"
            say(f"{place}: {run.cells} cells without images: {run.absent}")
            continue
        words = run.arguments(settings)
        with hydra_faults(words, dirs):
            default = run.folder(root, settings, dirs)
        out = unclaimed_folder(default, compose(words, dirs))
        words = [*words, f"out={out}"]
        command = with_dirs(words, dirs)
        say(f"gradbench run {' '.join(command)}")
        try:
            carry_out(compose(words, dirs), dirs, out, command)
        except Exception as fault:  # the other runs are made nevertheless
            say(f"gradbench: {printable(str(as_error(fault)))}")
            failed.append(str(out))
    return failed


def _plan(
    filled: Sequence[FilledTable],
    runs: Sequence[MissingRun],
    settings: Sequence[str],
    dirs: Sequence[Path],
) -> None:
    """Print what is missing, why, and the time that the runs would take."""
    from gradbench.cli.composing import hydra_faults
    from gradbench.report.papers.missing import summary
    from gradbench.run.plan import forecast

    for table in filled:
        print("\n".join(summary(table)), end="\n\n")
    total, count, refused = 0.0, 0, []
    for run in runs:
        words = run.arguments(settings)
        print(f"gradbench run {' '.join([*words, *with_dirs((), dirs)])}")
        try:
            with hydra_faults(words, dirs), step(f"planning {run.experiment}"):
                seconds, notes = forecast(words, dirs)
        except GradbenchError as fault:
            # a setting that this network has not, for example its width
            print(f"  will not be made: {fault}")
            refused.append(fault)
            continue
        if run.absent:  # the reasons of the run itself say how to get the images
            reasons = notes or [f"will not be made: {run.absent}"]
            print(f"  {'; '.join(reasons)} ({run.cells} cells)")
            continue
        count, total = count + 1, total + seconds
        print(f"  fills up to {run.cells} cells in about {duration(seconds)}, then fits detectors")
        for note in notes:
            print(f"  {note}")
    if refused and not count:
        raise refused[0]
    number = f"{count} run{'s' * (count != 1)}"
    print(f"{number}, about {duration(total)} in all, then fitting and measuring")


def _write(filled: Sequence[FilledTable], form: str, out: Path | None) -> None:
    """Print tables, or write them to a folder in one format, or in all."""
    from gradbench.report.page import page
    from gradbench.report.papers import document
    from gradbench.report.papers.fill import to_csv

    render = {
        "terminal": document.terminal,
        "markdown": document.markdown,
        "csv": lambda table: to_csv([table]),
        "html": document.html_fragment,
    }
    if out is None:
        if form == "csv":
            print(to_csv(filled), end="")
        else:
            print("\n\n".join(render[form](table).rstrip("\n") for table in filled))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in filled:
            for name in [form] if form else [name for name in FORMATS if FORMATS[name]]:
                path = out / f"{table.table.name}{FORMATS[name] or '.txt'}"
                text = render[name](table).rstrip("\n")
                if name == "html":
                    text = page(table.table.title, text).rstrip("\n")
                path.write_text(text + "\n", encoding="utf-8")
                print(path)
    except OSError as fault:
        raise GradbenchError(f"cannot write to out={out}: {fault.strerror}") from fault
