"""The shell scripts: what they hand on, and that a shell can read them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def regenerate(tmp_path, *words: str, program: str = "told") -> subprocess.CompletedProcess:
    told = tmp_path / "told"
    told.write_text('#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\nexit 3\n')
    told.chmod(0o755)
    env = {**os.environ, "GRADBENCH": str(tmp_path / program)}
    script = SCRIPTS / "regenerate_tables.sh"
    return subprocess.run([script, *words], env=env, cwd=tmp_path, capture_output=True, text=True)


def test_words_and_exit_code_are_handed_on(tmp_path):
    ran = regenerate(tmp_path, "data.root=a folder", "challenges=[svhn, fgsm]")
    first = ["<tables>", "<--all>", "<--run>", "<out=outputs/tables>"]
    assert ran.stdout.splitlines() == [*first, "<data.root=a folder>", "<challenges=[svhn, fgsm]>"]
    assert ran.returncode == 3


def test_another_folder_for_the_tables(tmp_path):
    ran = regenerate(tmp_path, "out=my tables")
    assert ran.stdout.splitlines() == ["<tables>", "<--all>", "<--run>", "<out=my tables>"]


def test_a_program_that_is_not_there(tmp_path):
    if (SCRIPTS.parent / ".venv/bin/gradbench").exists():
        pytest.skip("the checkout's own environment is taken instead")
    ran = regenerate(tmp_path, program="nowhere")
    assert ran.returncode == 2
    assert "gradbench is not installed: make install" in ran.stderr


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_stop_at_the_first_fault_and_can_be_run(script):
    assert os.access(script, os.X_OK)
    assert "\nset -eu\n" in script.read_text()
    assert subprocess.run([shutil.which("sh"), "-n", script]).returncode == 0
