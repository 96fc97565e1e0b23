"""Shapes are checked in every test: the hook is installed before patchpad is imported, and stays for lazy imports."""

import jaxtyping

jaxtyping.install_import_hook("patchpad", "beartype.beartype")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, max_examples=12, derandomize=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models are tiny: threads would wait for each other longer than they compute
