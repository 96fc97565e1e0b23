"""Tiny random models of the llama architecture, as the folders and files that others save."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 3e-4,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
LAYER = {
    "input_layernorm": ("hidden_size",),
    "post_attention_layernorm": ("hidden_size",),
    "self_attn.q_proj": ("hidden_size", "hidden_size"),
    "self_attn.k_proj": ("kv", "hidden_size"),
    "self_attn.v_proj": ("kv", "hidden_size"),
    "self_attn.o_proj": ("hidden_size", "hidden_size"),
    "mlp.gate_proj": ("intermediate_size", "hidden_size"),
    "mlp.up_proj": ("intermediate_size", "hidden_size"),
    "mlp.down_proj": ("hidden_size", "intermediate_size"),
}


def random_tensors(config: dict[str, Any]) -> dict[str, Tensor]:
    """Weights of a llama, by Hugging Face's names; gains of norms lie around 1."""
    sizes = {**config, "kv": config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]}
    names = {"model.embed_tokens.weight": ("vocab_size", "hidden_size"), "model.norm.weight": ("hidden_size",)}
    if not config["tie_word_embeddings"]:
        names["lm_head.weight"] = names["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in LAYER.items()}
    generator = torch.Generator().manual_seed(11)

    def drawn(shape: list[int]) -> Tensor:
        numbers = torch.randn(shape, generator=generator)
        return 1 + numbers / 4 if len(shape) == 1 else numbers * 1.5 * shape[-1] ** -0.5

    return {name: drawn([sizes[axis] for axis in shape]) for name, shape in names.items()}


@pytest.fixture
def llama(tmp_path) -> Callable[..., Path]:
    """Writes a folder of Hugging Face and returns it.

    The names given are fields of `config.json`, None for one that is left out; `tensors` changes the weights.
    """

    def write(
        name: str = "llama",
        *,
        shards: int = 1,
        tensors: Callable[[dict[str, Tensor]], Any] = lambda found: None,
        **fields,
    ) -> Path:
        config = {key: value for key, value in {**CONFIG, **fields}.items() if value is not None}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        known = {
            key: fields[key] for key in ("tie_word_embeddings", "vocab_size") if type(fields.get(key)) in (bool, int)
        }
        weights = random_tensors(CONFIG | known)
        tensors(weights)
        if shards == 1:
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            return folder
        homes = {one: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, one in enumerate(weights)}
        for file in set(homes.values()):
            save_file({one: weights[one] for one in weights if homes[one] == file}, folder / file, {"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))
        return folder

    return write


OWN_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def gguf(tmp_path) -> Callable[..., Path]:
    """Writes a .gguf file in fp32 as llama.cpp's converter does, and returns it.

    Args of the function: `keys` are further keys, by their whole names; `name` and `licence` are general.* of it.
    """
    library = pytest.importorskip("gguf", reason='needs the extra `convert`: pip install "patchpad[convert]"')

    def write(
        keys: dict[str, Any] | None = None,
        *,
        tensors: Callable[[dict[str, Tensor]], Any] = lambda found: None,
        licence: str | None = "apache-2.0",
        half: tuple[str, ...] = (),
        **fields,
    ) -> Path:
        config = {**CONFIG, **fields}
        path = tmp_path / "model.gguf"
        writer = library.GGUFWriter(path, "llama")
        writer.add_name("Tiny llama")
        if licence is not None:
            writer.add_license(licence)
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(64)
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_vocab_size(config["vocab_size"])
        for key, value in (keys or {}).items():
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
            add[type(value)](key, value)
        weights = random_tensors(config)
        tensors(weights)
        for name, tensor in weights.items():
            writer.add_tensor(own_name(name), as_kept(name, tensor, config, half))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def own_name(name: str) -> str:
    if not name.startswith("model.layers."):
        known = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        stem, _, ending = name.rpartition(".")
        return f"{known.get(stem, stem)}.{ending}"
    _, _, layer, middle = name.split(".", 3)
    stem, _, ending = middle.rpartition(".")
    return f"blk.{layer}.{OWN_NAMES[stem]}.{ending}"


def as_kept(name: str, tensor: Tensor, config: dict[str, Any], half: tuple[str, ...]):
    """Rows of queries and keys lie as in the file: the features of a head that turn together side by side."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    part = name.split(".")[-2]
    if part in heads:
        order = [
            head * 8 + pair + turned * 4 for head in range(heads[part]) for pair in range(4) for turned in range(2)
        ]  # heads of 8 features
        tensor = tensor[order]
    values = tensor.numpy()
    return values.astype("float16") if part in half else values
