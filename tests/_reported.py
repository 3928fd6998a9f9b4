"""Runs to report on, made by hand, and a reader of the page."""

import json
from html.parser import HTMLParser

from gradbench.report.finished_run import seal
from gradbench.run.rows import frame, write_csv

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}
ABOUT = {
    "experiment": "quickstart",
    "in_dist": "digits",
    "backbone": "small_cnn",
    "width": 16,
    "n_clean": 360,
    "protocol": "grouped",
    "told": "A value is the mean over its folds.",
    "left_out": {},
    "remark": "",
    "command": "gradbench run experiment=quickstart 'challenges=[<a>]'",
}
SAW = {"msp": "none", "gradient": "training"}
COSTS = """\
step,what,images,seconds,images_per_second,with_passes_per_second,peak_mib,peak_device_mib,forward_passes,backward_passes,made_by_this_run
passes,logits,1000,2.000,500,,,,,,yes
passes,squared_norms/ones/bce,1000,8.000,125,,,,,,yes
scores,msp,1000,0.500,2000,400,,,1,0,yes
scores,gradient,1000,2.000,500,100,,,1,1,yes
"""


def write(folder, rows, costs=COSTS, seeds=("0",), **more):
    """Write the folder of a finished run; `more` goes to what is said about it."""
    folder.mkdir(parents=True)
    about = ABOUT | {
        "accuracy": dict.fromkeys(seeds, 0.97223),
        "detectors": {
            name: {
                "supervision": seen,
                "clean_seen": "none",
                "reads": ["logits" if name == "msp" else "squared_norms/ones/bce"],
                "passes": "1 forward, 0 backward",
            }
            for name, seen in SAW.items()
        },
    }
    told = {
        "about": about | more,
        "config": {
            "backbone": {"name": "small_cnn", "width": 16},
            "limit": None,
            "evaluation": {"seed": 0, "confidence": 0.95},
            "challenge": {"seed": 0},
            "data": {"root": "data"},
        },
        "versions": {"gradbench": "0.1.0", "torch": "2.14.1"},
        "code": {"version": "0.1.0", "commit": "0123456789abcdef", "changed": True},
        "hardware": {"processor": "A & B", "device": "cpu"},
        "data": {"train": {"images": 1000, "status": "official", "note": "", "fingerprint": "abc"}},
        "networks": {
            seed: {"accuracy": 0.97223, "weights": f"weights{seed}", "origin": "trained"}
            for seed in seeds
        },
        "time": {"begun": "2026-05-01T10:00:00+0000", "seconds": 12.5},
    }
    (folder / "run.json").write_text(json.dumps(told))
    write_csv(frame(rows), folder / "results.csv")
    if costs:
        (folder / "costs.csv").write_text(costs)
    assert seal(folder)
    return folder


class Element:
    """An element of a page: its name, attributes, text and what it holds."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.inside, self.words = [], []

    @property
    def text(self):
        """The text in it and in all that it holds."""
        return "".join(one if isinstance(one, str) else one.text for one in self.words)

    def all(self, tag=None, kind=None, **attributes):
        """Return what it holds of some name, class and attributes, however deep, in order."""
        found = []
        for one in self.inside:
            fits = tag in (None, one.tag) and all(
                one.attributes.get(k.replace("_", "-")) == v for k, v in attributes.items()
            )
            if fits and (kind is None or kind in one.attributes.get("class", "").split()):
                found.append(one)
            found += one.all(tag, kind, **attributes)
        return found


class Reader(HTMLParser):
    """Builds a page's elements, and insists that each is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.root = self.here = Element("", {}, None)

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        one = Element(tag, dict(attrs), self.here)
        self.here.inside.append(one)
        self.here.words.append(one)
        if tag not in VOID:
            self.here = one

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.here.tag == tag, (self.here.tag, tag, self.getpos())
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.words.append(data)


def parsed(text):
    """Return a page's elements; every one of them is closed in its turn."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.here is reader.root, reader.here.tag
    return reader.root


def cells(table):
    """Return a table's rows below its head as texts."""
    return [
        [" ".join(one.text.split()) for one in row.inside if one.tag in ("td", "th")]
        for row in table.all("tbody")[0].all("tr")
    ]
