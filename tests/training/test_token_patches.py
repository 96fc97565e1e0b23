"""Training of models whose patches are the tokens of a source: they start from a run that has these."""

from dataclasses import replace

import pytest
import torch

import patchpad
from patchpad.config import VOCAB_SIZE, PatchifierConfig, load_config
from patchpad.errors import CheckpointError, ConfigError, InputError, TrainingInterrupted
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.evaluation.calibrate import calibrate
from patchpad.model.byte_lm import SOURCE_TOKENS, ByteLM
from patchpad.testing import sharp_model, tiny_model_config, tiny_source_tokens
from patchpad.training import release, trainer
from patchpad.training.checkpoint import list_steps, load
from patchpad.training.init_from import Source

LONGEST = 32


@pytest.fixture(scope="module")
def config(tools):
    patches = PatchifierConfig(kind="tokens", target_patch_size=8, num_token_ids=tiny_source_tokens(LONGEST).num_ids)
    return replace(tools.config(), model=replace(tools.config().model, patchifier=patches))


@pytest.fixture(scope="module")
def source(tmp_path_factory, config):
    """A model with the tokens of a source, as a run keeps them."""
    model = ByteLM(config.model, seed=4)
    model.use_source_tokens(tiny_source_tokens(LONGEST))
    folder = tmp_path_factory.mktemp("source") / "tokens"
    release.save(model, config, folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config, source, text, tools):
    config = replace(config, train=replace(config.train, steps=40, frozen=("trunk",), checkpoint_every=20))
    out = tmp_path_factory.mktemp("trained") / "run"
    return trainer.train(config, data=text, out=out, init_from=source, progress=tools.Hook())


def test_a_run_takes_over_the_tokens_and_the_trunk_and_follows_its_rate_of_scratchpads(source, trained, tools):
    before, found = load(source), load(trained.path)
    assert found.source_tokens.to_json() == tiny_source_tokens(LONGEST).to_json()
    assert all(map(torch.equal, before.trunk.parameters(), found.trunk.parameters()))
    assert not torch.equal(before.patch_pooling.embedding.weight, found.patch_pooling.embedding.weight)
    rates = [line["scratchpads_per_byte"] for line in tools.losses(trained.path)]
    assert sum(rates[-20:]) / 20 == pytest.approx(3 / 16, abs=0.05)
    assert rates[0] == pytest.approx(3 / 16, abs=0.12)  # fresh: at random


def test_a_run_of_tokens_resumes_exactly(tmp_path, config, trained, text, source, tools):
    run = tmp_path / "run"
    config = replace(config, train=replace(config.train, steps=40, frozen=("trunk",), checkpoint_every=20))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, TrainingInterrupted)):
        trainer.train(config, data=text, out=run, init_from=source, progress=tools.Hook(30, stop))
    assert len(list_steps(run)) >= 1
    trainer.resume(run, progress=tools.Hook())
    assert tools.losses(run)[-10:] == tools.losses(trained.path)[-10:]


def test_compute_lies_between_tokens_and_one_more_call_where_one_token_is_open(trained, text):
    model = load(trained.path)
    model.calibration = table = calibrate(model, text)
    tokens_per_byte = table.rows[-1]["patches_per_byte"]
    assert table.least_compute == tokens_per_byte == table.rows[0]["patches_per_byte"]
    assert 1.2 < table.most_compute == table.rows[-1]["trunk_calls_per_byte"] < 1 + tokens_per_byte
    middle = tokens_per_byte + 0.5
    (point,) = evaluate(model, text, scratchpad_threshold_nats=table.threshold_for(middle))
    assert point.trunk_calls_per_byte == pytest.approx(middle, abs=0.08)
    assert point.flops_per_byte > 0
    assert type(table).from_dict(table.to_dict(), source="") == table
    (done,) = patchpad.complete(model, ["the cat"], max_new_bytes=12, compute=table.most_compute)
    assert 0 < done.trunk_calls - done.trunk_cache_entries <= len("the cat") + 11  # nothing reads the last byte


def test_tokens_come_from_a_run_that_has_them(tmp_path, config, source, finished, text):
    with pytest.raises(ConfigError, match=r"model.patchifier.num_token_ids is \d+, and None in .*; allowed: the same"):
        trainer.train(config, data=text, out=tmp_path / "run", init_from=finished)
    with pytest.raises(InputError, match="this model with `tokens` patches has no tokens of a source"):
        trainer.train(config, data=text, out=tmp_path / "run")
    longer = replace(config.model.patchifier, max_patch_size=48)
    with pytest.raises(ConfigError, match=r"model.patchifier.longest_patch is 48, and 32 in"):
        Source.open(source).require_fits(replace(config.model, patchifier=longer))


def test_a_head_does_not_change_its_weights_unsaid(tmp_path, config):
    models = {kind: replace(config.model, source_head=kind) for kind in ("tied", "own", "none")}
    for kind, model in models.items():
        made = ByteLM(model, seed=4)
        made.use_source_tokens(tiny_source_tokens(LONGEST))
        release.save(made, replace(config, model=model), tmp_path / kind)
    for kind, other in (("tied", "own"), ("own", "tied")):
        with pytest.raises(ConfigError, match=rf"model.source_head is {kind}, and {other} in .*; allowed: the same"):
            Source.open(tmp_path / other).require_fits(models[kind])
        Source.open(tmp_path / other).require_fits(models["none"])
        Source.open(tmp_path / "none").require_fits(models[kind])


@pytest.mark.parametrize(("before", "after"), [("none", "tied"), ("tied", "none"), ("own", "none"), ("own", "own")])
def test_a_head_may_be_left_out_or_added_and_its_gate_is_a_row_of_its_own(tmp_path, config, before, after):
    old, new = (ByteLM(replace(config.model, source_head=kind), seed=seed) for kind, seed in ((before, 4), (after, 5)))
    old.use_source_tokens(tiny_source_tokens(LONGEST))
    release.save(old, replace(config, model=old.config), tmp_path / "run")
    drawn = new.local_decoder.lm_head.weight.detach().clone()
    Source.open(tmp_path / "run").start(new)
    theirs, mine = old.local_decoder.lm_head.weight, new.local_decoder.lm_head.weight
    assert torch.equal(mine[:VOCAB_SIZE], theirs[:VOCAB_SIZE])
    assert torch.equal(mine[VOCAB_SIZE:], (theirs if before == after else drawn)[VOCAB_SIZE:])
    assert len(mine) == VOCAB_SIZE + (after != "none")


def test_patches_of_another_kind_take_over_no_tokens(tmp_path, config, source):
    file = tmp_path / "more.yaml"
    file.write_text(f"train: {{init_from: {source}}}")
    overrides = {"model.patchifier.kind": "spacebyte"}
    found = load_config(file, {}, model_of=lambda name: Source.open(name).model_config)
    assert found.model == config.model
    found = load_config(file, overrides, model_of=lambda name: Source.open(name).model_config)
    assert (found.model.patchifier.kind, found.model.patchifier.num_token_ids) == ("spacebyte", None)


def test_a_run_without_its_tokens_is_refused(tmp_path, config, source):
    model = load(source)
    for ids in (300, model.config.patchifier.num_token_ids + 1):
        other = replace(model.config, patchifier=replace(model.config.patchifier, num_token_ids=ids))
        with pytest.raises(InputError, match=rf"the source's tokens have \d+ ids; allowed: {ids}, as the"):
            ByteLM(other).use_source_tokens(tiny_source_tokens(LONGEST))
    with pytest.raises(InputError, match="have 24 bytes in their longest open text; allowed: 32"):
        ByteLM(model.config).use_source_tokens(tiny_source_tokens(24))
    with pytest.raises(InputError, match="has no tokens of a source"):
        ByteLM(model.config)(torch.tensor([[256, 97]]))
    with pytest.raises(CheckpointError, match=SOURCE_TOKENS):
        ByteLM(model.config).read_extra_files(tmp_path)
    with pytest.raises(ConfigError, match="num_token_ids is None with the kind `tokens`"):
        PatchifierConfig(kind="tokens")


@pytest.mark.unchecked
def test_any_compute_can_be_asked_for_where_most_bytes_cannot_have_ended_a_token(text):
    model = sharp_model(tiny_model_config("tokens", "ending_entropy", max_patch_size=LONGEST, source_head="tied"))
    table = calibrate(model, text, limit_bytes=4000)
    for share in (0.2, 0.5, 0.8):
        asked = table.least_compute + share * (table.most_compute - table.least_compute)
        threshold = table.threshold_for(asked)
        (point,) = evaluate(model, text, scratchpad_threshold_nats=threshold, limit_bytes=4000)
        assert point.trunk_calls_per_byte == pytest.approx(asked, abs=0.1)  # between rows of the table
