"""A source becomes a run at step 0, on which every command works."""

import json

import pytest
import torch

from patchpad.cli.app import main
from patchpad.config import Config, load_config
from patchpad.conversion import convert as conversion
from patchpad.conversion.convert import convert
from patchpad.conversion.source import LlamaSource
from patchpad.cost import count_parameters
from patchpad.errors import CheckpointError, ConfigError, ConversionError
from patchpad.files import sha256_of
from patchpad.model.build import build_model
from patchpad.training import trainer
from patchpad.training.checkpoint import load, open_checkpoint

YAML = """\
model:
  byte_dim: 16
  byte_heads: 2
  window_bytes: 4
  ngram_vocab_size: 0
  pooling_heads: 2
  context_bytes: 64
  rotary_base: 500
  {more}
train: {{steps: 3, batch_rows: 2, warmup_steps: 1, device: cpu, seed: 5}}
"""


@pytest.fixture
def settings(tmp_path):
    """Writes a configuration; `more` are further keys of the model."""

    def write(more: str = "context_lags: 4"):
        (tmp_path / "settings.yaml").write_text(YAML.format(more=more))
        return tmp_path / "settings.yaml"

    return write


def test_the_trunk_is_the_sources_and_the_rest_is_drawn_from_the_seed(llama, settings, tmp_path):
    source = llama()
    made = convert(source, settings(), tmp_path / "run")
    config, found = open_checkpoint(tmp_path / "run").config, load(tmp_path / "run").state_dict()
    sizes = ("dim", "heads", "kv_heads", "layers", "ffn_dim", "rotary_base", "norm_epsilon")
    assert [getattr(config.model, f"trunk_{name}") for name in sizes] == [48, 6, 2, 3, 72, 1e5, 3e-4]
    assert (config.model.byte_dim, config.model.rotary_base, config.train.seed) == (16, 500.0, 5)
    drawn = build_model(config.model, seed=5).state_dict()
    assert drawn.keys() == found.keys() == made.model.state_dict().keys()
    for name, tensor in found.items():
        is_same = torch.equal(tensor.nan_to_num(), drawn[name].nan_to_num())
        # The inputs of slots are drawn too, and then scaled to the source's embeddings.
        assert is_same != name.startswith(("trunk.", "patch_pooling.out.", "patch_pooling.mean_out.")), name
    opened = LlamaSource.open(source)
    assert torch.equal(found["trunk.norm.weight"], opened.tensor("model.norm.weight"))
    up = found["trunk.stack.blocks.2.ffn_gate_up.weight"][72:]
    assert torch.equal(up, opened.tensor("model.layers.2.mlp.up_proj.weight"))


def test_as_many_heads_of_keys_as_of_queries_are_a_trunk_like_any_other(llama, settings, tmp_path):
    def widened(weights):
        for name in [name for name in weights if "k_proj" in name or "v_proj" in name]:
            weights[name] = weights[name].repeat(3, 1)

    source = llama(num_key_value_heads=None, tensors=widened)
    assert convert(source, settings("trunk_kv_heads: 6"), tmp_path / "run").model.config.trunk_kv_dim == 48


def test_keys_that_the_file_and_the_source_say_alike_may_stand_in_both(llama, settings, tmp_path):
    file = settings("trunk_dim: 48\n  trunk_norm_epsilon: 3.0e-4\n  trunk_rotary_base: 100000\n  trunk_ffn_dim: null")
    assert convert(llama(), file, tmp_path / "run").model.config.trunk_dim == 48


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("trunk_dim: 64", "model.trunk_dim is 64, and hidden_size is 48 in {source}; allowed: the same"),
        (
            "trunk_layers: 2\n  trunk_heads: 3",
            "model.trunk_heads is 3, and num_attention_heads is 6 in {source}; model.",
        ),
        ("trunk_kv_heads: 6", "model.trunk_kv_heads is 6, and num_key_value_heads is 2 in"),
        ("trunk_ffn_dim: 80", "model.trunk_ffn_dim is 80, and intermediate_size is 72 in"),
        ("trunk_rotary_base: 10000", "model.trunk_rotary_base is 10000, and rope_theta is 100000.0 in"),
        ("trunk_norm_epsilon: 1.0e-6", "model.trunk_norm_epsilon is 1e-06, and rms_norm_eps is 0.0003 in"),
        ("trunk_dim: wide", "`model.trunk_dim` is 'wide'; allowed: an integer"),
        ("trunk_width: 3", "unknown key `model.trunk_width`"),
    ],
)
def test_a_configuration_that_says_something_else_is_refused_before_there_is_a_folder(
    llama, settings, tmp_path, more, expected
):
    source = llama()
    with pytest.raises(ConfigError) as caught:
        convert(source, settings(more), tmp_path / "run")
    assert expected.format(source=source) in caught.value.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {kind: byte}", "model.kind is byte; allowed: patch, whose trunk the layers become"),
        ("model: {kind: megabyte, trunk_dim: 64}", "model.kind is megabyte; allowed: patch"),
        ("train: {init_from: bundled}", "train.init_from is bundled; allowed: null, since the other parts are drawn"),
        ("model: 3", "`model` is 3; allowed: keys and values"),
    ],
)
def test_what_cannot_be_converted_is_refused(llama, tmp_path, text, expected):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        convert(llama(), tmp_path / "settings.yaml", tmp_path / "run")
    assert expected in caught.value.message
    assert not (tmp_path / "run").exists()


def test_a_source_that_fails_while_it_is_read_leaves_no_folder(llama, settings, tmp_path):
    source = llama(tensors=lambda found: found["model.norm.weight"].fill_(float("inf")))
    with pytest.raises(ConversionError, match="holds nan or inf"):
        convert(source, settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        convert(source, settings(), tmp_path / "full")


def test_the_card_says_whose_layers_they_are_and_under_which_licence(llama, settings, tmp_path):
    source = llama()
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    config = convert(source, settings(), tmp_path / "run").config
    card = (tmp_path / "run" / "CARD.md").read_text()
    assert "the 3 layers and the last norm of llama" in " ".join(card.split())
    assert "Licence of the source: apache-2.0 (stated in `README.md`)" in card
    assert "stands under that licence too" in " ".join(card.split())
    assert f"| `model.safetensors` | `{sha256_of(source / 'model.safetensors')}` |" in card
    parameters = count_parameters(config.model)
    assert f"{parameters['trunk']:,} parameters, in fp32" in " ".join(card.split())
    assert f"| `local_encoder` | {parameters['local_encoder']:,} |" in card
    assert "drawn from the seed 5" in card
    (source / "README.md").unlink()
    convert(source, settings(), tmp_path / "other")
    assert "Licence of the source: not stated" in (tmp_path / "other" / "CARD.md").read_text()


def test_a_frozen_trunk_stays_the_sources_while_the_rest_learns(llama, settings, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("It was a text of no great length.\n" * 40)
    convert(llama(), settings(), tmp_path / "run")
    config = load_config(
        settings(),
        {"train.frozen": "[trunk]", "train.init_from": str(tmp_path / "run")},
        model_of=lambda name: open_checkpoint(name).config.model,
    )
    trainer.train(config, data=text, out=tmp_path / "next")
    before, after = load(tmp_path / "run").state_dict(), load(tmp_path / "next").state_dict()
    for name in before:
        if "weight" in name:
            assert torch.equal(before[name], after[name]) == name.startswith("trunk."), name


def test_a_source_decides_every_key_of_the_trunk_but_its_window(llama):
    decided = conversion.trunk_values(LlamaSource.open(llama()).config)
    ours_alone = {"trunk_window_patches"}  # no llama has one
    assert set(decided) == {key for key in Config().to_dict()["model"] if key.startswith("trunk_")} - ours_alone


def called(capsysbinary, *words) -> tuple[int, str, str]:
    capsysbinary.readouterr()
    code = main([str(word) for word in words])
    captured = capsysbinary.readouterr()
    return code, captured.out.decode("utf-8", "replace"), captured.err.decode()


def test_the_command_says_what_was_taken_what_was_drawn_and_what_comes_next(llama, settings, tmp_path, capsysbinary):
    source, run = llama(), tmp_path / "run"
    code, out, _ = called(capsysbinary, "convert", "--from", source, "--config", settings(), "--out", run)
    parameters = count_parameters(open_checkpoint(run).config.model)
    assert code == 0
    assert (
        f"{parameters['trunk']:,} parameters of llama, {sum(parameters.values()) - parameters['trunk']:,} drawn" in out
    )
    assert "under which this model stands too: its files state none" in out
    assert f"Next: patchpad train --init-from {run} --train.frozen '[trunk]' --data PATH --out RUN" in out
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    words = ("convert", "--from", source, "--config", settings(), "--out", tmp_path / "two", "--json")
    code, out, _ = called(capsysbinary, *words)
    assert code == 0
    found = json.loads(out)
    assert (found["source"], found["licence"], found["num_params_taken"]) == ("llama", "mit", parameters["trunk"])
    assert found["num_params_taken"] + found["num_params_drawn"] == sum(parameters.values())


def test_the_command_fails_in_two_lines_and_writes_nothing(llama, settings, tmp_path, capsysbinary):
    source = llama(model_type="qwen2")
    code, out, err = called(
        capsysbinary, "convert", "--from", source, "--config", settings(), "--out", tmp_path / "run"
    )
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        f"patchpad: {source}/config.json: model_type is qwen2; allowed: llama",
        "Only models of the llama architecture can become a trunk.",
    ]
    source = llama("fits")
    code, _, err = called(
        capsysbinary, "convert", "--from", source, "--config", settings("trunk_dim: 64"), "--out", tmp_path / "run"
    )
    assert code == 2
    assert len(err.splitlines()) == 2
    assert not (tmp_path / "run").exists()


def test_other_commands_work_on_a_converted_run(llama, settings, tmp_path, capsysbinary):
    run, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text("It was a text of no great length.\n" * 40)
    convert(llama(), settings(), run)
    assert called(capsysbinary, "generate", run, "--prompt", "It was", "--max-new-bytes", 5)[0] == 0
    code, out, _ = called(capsysbinary, "evaluate", run, "--data", text, "--limit-bytes", 300, "--json")
    assert code == 0
    assert 6 < json.loads(out)["points"][0]["bits_per_byte"] < 10
    code, out, _ = called(capsysbinary, "cost", "--config", run / "config.json", "--json")
    assert code == 0
    assert json.loads(out)["parts"]["trunk"]["num_params"] == sum(
        tensor.numel() for name, tensor in load(run).named_parameters() if name.startswith("trunk.")
    )


@pytest.mark.unchecked
def test_a_converted_run_is_exported_and_imported_with_its_card(llama, settings, tmp_path, capsysbinary):
    pytest.importorskip("transformers", reason='needs the extra `hub`: pip install "patchpad[hub]"')
    run = tmp_path / "run"
    convert(llama(), settings(), run)
    assert called(capsysbinary, "export", run, "--out", tmp_path / "exported")[0] == 0
    assert "Licence of the source: not stated" in (tmp_path / "exported" / "README.md").read_text()
    assert called(capsysbinary, "import", tmp_path / "exported", "--out", tmp_path / "again")[0] == 0
    ids = torch.tensor([[256, *b"It was a text."]])
    with torch.no_grad():
        assert torch.equal(load(run)(ids).logits, load(tmp_path / "again")(ids).logits)
