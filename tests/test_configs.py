"""Every configuration in `configs/` is read, and trains or equals what it claims to be."""

from dataclasses import replace
from pathlib import Path

import pytest

from patchpad.config import load_config
from patchpad.study.quickstart import CONFIG

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_configuration_is_read(file):
    assert load_config(file).model.context_bytes > 0


def test_the_quickstart_configuration_is_the_one_that_quickstart_trains():
    config = load_config(next(file for file in FILES if file.stem == "small-cpu-fixed16-entropy"))
    assert config == replace(CONFIG, train=replace(CONFIG.train, steps=config.train.steps))
