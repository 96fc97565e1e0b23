"""A model whose commits are its source's tokens: its trunk sees what the source sees, and its head says the same."""

import json

import pytest
import torch

import patchpad
from patchpad.config import load_config
from patchpad.conversion.convert import convert
from patchpad.errors import ConversionError
from patchpad.patching.vocabulary_trie import ROOT
from patchpad.testing.tokens import tiny_source_tokens, tiny_tokenizer_json
from patchpad.training import trainer
from patchpad.training.checkpoint import open_checkpoint

pytest.importorskip("tokenizers", reason='needs the extra `bpe`: pip install "patchpad[bpe]"')
TOKENIZER = tiny_tokenizer_json().replace("<|begin|>", "<|endoftext|>").replace("<|end|>", "<|im_end|>")
NUM_TOKENS = len(tiny_source_tokens().bytes_of)
TEXT = "The cat doesn't sit on the mat; it's in the hat, 12345 cats.\n\nThey'll say: naïve café."
CONFIG = """
model:
  byte_dim: 16
  byte_heads: 2
  window_bytes: 8
  ngram_vocab_size: 20
  patchifier: {kind: tokens}
"""


@pytest.fixture
def converted(llama, tmp_path):
    """Returns a converted model, and the folder of its source."""

    def make(config: str = CONFIG, *, tokenizer: str | None = TOKENIZER, num_embeddings: int = NUM_TOKENS, **fields):
        folder = llama(vocab_size=num_embeddings, **fields)
        if tokenizer is not None:
            (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        (tmp_path / "model.yaml").write_text(config)
        convert(folder, tmp_path / "model.yaml", tmp_path / "run")
        return patchpad.load(tmp_path / "run"), folder

    return make


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([[256, *text.encode()]])


@pytest.mark.parametrize("tied", [True, False])
def test_commits_and_the_head_are_those_of_the_source_over_its_own_tokens(converted, tied):
    transformers = pytest.importorskip("transformers", reason='needs the extra `hub`: pip install "patchpad[hub]"')
    model, folder = converted(tie_word_embeddings=tied, num_embeddings=NUM_TOKENS + 3)
    source = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model(ids_of(TEXT), keep_activations=True)
        tokens = output.facts.tokens.commit_tokens.tolist()
        states = source.model(torch.tensor([tokens])).last_hidden_state[0]
        logits = source(torch.tensor([tokens])).logits[0]
    commits = output.activations.slot_outputs[: output.layout.room.commits]
    assert tokens[0] == 0
    assert len(tokens) > 20
    assert float((commits - states).abs().max()) < 1e-4
    with torch.no_grad():
        masses = model.source_head.cumulative(commits, model.source_head_weight)
        root = torch.full((len(commits),), ROOT)
        begins = model.source_head.going_on(masses, root)
    known = [token for token, data in enumerate(model.source_tokens.bytes_of) if data or token in (0, 1)]
    probabilities = logits[:, known].softmax(dim=-1)
    t = [place for place, token in enumerate(known) if (model.source_tokens.bytes_of[token] or b"").startswith(b"t")]
    torch.testing.assert_close(begins[:, ord("t")].float(), probabilities[:, t].sum(dim=1), rtol=1e-3, atol=1e-5)


def test_a_scratchpad_over_one_token_sees_what_its_commit_will_see(converted):
    model, _ = converted()
    with torch.no_grad():
        output = model(ids_of(TEXT), -torch.inf, keep_activations=True)
    layout, tokens, outputs = output.layout, output.facts.tokens, output.activations.slot_outputs
    num_compared = 0
    for at in range(1, layout.commits_at.shape[1]):
        if layout.commits_at[0, at] == 1 and tokens.draft[0, at - 1] >= 0:
            commit, scratchpad = int(layout.newest_commit[0, at]) - 1, int(layout.newest_slot[0, at - 1]) - 1
            assert scratchpad >= layout.room.commits
            torch.testing.assert_close(outputs[scratchpad], outputs[commit], rtol=1e-4, atol=1e-4)
            num_compared += 1
    assert num_compared > 10


def test_it_writes_and_is_saved_with_its_tokens(converted, tmp_path):
    model, _ = converted()
    assert model.config.source_head == "tied"
    assert model.config.patchifier.max_patch_size == 64
    again = patchpad.load(tmp_path / "run")
    text = patchpad.generate(again, b"The cat", max_new_bytes=12, temperature=0)
    assert text == patchpad.generate(model, b"The cat", max_new_bytes=12, temperature=0)
    assert len(text) == 12


def test_with_the_trunk_and_the_tokens_frozen_the_other_parts_learn(converted, tmp_path):
    converted()
    (tmp_path / "text.txt").write_text(TEXT * 40, encoding="utf-8")
    (tmp_path / "train.yaml").write_text("model: {context_bytes: 128}\ntrain: {steps: 3, batch_rows: 2}\n")
    config = load_config(
        tmp_path / "train.yaml",
        {"train.frozen": "[trunk, patch_pooling]", "train.init_from": str(tmp_path / "run")},
        model_of=lambda name: open_checkpoint(name).config.model,
    )
    trainer.train(config, data=tmp_path / "text.txt", out=tmp_path / "next")
    before, after = (patchpad.load(tmp_path / name).state_dict() for name in ("run", "next"))
    for name in before:
        if "weight" in name:
            assert torch.equal(before[name], after[name]) == name.startswith(("trunk.", "patch_pooling.")), name


def test_inputs_of_slots_have_the_scale_of_the_sources_embeddings(converted):
    small, _ = converted(
        CONFIG.replace("tokens", "spacebyte"), tensors=lambda found: found["model.embed_tokens.weight"].mul_(0.01)
    )
    inputs = []
    small.trunk.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        small(ids_of(TEXT))
    embeddings = 0.01 * 1.5 * 48**-0.5
    assert 0.2 * embeddings < float(inputs[0].square().mean().sqrt()) < 5 * embeddings


@pytest.mark.parametrize(
    ("tokenizer", "num_embeddings", "says"),
    [
        (TOKENIZER.replace("<|endoftext|>", "<|other|>"), NUM_TOKENS, "has no token that begins a text"),
        (TOKENIZER, NUM_TOKENS - 1, "embeddings; allowed: an embedding for each token"),
        (TOKENIZER.replace('"ByteLevel"', '"Metaspace"'), NUM_TOKENS, "allowed"),
        (None, NUM_TOKENS, "cannot read the tokenizer"),
        ("{", NUM_TOKENS, "tokenizer"),
    ],
)
def test_a_source_without_fitting_tokens_is_refused_and_nothing_is_written(
    converted, tmp_path, tokenizer, num_embeddings, says
):
    with pytest.raises(ConversionError, match=says) as raised:
        converted(tokenizer=tokenizer, num_embeddings=num_embeddings)
    assert raised.value.hint
    assert not (tmp_path / "run").exists()


def test_a_configuration_may_leave_the_head_out(converted):
    model, _ = converted(CONFIG + "  source_head: none\n")
    assert model.source_head is None
    assert json.loads(model.source_tokens.to_json())["max_bytes"] == 64


def test_with_the_trunk_and_the_tokens_frozen_no_gradient_passes_through_the_trunk(converted):
    model, _ = converted()
    for part in (model.trunk, model.patch_pooling):
        part.requires_grad_(False)
    outputs = []
    model.trunk.register_forward_hook(lambda module, args, output: outputs.append(output))
    logits = model.train()(ids_of(TEXT), -torch.inf).logits
    assert logits.requires_grad
    assert not outputs[0].requires_grad
