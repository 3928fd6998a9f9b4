"""Hands a command over to Hydra, and takes the composed configuration from it."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from gradbench.cli.complaints import in_a_sentence
from gradbench.cli.overrides import at_home, check_overrides
from gradbench.cli.words import OPTIONS_WITH_VALUE, config_dirs, fail, of_the_machine
from gradbench.config import builtin_dir, check_chosen_files, check_settings, resolve_references
from gradbench.errors import GradbenchError


def launch(task: Callable, words: list[str], help_text: str, multirun: bool = False) -> None:
    """Run `task` with the composed configuration, as `hydra.main` does.

    Args:
        task: takes the configuration.
        words: the command line without command.
        help_text: answer to --help.
        multirun: run every combination of comma lists.

    Raises:
        GradbenchError: for overrides that Hydra refuses.
    """
    if any(word in ("-h", "--help") for word in words):
        print(help_text)
        return
    words = [  # a bare --info must not take the next word for its value
        "--info=all" if word == "--info" and (not after or "=" in after) else word
        for word, after in pairwise([*map(at_home, words), ""])
    ]
    check_overrides(words, multirun)
    check_chosen_files(words, config_dirs(words))
    wanted = task if multirun else _quiet(task)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed
    logging.getLogger("hydra").addHandler(logging.NullHandler())  # its faults are told once
    sys.argv = ["gradbench", *(["--multirun"] if multirun else []), *options_first(words)]
    import hydra

    with in_a_sentence(words):
        hydra.main(version_base="1.3", config_path=str(builtin_dir()), config_name="config")(
            wanted
        )()


def options_first(words: list[str]) -> list[str]:
    """Return options with their values before the overrides: argparse takes none in between."""
    options, overrides = [], []
    for before, word in pairwise(["", *words]):
        of_option = word.startswith("-") or before in OPTIONS_WITH_VALUE
        (options if of_option else overrides).append(word)
    return options + overrides


def _quiet(task: Callable) -> Callable:
    """Return a task whose faults reach the user as a sentence, without Hydra's line before it."""

    @functools.wraps(task)
    def quiet(cfg) -> None:
        try:
            task(cfg)
        except GradbenchError as fault:
            fail(fault)
        except (MemoryError, ImportError, OSError, RuntimeError) as fault:
            fail(of_the_machine(fault))

    return quiet


def composed_dirs() -> list[Path]:
    """Return the user's folders that the running configuration was composed from."""
    from hydra.core.hydra_config import HydraConfig

    paths = [s.path for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    return [Path(p) for p in paths if p and Path(p) != builtin_dir()]


def composed(cfg) -> dict[str, Any]:
    """Return the composed configuration as plain data.

    Raises:
        GradbenchError: if it cannot be resolved, or is not what it should be.
    """
    config = resolve_references(cfg)
    check_settings(config)
    return config
