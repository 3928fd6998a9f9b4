"""`gradbench tables`: the papers' tables, printed numbers beside those of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.cli.tables_asked import Asked
from gradbench.cli.words import config_dirs
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import step

if TYPE_CHECKING:
    from gradbench.report.papers.fill import FilledTable

HELP = """\
gradbench tables [list]
gradbench tables NAME ... | --all  [results=DIR,DIR] [format=FORMAT] [out=DIR]
gradbench tables NAME ... | --all  --plan | --run  [key=value ...]

Each table of the papers, cell by cell: published, measured with interval, difference. Numbers are
those of finished runs under outputs/ and results/, or in the folders of results=; of the published
size of the network the run that fills most cells wins, of several the newest, and each table says
which it was made from. A cell that is not measured says why.

  list            the tables, and what they hold (also without any word)
  format=         terminal (default), markdown, csv, latex, html
  out=DIR         writes NAME.md, .csv, .tex and .html there, or the one of format=; .html is a
                  page of its own, where format=html alone prints a part to put into one
  --plan          what is missing, why, the runs that would fill it, and the time they would take
  --run           first makes those runs, into outputs/tables/ or the first folder of results=;
                  what is kept in the store is not computed again, so it goes on after a kill
  experiment=NAME backbone=NAME   only the runs of that experiment, of that network

Settings of `gradbench run` (data.root=DIR backbone.width=32 backbone.checkpoint=FILE limit=N) go
to the runs of --plan and --run. --config-dir DIR adds your own table/NAME.yaml.
"""
FORMATS = {"terminal": "", "markdown": ".md", "csv": ".csv", "latex": ".tex", "html": ".html"}
OPTIONS = ("--all", "--plan", "--run", "--help", "--config-dir")


def main(words: list[str]) -> None:
    """Run the command."""
    if any(word in ("-h", "--help") for word in words):
        print(HELP)
        return
    with step("loading libraries"):
        from gradbench.report.papers.table import read_table, table_files

    rest = without_dirs(words)
    if rest[:1] in ([], ["list"]):
        _list(rest[1:], config_dirs(words))
        return
    asked = _read(words, table_files(config_dirs(words)))
    tables = [read_table(name, asked.dirs) for name in asked.names]
    if asked.plan:
        from gradbench.cli.tables_runs import plan

        plan(asked, fill_all(asked, tables, needed=False))
        return
    failed = []
    if asked.run:
        from gradbench.cli.tables_runs import make

        failed = make(asked, fill_all(asked, tables, needed=False))
    filled = fill_all(asked, tables, needed=not asked.run)
    _write(asked, filled)
    if failed:
        raise GradbenchError(f"these runs failed, as said above: {', '.join(failed)}")


def _list(extra: Sequence[str], dirs: Sequence[Path]) -> None:
    from gradbench.config import group_files
    from gradbench.report.papers.table import read_table, table_files

    if extra:
        raise GradbenchError(f"`tables list` takes no {extra[0]}: --config-dir DIR alone")
    detectors = set(group_files("detector", dirs))
    tables = [read_table(name, dirs) for name in table_files(dirs)]
    wide = max(len(table.name) for table in tables)
    print(f"tables ({len(tables)}): name, published numbers, of them with a method that is built")
    for table in tables:
        built = table.printed["detector"].isin(detectors).sum()
        print(f"  {table.name:<{wide}}  {len(table.printed):>4}  {built:>4}  {table.description}")


def without_dirs(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without --config-dir DIR."""
    names = ("--config-dir", "-cd")
    pairs = pairwise(["", *words])
    return [w for before, w in pairs if before not in names and w.split("=", 1)[0] not in names]


def _read(words: list[str], there: Sequence[str]) -> Asked:
    """Read a command line.

    Raises:
        GradbenchError: for a word that means nothing here.
    """
    dirs = config_dirs(words)
    names, given, only, said = [], [], {}, {}
    for word in without_dirs(words):
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            if word not in OPTIONS:
                raise unknown("option of tables", word, OPTIONS)
            said[word] = True
        elif not equals:
            names.append(word)
        elif key in ("results", "format", "out"):
            said[key] = value
        elif key in ("experiment", "backbone"):
            only[key] = value
        else:
            given.append(word)
    for name in names:
        if name not in there:
            raise unknown("table", name, there)
    names = list(there) if "--all" in said else list(dict.fromkeys(names))
    if not names:
        raise GradbenchError(f"name a table, or --all for all: {', '.join(sorted(there))}")
    runs = "--plan" in said or "--run" in said
    if not runs and (given or only):
        word = [*given, *(f"{k}={v}" for k, v in only.items())][0]
        raise GradbenchError(f"{word} is a setting of runs, and none is made: add --plan or --run")
    if said.get("format", "terminal") not in FORMATS:
        raise unknown("format", said["format"], FORMATS)
    folders = [Path(f).expanduser() for f in said.get("results", "").split(",") if f]
    for folder in folders:
        if not folder.is_dir() and "--run" not in said:
            raise GradbenchError(f"results={folder}: there is no such folder")
    out = Path(said["out"]).expanduser() if said.get("out") else None
    return Asked(
        names,
        folders,
        said.get("format", "" if out else "terminal"),
        out,
        given,
        only,
        dirs,
        "--plan" in said,
        "--run" in said,
    )


def fill_all(asked: Asked, tables, needed: bool) -> list[FilledTable]:
    """Fill tables from finished runs.

    Raises:
        GradbenchError: if there is no run though a table needs one, or a run is damaged.
    """
    from gradbench.report.papers.fill import fill
    from gradbench.report.papers.runs import find_runs

    with step(f"reading the runs under {' and '.join(map(str, asked.places))}"):
        runs = find_runs(asked.places)
    wants = [table.name for table in tables if len(table.places)]
    if needed and not runs and wants:
        raise GradbenchError(
            f"no finished run under {' or '.join(map(str, asked.places))}: `gradbench tables "
            f"{wants[0]} --run` makes them, results=DIR names other folders"
        )
    found = []
    for table in tables:
        with step(f"filling the table {table.name}"):
            found.append(fill(table, runs, asked.dirs))
    return found


def _write(asked: Asked, filled: list[FilledTable]) -> None:
    """Print tables, or write them to a folder.

    Raises:
        GradbenchError: if the folder cannot be written.
    """
    from gradbench.report.page.page import page
    from gradbench.report.papers import document
    from gradbench.report.papers.fill import to_csv

    render = {
        "terminal": document.terminal,
        "markdown": document.markdown,
        "csv": lambda filled: to_csv([filled]),
        "latex": document.latex_document,
        "html": document.html_fragment,
    }
    if asked.out is None:
        if asked.format == "csv":
            print(to_csv(filled), end="")
        else:
            print("\n\n".join(render[asked.format](one).rstrip("\n") for one in filled))
        return
    formats = [asked.format] if asked.format else [name for name in FORMATS if FORMATS[name]]
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        for one in filled:
            for name in formats:
                path = asked.out / f"{one.table.name}{FORMATS[name] or '.txt'}"
                text = render[name](one).rstrip("\n")
                if name == "html":
                    text = page(one.table.title, text).rstrip("\n")
                path.write_text(text + "\n", encoding="utf-8")
                print(path)
    except OSError as fault:
        raise GradbenchError(f"cannot write to out={asked.out}: {fault.strerror}") from fault
