"""The sections of `table.md` below the main table."""

from __future__ import annotations

from collections.abc import Sequence

from gradbench.protocols.base import random_name
from gradbench.report.draft import Draft, many
from gradbench.report.numbers import number
from gradbench.report.section import Section
from gradbench.report.view import ATTACKS, COLUMNS, Cell, View

ALARM = 0.001
"""A p-value after Holm below this is marked."""


def measures(view: View, names: Sequence[str]) -> Section | None:
    """Return all measures of every challenge and detector."""
    text = (
        "In percent. AUPR takes normal images (in) or abnormal images (out) as positive and is "
        "average precision; balanced gives both sides the same weight. Accuracy is detection "
        "accuracy, the mean of the shares of both sides that are recognised: at the best threshold "
        "for these very images, at the best one for *choose*, or where the detector itself says "
        "0.5. FPR95 is the share of the other side that is let through where 95 % of the side "
        "named are recognised; lower is better."
    )
    draft = Draft(("challenge", "level", "detector"), tuple(COLUMNS))
    for line in view.lines():
        for name in names:
            cells = [view.cell(line, name, measure) for measure in COLUMNS.values()]
            if any(cell.value is not None for cell in cells):
                draft.add((line.challenge, line.level, name), cells)
    return Section("All measures", (text, *draft.blocks())) if draft.rows else None


def attacks(view: View) -> Section | None:
    """Return what the attacks did to the images."""
    draft = Draft(("challenge", "level"), tuple(ATTACKS))
    for line in view.lines(("adversarial",)):
        cells = [view.cell(line, "", measure) for measure in ATTACKS.values()]
        if any(cell.value is not None for cell in cells):
            draft.add((line.challenge, line.level), cells)
    text = (
        "Images that were attempted, those of them that f classified correctly before, and those "
        "of these that it takes for another class after the attack; success is the share of the "
        "last two in percent. L2 is the mean over all images and L∞ the largest of all, pixels in "
        "[0, 1], then the same over the successful ones. All is measured after rounding to the "
        "grid, where images are rounded."
    )
    return Section("Attacks", (text, *draft.blocks())) if draft.rows else None


def controls(view: View, names: Sequence[str]) -> Section | None:
    """Return what a detector must not be able to do, and how it does."""
    draft = Draft(("control", "level"), tuple(names))
    alarm = False
    for line in view.lines(("control",)):
        protocol = view.protocol_of(line)
        cells = [view.cell(line, name, protocol=protocol) for name in names]
        if line.challenge in ("identity", "memorisation"):  # no interval that says anything
            cells = [_bare(cell) for cell in cells]
        for place, name in enumerate(names):
            found = view.p_value(line, name)
            if found:
                text, holm = found
                alarm |= holm < ALARM
                text = f"{cells[place].text}, {text}{' (!)' if holm < ALARM else ''}"
                cells[place] = cells[place]._replace(text=text)
        draft.add((line.challenge, line.level), cells)
        of = line.challenge.partition(":")[2]
        for same in view.lines():
            if of and same.challenge == of:
                draft.add((of, same.level), [view.cell(same, name) for name in names])
    if not draft.rows:
        return None
    text = (
        "AUROC in percent. *identity*: a challenge of strength zero, 50 for every detector. "
        "*random_labels*: clean images against clean images, half of them called abnormal "
        "arbitrarily; a supervised detector must stay at chance. *round_trip:NAME*: clean images "
        "put through the resampling and compression of NAME, with NAME itself below; what is told "
        "apart there is told by the processing, not by content. *memorisation*: images of f's "
        "training set against clean ones that it was not trained on (the hold-out, the abnormal "
        "side); 50 for "
        "a score that does not know its training images, far from 50 also for one that was itself "
        "fitted on either."
    )
    warning = (
        f"(!) p below {ALARM} after Holm: this detector tells apart what is the same, so its "
        "other numbers are in doubt."
    )
    if many(names, draft.rows):
        titles = [" ".join(filter(None, labels)) for labels, _ in draft.rows]
        draft = draft.turned(("detector",), [(name,) for name in names], titles)
    return Section("Controls", (text, *draft.blocks(), *([(warning,)] if alarm else [])))


def leak(view: View, names: Sequence[str]) -> Section | None:
    """Return the random split beside the protocol of the run."""
    draft = Draft(("challenge", "level", "split"), tuple(names))
    for line in view.lines():
        random = [view.cell(line, name, protocol=random_name(view.protocol)) for name in names]
        measured = [cell.value is not None for cell in random]
        if any(measured):
            usual = [view.cell(line, name) for name in names]
            draft.add((line.challenge, line.level, random_name(view.protocol)), random)
            draft.add(
                (line.challenge, line.level, view.protocol),
                [cell._replace(text=cell.text * there) for cell, there in zip(usual, measured)],
            )
    text = (
        f"AUROC in percent. With `{random_name(view.protocol)}`, the twin of a measured image (its "
        "clean original, or what was made from it) may have been fitted on. The difference between "
        "the two lines, up or down, is the work of the twins and not detection."
    )
    return Section("Random split", (text, *draft.blocks())) if draft.rows else None


def _bare(cell: Cell) -> Cell:
    return cell if cell.value is None else cell._replace(text=number(cell.value))
