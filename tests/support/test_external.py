"""Code from outside: what it sets is put back, what it raises is a sentence."""

import os
import random
import warnings

import numpy as np
import pytest
import torch

from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.support.external import external_call, external_line, preserve_process_state


def settings():
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_default_device(),
        torch.get_deterministic_debug_mode(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        np.geterr(),
        list(warnings.filters),
        os.getcwd(),
        torch.rand(3).tolist(),
        np.random.rand(3).tolist(),
        random.random(),
    )


def meddle():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    np.seterr(all="raise")
    warnings.simplefilter("error")
    os.chdir("/")
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


@pytest.mark.parametrize("raises", [False, True])
def test_settings_of_the_process_are_put_back(raises):
    with preserve_process_state():
        before = settings()
    try:
        with external_call("mine"):
            meddle()
            if raises:
                raise ValueError
    except Faulty:
        pass
    with preserve_process_state():
        assert settings() == before


def test_what_is_raised_names_file_and_line():
    with pytest.raises(Faulty) as caught, external_call("detector mine: Mine.score"):
        torch.zeros(2) @ torch.zeros(3)
    text = str(caught.value)
    assert text.startswith("detector mine: Mine.score raises RuntimeError (")
    assert "test_external.py, line " in text
    assert "\n" not in text


@pytest.mark.parametrize("fault", [KeyError("a\nb\x1b[1m"), SystemExit(0), GradbenchError("no")])
def test_whatever_is_raised_is_one_line(fault):
    with pytest.raises(Faulty, match=r"^mine raises ") as caught, external_call("mine"):
        raise fault
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("fault", [MissingData("not here"), Faulty("known"), KeyboardInterrupt()])
def test_what_is_a_sentence_already_and_an_interruption_pass(fault):
    with pytest.raises(type(fault)) as caught, external_call("mine"):
        raise fault
    assert caught.value is fault


def test_faults_of_libraries_alone_have_no_line():
    with pytest.raises(SyntaxError) as caught:
        compile("1 +", "<string>", "eval")
    assert "test_external.py" in external_line(caught.value)
    assert external_line(ValueError()) == ""
