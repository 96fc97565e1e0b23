"""What cannot become a trunk is an error that names the field, its value and what is allowed."""

import json
import sys

import pytest
import torch

from patchpad.conversion.source import LlamaSource
from patchpad.errors import ConversionError, MissingExtraError


def message_of(path) -> str:
    with pytest.raises(ConversionError) as caught:
        LlamaSource.open(path)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model_type": "qwen2"}, "model_type is qwen2; allowed: llama"),
        ({"model_type": None}, "model_type is missing; allowed: llama"),
        ({"attention_bias": True}, "attention_bias is true; allowed: false"),
        ({"mlp_bias": True}, "mlp_bias is true; allowed: false"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu; allowed: silu"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}; allowed: none"),
        ({"head_dim": 16}, "head_dim is 16; allowed: hidden_size / num_attention_heads, which is 8"),
        ({"hidden_size": 49}, "hidden_size is 49; allowed: a multiple of 2 x num_attention_heads, which is 12"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4; allowed: a number that divides num_attention_heads,"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; allowed: an integer of at least 1"),
        ({"vocab_size": "many"}, "vocab_size is many; allowed: an integer of at least 1"),
        ({"intermediate_size": None}, " has no intermediate_size"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0; allowed: a number above 0"),
        ({"rope_theta": True}, "rope_theta is true; allowed: a number above 1"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling.type is linear; allowed: default"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters.rope_type is llama3; allowed: default"),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor is 0.5; allowed: 1",
        ),
        ({"rope_scaling": "yarn"}, "rope_scaling is yarn; allowed: a section, or null"),
    ],
    ids=str,
)
def test_a_configuration_that_no_trunk_has_is_refused_with_its_field(llama, fields, expected):
    folder = llama(**fields)
    assert expected in message_of(folder)
    assert str(folder / "config.json") in message_of(folder)


def test_the_rotary_base_is_read_where_old_and_new_versions_of_transformers_put_it(llama):
    assert LlamaSource.open(llama("old", rope_theta=7.5)).config.rope_theta == 7.5
    new = llama("new", rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 7.5})
    assert LlamaSource.open(new).config.rope_theta == 7.5
    assert LlamaSource.open(llama("none", rope_theta=None)).config.rope_theta == 10000.0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda found: found.pop("model.norm.weight"), " lacks `model.norm.weight`; allowed: all tensors of 3 layers"),
        (
            lambda found: found.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(71, 48)}),
            "`model.layers.1.mlp.up_proj.weight` has the shape [71, 48]; allowed: [72, 48]",
        ),
        (
            lambda found: found.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(48)}),
            " has `model.layers.0.self_attn.q_proj.bias`; allowed: only the tensors of the llama architecture",
        ),
        (
            lambda found: found.update({"model.norm.weight": torch.zeros(48, dtype=torch.int8)}),
            "`model.norm.weight` has the type I8; allowed: F32, F16, BF16, F64",
        ),
    ],
)
def test_tensors_that_are_not_those_of_the_sizes_are_refused(llama, change, expected):
    assert expected in message_of(llama(tensors=change))


def test_many_missing_tensors_are_named_in_one_line(llama):
    assert " and 24 more; allowed" in message_of(llama(num_hidden_layers=6))


def test_nan_in_a_tensor_is_found_when_it_is_read(llama):
    source = LlamaSource.open(llama(tensors=lambda found: found["model.norm.weight"].fill_(float("nan"))))
    with pytest.raises(ConversionError, match=r"`model.norm.weight` holds nan or inf; allowed: finite weights"):
        source.tensor("model.norm.weight")


def test_what_old_versions_of_transformers_saved_beside_the_weights_is_left_alone(llama):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert LlamaSource.open(llama(tensors=lambda found: found.update({name: torch.zeros(4)}))).config.vocab_size == 50


@pytest.mark.parametrize("kept", [0, 5, 200, 20_000])
def test_safetensors_that_are_cut_off_are_refused(llama, kept):
    file = llama() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"cannot read {file}: " in message_of(file.parent)


def test_damaged_and_missing_files_of_a_folder_are_named(llama, tmp_path):
    sharded = llama("sharded", shards=2)
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert (
        message_of(sharded)
        == f"{sharded}/model-00002-of-00002.safetensors is missing; model.safetensors.index.json names it"
    )
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../b.safetensors"}}))
    assert "does not name the files of the weights" in message_of(sharded)
    (sharded / "model.safetensors.index.json").unlink()
    (sharded / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConversionError, match="Pickled weights are not read"):
        LlamaSource.open(sharded)
    (sharded / "config.json").write_text("{")
    assert f"cannot read {sharded / 'config.json'}: " in message_of(sharded)
    (sharded / "config.json").write_text("[]")
    assert "is not a JSON object" in message_of(sharded)
    (sharded / "config.json").unlink()
    assert message_of(sharded) == f"{sharded} has no config.json"
    assert message_of(tmp_path / "nothing").startswith(f"{tmp_path / 'nothing'} does not exist; allowed: a folder with")
    (tmp_path / "model.bin").write_bytes(b"")
    assert "model.bin is neither a folder nor a .gguf file" in message_of(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("keys", "fields", "expected"),
    [
        ({"llama.rope.scaling.type": "yarn"}, {}, "llama.rope.scaling.type is yarn; allowed: none"),
        ({"llama.rope.scaling.factor": 4.0}, {}, "llama.rope.scaling.factor is 4.0; allowed: 1"),
        ({"llama.rope.dimension_count": 4}, {}, "llama.rope.dimension_count is 4; allowed: llama.embedding_length / "),
        (
            {"llama.attention.key_length": 16},
            {},
            "llama.attention.key_length is 16; allowed: llama.embedding_length / ",
        ),
        ({"llama.expert_count": 8}, {}, "llama.expert_count is 8; allowed: 0"),
        ({"split.count": 3}, {}, "split.count is 3; allowed: a model in one file"),
        ({}, {"rms_norm_eps": 0.0}, "llama.attention.layer_norm_rms_epsilon is 0.0; allowed: a number above 0"),
    ],
    ids=str,
)
def test_a_gguf_file_that_no_trunk_can_be_is_refused_with_its_field(gguf, keys, fields, expected):
    assert expected in message_of(gguf(keys, **fields))


def test_rotary_frequencies_that_are_scaled_one_by_one_are_refused(gguf):
    path = gguf(tensors=lambda found: found.update({"rope_freqs.weight": torch.ones(4)}))
    assert "rope_freqs.weight is there; allowed: rotary frequencies that are not scaled one by one" in message_of(path)


@pytest.mark.parametrize("kept", [0, 3, 30, 900, 60_000])
def test_a_gguf_file_that_is_cut_off_is_refused(gguf, kept):
    path = gguf()
    assert path.stat().st_size > 100_000
    path.write_bytes(path.read_bytes()[:kept])
    assert f"cannot read {path}: " in message_of(path)


def test_a_quantisation_that_is_not_known_is_refused_before_anything_is_read(gguf):
    path = gguf(tensors=lambda found: found.update({"model.norm.weight": torch.zeros(48, dtype=torch.int8)}))
    assert "`output_norm.weight` is quantised as I8, which cannot be read" in message_of(path)


def test_a_gguf_file_without_the_extra_names_the_pip_line(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r'pip install "patchpad\[convert\]"'):
        LlamaSource.open(tmp_path / "model.gguf")


CARD = "---\nlanguage: en\nlicense: {}\n---\n# A model\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"README.md": "# license: mit"}, None),
        ({"README.md": CARD.format("mit")}, ("mit", "README.md")),
        ({"README.md": CARD.format("other\nlicense_name: strange"), "LICENSE": "x"}, ("strange", "README.md")),
        ({"README.md": CARD.format("[mit, apache-2.0]")}, ("mit, apache-2.0", "README.md")),
        ({"README.md": "---\nlicense: [\n---\n", "LICENSE": "\n  MIT License\n\nText"}, ("MIT License", "LICENSE")),
        ({"LICENSE.md": "# Apache License\n"}, ("Apache License", "LICENSE.md")),
        ({"README.md": CARD.format('"mit\\n# A heading"')}, ("mit # A heading", "README.md")),
    ],
    ids=str,
)
def test_the_licence_is_what_the_files_of_the_source_say(llama, files, expected):
    folder = llama()
    for name, content in files.items():
        (folder / name).write_text(content)
    found = LlamaSource.open(folder).licence
    assert (found and (found.name, found.place)) == expected


def test_the_licence_of_a_gguf_file_is_its_own_key_or_stands_beside_it(gguf, tmp_path):
    (tmp_path / "README.md").write_text(CARD.format("mit"))
    assert LlamaSource.open(gguf()).licence.name == "apache-2.0"
    assert LlamaSource.open(gguf(licence=None)).licence.name == "mit"
    assert LlamaSource.open(gguf(licence=None)).name == "Tiny llama"


def test_the_tokenizer_of_a_folder_is_its_file(llama):
    folder = llama()
    with pytest.raises(ConversionError, match="cannot read the tokenizer"):
        LlamaSource.open(folder).tokenizer_json()
    (folder / "tokenizer.json").write_text('{"model": {}}')
    assert LlamaSource.open(folder).tokenizer_json() == '{"model": {}}'
