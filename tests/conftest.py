"""Shapes are checked in every test: the hook is installed before patchpad is imported, and stays for lazy imports."""

import jaxtyping

jaxtyping.install_import_hook("patchpad", "beartype.beartype")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

hypothesis.settings.register_profile("default", deadline=None, max_examples=5, derandomize=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models are tiny: threads would wait for each other longer than they compute
