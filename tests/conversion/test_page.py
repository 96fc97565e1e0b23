"""docs/conversion.md does what it says."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from patchpad.cli.app import main
from patchpad.config import load_config
from patchpad.conversion.convert import trunk_values
from patchpad.conversion.source import LlamaSource
from patchpad.testing.tokens import tiny_source_tokens, tiny_tokenizer_json
from patchpad.training.checkpoint import open_checkpoint

pytestmark = pytest.mark.unchecked
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "conversion.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_run_in_order(llama, tmp_path, monkeypatch, capsysbinary):
    folder = llama("llama", vocab_size=len(tiny_source_tokens().bytes_of))
    tokenizer = tiny_tokenizer_json(names=("<|endoftext|>", "<|im_end|>"))
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, shown in zip(("trunk", "tokens"), blocks("yaml"), strict=True):
        (tmp_path / f"{name}.yaml").write_text(shown)
    for line in "".join(blocks("sh")).splitlines():
        assert main(shlex.split(line)[1:]) == 0, (line, capsysbinary.readouterr().err)
    assert open_checkpoint("runs/second").config.model.trunk_dim == 48
    assert open_checkpoint("runs/third").config.model.source_head == "tied"
    assert load_config("trunk.yaml").model.byte_dim == 64
    ((call, words),) = re.findall(r"`patchpad\.conversion\.convert\.(\w+)\((.*)\)`", PAGE)
    assert (call, words) == ("convert", '"llama", "trunk.yaml", "runs/converted"')


def test_the_page_names_every_key_that_the_source_decides_and_its_field(llama):
    for key, (field, _) in trunk_values(LlamaSource.open(llama()).config).items():
        assert f"| `{key}` | `{field}` | " in PAGE
