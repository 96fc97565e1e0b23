"""A model whose commits are its source's tokens: its trunk sees what the source sees, and its head says the same."""

import json

import pytest
import torch

import patchpad
from patchpad.cli.app import main
from patchpad.config import load_config
from patchpad.conversion.convert import convert
from patchpad.errors import ConfigError, ConversionError
from patchpad.patching.vocabulary_trie import ROOT
from patchpad.testing.tokens import tiny_source_tokens, tiny_tokenizer_json
from patchpad.training import trainer
from patchpad.training.checkpoint import open_checkpoint

pytest.importorskip("tokenizers", reason='needs the extra `bpe`: pip install "patchpad[bpe]"')
TOKENIZER = tiny_tokenizer_json(names=("<|endoftext|>", "<|im_end|>"))
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
        begins = model.source_head.going_on(masses, torch.arange(len(root)), root)
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
        if layout.commits_at[0, at] == 1 and tokens.open_token[0, at - 1] >= 0:
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
    text = patchpad.generate(again, b"The cat", max_new_bytes=8, temperature=0)
    assert text == patchpad.generate(model, b"The cat", max_new_bytes=8, temperature=0)
    assert 1 <= len(text) <= 8  # it may end its text


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


@pytest.mark.parametrize(
    ("tied", "more", "says"),
    [
        (True, "", "The same embeddings are its LM head, which was taken too."),
        (False, "", "Its LM head was taken too, as the part `source_head`"),
        (True, "  source_head: none\n", "The LM head was not taken."),
    ],
)
def test_the_card_counts_tokens_among_what_was_taken(converted, tmp_path, tied, more, says):
    model, _ = converted(CONFIG + more, tie_word_embeddings=tied)
    card = " ".join((tmp_path / "run" / "CARD.md").read_text().split())
    assert "Its tokenizer and its token embeddings were taken too" in card
    assert says in card
    assert "were not taken" not in card
    taken = ("trunk.", "patch_pooling.embedding.", "source_head.")
    drawn = sum(weights.numel() for name, weights in model.named_parameters() if not name.startswith(taken))
    assert f"{drawn:,} parameters in all" in card
    assert "| `patch_pooling` |" not in card
    assert "| `source_head` |" not in card


@pytest.mark.parametrize(
    ("tied", "parts"), [(True, "[trunk, patch_pooling]"), (False, "[trunk, patch_pooling, source_head]")]
)
def test_the_command_counts_tokens_as_taken_and_says_to_freeze_them(llama, tmp_path, capsysbinary, tied, parts):
    folder, run = llama(vocab_size=NUM_TOKENS, tie_word_embeddings=tied), tmp_path / "run"
    (folder / "tokenizer.json").write_text(TOKENIZER, encoding="utf-8")
    (tmp_path / "model.yaml").write_text(CONFIG)
    assert main(["convert", "--from", str(folder), "--config", str(tmp_path / "model.yaml"), "--out", str(run)]) == 0
    out = capsysbinary.readouterr().out.decode()
    taken = ("trunk.", "patch_pooling.embedding.", "source_head.")
    weights = dict(patchpad.load(run).named_parameters())
    num_taken = sum(weights[name].numel() for name in weights if name.startswith(taken))
    assert f"{num_taken:,} parameters of llama, {sum(w.numel() for w in weights.values()) - num_taken:,} drawn" in out
    assert f"Next: patchpad train --init-from {run} --train.frozen '{parts}' --data PATH --out RUN" in out


def test_embeddings_are_not_taken_for_the_head_of_a_source_that_has_another(converted, tmp_path):
    with pytest.raises(ConfigError, match=r"model.source_head is tied, and the LM head of .* has weights of its own"):
        converted(CONFIG + "  source_head: tied\n", tie_word_embeddings=False)
    assert not (tmp_path / "run").exists()


def test_an_open_text_shorter_than_a_character_is_refused_by_the_name_of_its_key(converted):
    with pytest.raises(ConfigError, match=r"model.patchifier.*max_patch_size is 3 .*allowed: 4 or more"):
        converted(CONFIG.replace("kind: tokens", "kind: tokens, target_patch_size: 3, max_patch_size: 3"))
