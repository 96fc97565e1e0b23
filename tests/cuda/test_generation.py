"""Generation on the pretended device: every phase is captured as a graph, and gives the same bytes as without."""

import pytest
from cuda_models import CASES, never_ending, small_config

from patchpad.errors import GenerationError
from patchpad.inference.draft_rule import FixedDrafts, MeasuredDrafts
from patchpad.inference.generator import Generation
from patchpad.testing import BASELINE_KINDS, sharp_baseline

pytestmark = pytest.mark.unmeasured

PROMPTS = [b"abc", b"It is a truth universally", b""]


def generated(model, **options) -> list[bytes]:
    generation = Generation(model, PROMPTS, max_new_bytes=12, **options)
    for _ in generation:
        pass
    return [completion.data for completion in generation.completions()]


@pytest.mark.parametrize(("patchifier", "trigger"), CASES[:4])
def test_all_phases_are_captured_and_generate_the_same_bytes(record, patchifier, trigger):
    model = never_ending(small_config(patchifier, trigger)).to("cuda")
    plain = generated(model, temperature=0.0)
    assert record.graphs_captured == 0
    assert generated(model, temperature=0.0, compile=True) == plain
    assert record.graphs_captured >= 3
    assert min(map(len, plain)) == 12
    assert not record.oddities


def test_sampled_bytes_are_the_same_with_graphs_and_without():
    model = never_ending(small_config()).to("cuda")
    options = {"temperature": 0.9, "seed": 3}
    assert generated(model, compile=True, **options) == generated(model, **options)


@pytest.mark.parametrize(("patchifier", "trigger"), CASES[:4])
def test_drafts_give_the_same_bytes(patchifier, trigger):
    model = never_ending(small_config(patchifier, trigger)).to("cuda")
    # Greedily: random weights make all bytes about as likely, so a draw often lies within the rounding of bf16.
    assert generated(model, temperature=0.0, draft=5) == generated(model, temperature=0.0, draft="off")


def test_graphs_have_no_drafts(monkeypatch):
    monkeypatch.setattr("patchpad.inference.draft_rule.LEAST_TRUNK_PARAMETERS", 100)
    model = never_ending(small_config()).to("cuda")
    with pytest.raises(GenerationError, match="draft is 5 with compiled steps on CUDA; allowed: auto or off"):
        Generation(model, PROMPTS, compile=True, draft=5)
    assert isinstance(Generation(model, PROMPTS, compile=True).engine.drafts, FixedDrafts)
    assert isinstance(Generation(model, PROMPTS).engine.drafts, MeasuredDrafts)


def test_what_was_captured_for_a_model_is_kept(record):
    model = never_ending(small_config()).to("cuda")
    first = generated(model, temperature=0.0, compile=True)
    captured = record.graphs_captured
    assert generated(model, temperature=0.0, compile=True) == first
    assert record.graphs_captured == captured


def test_two_generations_at_once_do_not_disturb_each_other():
    model = never_ending(small_config()).to("cuda")
    options = {"max_new_bytes": 12, "temperature": 0.0}
    together = [Generation(model, [prompt] * 2, compile=True, **options) for prompt in (b"abc", b"xyz")]
    while not all(generation.engine.is_done for generation in together):
        for generation in together:
            if not generation.engine.is_done:
                generation.engine.advance()
    for prompt, generation in zip((b"abc", b"xyz"), together, strict=True):
        alone = Generation(model, [prompt] * 2, **options)
        for _ in alone:
            pass
        assert [row.data for row in generation.rows] == [row.data for row in alone.rows]


@pytest.mark.parametrize("kind", BASELINE_KINDS)
def test_baselines_generate_on_the_device(record, kind):
    model = sharp_baseline(kind).to("cuda")
    assert any(generated(model, temperature=0.0))
    assert not record.oddities
