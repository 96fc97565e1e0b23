"""`generate` of transformers with our models: greedy, sampled, beams, padded batches, stop strings, streams."""

import io
import math
from contextlib import redirect_stdout

import pytest
import torch

import patchpad
from patchpad.errors import GenerationError, InputError
from patchpad.testing import random_documents

pytestmark = pytest.mark.unchecked  # checking shapes takes longer than computing; other tests of hub/ do
KINDS = ["fixed-entropy", "hnet-entropy", "spacebyte-entropy", "entropy-entropy", "fixed-random", "byte", "megabyte"]
PROMPTS = [document.decode("utf-8", "surrogateescape") for document in random_documents(3, [23, 0, 7])]
NUM_NEW = 16


def asked(hub, prompts=PROMPTS):
    return dict(hub.tokenizer(prompts, return_tensors="pt", padding=True))


def new_bytes(hub, ids, inputs) -> list[bytes]:
    return [hub.tokenizer.decode_bytes(row) for row in ids[:, inputs["input_ids"].shape[1] :].tolist()]


def own_bytes(model, prompts=PROMPTS, **options) -> list[bytes]:
    data = [prompt.encode("utf-8", "surrogateescape") for prompt in prompts]
    options = {"max_new_bytes": NUM_NEW, "temperature": 0, **options}
    return [completion.data for completion in patchpad.complete(model, data, **options)]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_is_ours_for_left_padded_prompts_and_needs_no_cache(outer, hub, kind):
    model, inputs = outer(kind), asked(hub)
    expected = own_bytes(model.model)
    assert new_bytes(hub, model.generate(**inputs, max_new_tokens=NUM_NEW), inputs) == expected
    assert new_bytes(hub, model.generate(**inputs, max_new_tokens=NUM_NEW, use_cache=False), inputs) == expected
    del inputs["attention_mask"]
    assert new_bytes(hub, model.generate(**inputs, max_new_tokens=NUM_NEW), inputs) == expected


@pytest.mark.parametrize("kind", ["fixed-entropy", "hnet-entropy", "megabyte"])
def test_beams_find_the_same_with_and_without_a_cache(outer, hub, kind):
    model, inputs = outer(kind), asked(hub)
    options = {"max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 2}
    found = model.generate(**inputs, **options)
    assert found.shape[0] == 2 * len(PROMPTS)
    assert torch.equal(found, model.generate(**inputs, **options, use_cache=False))
    assert not torch.equal(found[::2, : found.shape[1]], model.generate(**inputs, max_new_tokens=8))


def test_samples_are_the_same_with_and_without_a_cache(outer, hub):
    model, inputs = outer("entropy-entropy"), asked(hub)
    options = {"max_new_tokens": 12, "do_sample": True, "temperature": 2.0, "top_k": 40, "top_p": 0.95}
    found = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        found.append(model.generate(**inputs, **options, num_return_sequences=2, use_cache=use_cache))
    assert torch.equal(*found)
    assert len(set(new_bytes(hub, found[0], inputs))) == 6
    assert bool((found[0][:, inputs["input_ids"].shape[1] :] != 257).all())


def test_rows_that_end_are_filled_with_padding_and_disturb_no_other(outer, hub):
    model, inputs = outer("fixed-entropy"), asked(hub)
    free = own_bytes(model.model)
    ending = free[0][3]  # this byte ends a row, in place of the separator
    found = model.generate(**inputs, max_new_tokens=NUM_NEW, eos_token_id=ending)
    lengths = [row.index(ending) + 1 if ending in row else NUM_NEW for row in free]
    assert len(set(lengths)) > 1
    assert new_bytes(hub, found, inputs) == [row[:length] for row, length in zip(free, lengths, strict=True)]


def test_thresholds_reach_every_step_and_beam(outer, hub):
    model, inputs = outer("fixed-entropy"), asked(hub)
    every, plain = (own_bytes(model.model, scratchpad_threshold_nats=dial) for dial in (-math.inf, math.inf))
    assert every != plain

    def found(**options):
        if "generation_config" not in options:
            options["max_new_tokens"] = NUM_NEW
        return new_bytes(hub, model.generate(**inputs, **options), inputs)

    assert found(scratchpad_threshold_nats=-math.inf) == every
    assert found(scratchpad_threshold_nats=[-math.inf, math.inf, -math.inf]) == [every[0], plain[1], every[2]]
    config = hub.transformers.GenerationConfig(
        max_new_tokens=NUM_NEW, scratchpad_threshold_nats="-inf", eos_token_id=256, pad_token_id=257
    )
    assert found(generation_config=config) == every
    assert found(generation_config=config, scratchpad_threshold_nats=math.inf) == plain
    mixed = {"scratchpad_threshold_nats": torch.tensor([-math.inf, math.inf, 0.5]), "num_beams": 2}
    with_cache, without = (
        model.generate(**inputs, max_new_tokens=6, **mixed, use_cache=use_cache) for use_cache in (True, False)
    )
    assert torch.equal(with_cache, without)
    with pytest.raises(GenerationError, match="no calibration"):
        found(compute=0.5)


def test_dials_of_the_models_own_generation_configuration_are_kept_and_saved(outer, hub, tmp_path):
    model, inputs = hub.of(outer("fixed-entropy").model), asked(hub)
    model.generation_config.scratchpad_threshold_nats = "-inf"
    model.save_pretrained(tmp_path)
    again = hub.Model.from_pretrained(tmp_path)
    expected = own_bytes(model.model, scratchpad_threshold_nats=-math.inf)
    assert new_bytes(hub, again.generate(**inputs, max_new_tokens=NUM_NEW), inputs) == expected


def test_a_generation_goes_on_from_a_cache_that_it_left(outer, hub):
    model, inputs = outer("hnet-entropy"), asked(hub, PROMPTS[:1])
    whole = model.generate(**inputs, max_new_tokens=20)
    first = model.generate(**inputs, max_new_tokens=9, return_dict_in_generate=True)
    rest = model.generate(first.sequences, max_new_tokens=11, cache=first.cache)
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("stop", ["é", "日本", ["zz", "é"]])
def test_stop_strings_are_found_by_their_bytes(outer, hub, stop):
    model, inputs = outer("fixed-entropy"), asked(hub, ["abc"])
    written = "xé日本語zz".encode()
    begin = inputs["input_ids"].shape[1]

    def forced(batch, ids):
        return [written[(len(ids) - begin) % len(written)]]

    found = model.generate(**inputs, max_new_tokens=40, stop_strings=stop, prefix_allowed_tokens_fn=forced)
    wanted = [text.encode() for text in ([stop] if isinstance(stop, str) else stop)]
    first = min(written.index(text) + len(text) for text in wanted)
    assert new_bytes(hub, found, inputs) == [written[:first]]
    once_more = model.generate(
        **inputs, max_new_tokens=40, stop_strings=stop, tokenizer=hub.tokenizer, prefix_allowed_tokens_fn=forced
    )
    assert torch.equal(found, once_more)


def test_without_a_prompt_a_document_is_begun(outer, hub):
    model = outer("fixed-entropy")
    found = model.generate(max_new_tokens=9)
    assert found[0, 0] == 256
    assert [hub.tokenizer.decode_bytes(found[0].tolist())] == own_bytes(model.model, [""], max_new_bytes=9)


def test_scores_with_repetition_penalty_and_padding_stay_numbers(outer, hub):
    model, inputs = outer("fixed-entropy"), asked(hub)
    found = model.generate(
        **inputs,
        max_new_tokens=5,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        min_new_tokens=2,
        output_scores=True,
        return_dict_in_generate=True,
    )
    assert not bool(torch.stack(found.scores).isnan().any())


def test_drafts_of_another_model_are_refused(outer, hub):
    model, inputs = outer("fixed-entropy"), asked(hub, PROMPTS[:1])
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(**inputs, max_new_tokens=4, assistant_model=model)


def test_guidance_is_refused_wherever_it_is_asked_for(outer, hub):
    model, inputs = hub.of(outer("fixed-entropy").model), asked(hub, PROMPTS[:1])
    config = hub.transformers.GenerationConfig(max_new_tokens=2, guidance_scale=1.5, eos_token_id=256, pad_token_id=257)
    for options in ({"guidance_scale": 1.5}, {"generation_config": config}):
        with pytest.raises(GenerationError, match=r"guidance_scale is 1\.5"):
            model.generate(**inputs, **options)
    assert model.generate(**inputs, max_new_tokens=2, guidance_scale=1).shape[1] == inputs["input_ids"].shape[1] + 2
    model.generation_config.guidance_scale = 1.5
    with pytest.raises(GenerationError, match=r"guidance_scale is 1\.5"):
        model.generate(**inputs, max_new_tokens=2)


def test_stop_strings_and_thresholds_that_are_none_are_said(outer, hub):
    model, inputs = outer("fixed-entropy"), asked(hub, PROMPTS[:1])
    with pytest.raises(InputError, match="stop_strings holds 5"):
        model.generate(**inputs, max_new_tokens=2, stop_strings=["a", 5])
    with pytest.raises(InputError, match="scratchpad_threshold_nats is 'high'"):
        model.generate(**inputs, max_new_tokens=2, scratchpad_threshold_nats="high")


def test_continuous_batching_is_refused(outer, hub, said):
    model, inputs = outer("fixed-entropy"), asked(hub, PROMPTS[:1])
    with pytest.raises(GenerationError, match="continuous batching"):
        model.generate(**inputs, max_new_tokens=4, cache_implementation="paged")
    with pytest.raises(GenerationError, match="continuous batching"):
        model.generate_batch(inputs["input_ids"].tolist())
    assert all("paged" in text for text in said)
    said.clear()


class Writer:
    """A model's place: it writes a text byte by byte into a streamer of transformers."""

    def __init__(self, text: str) -> None:
        self.data = text.encode("utf-8", "surrogateescape")

    def into(self, streamer) -> None:
        for value in self.data:
            streamer.put(torch.tensor([value]))
        streamer.put(torch.tensor([256]))
        streamer.end()


@pytest.mark.parametrize("text", ["größer é als\n日本語 und 🙂🙂 ß", "ไทย ภาษา\nЖЯ", "a\udcff\udce6b 日\udce6 c"])
def test_a_text_streamer_never_splits_a_character(hub, text):
    out = io.StringIO()
    pieces = []

    class Kept(hub.transformers.TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            pieces.append(text)

    Writer(text).into(Kept(hub.tokenizer, skip_special_tokens=True))
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    assert "".join(pieces) == shown
    assert len(pieces) > 3
    with redirect_stdout(out):
        Writer(text).into(hub.transformers.TextStreamer(hub.tokenizer, skip_special_tokens=True))
    assert out.getvalue() == shown + "\n"


def test_a_streamer_gets_what_generate_returns(outer, hub):
    model, inputs = outer("fixed-entropy"), asked(hub, PROMPTS[:1])
    streamer = hub.transformers.TextIteratorStreamer(hub.tokenizer, skip_prompt=True, skip_special_tokens=True)
    found = model.generate(**inputs, max_new_tokens=NUM_NEW, streamer=streamer)
    assert "".join(streamer) == new_bytes(hub, found, inputs)[0].decode("utf-8", "replace")


def test_a_pipeline_writes_our_text_also_for_batches(outer, hub):
    model = outer("fixed-entropy")
    pipe = hub.transformers.pipeline("text-generation", model=model, tokenizer=hub.tokenizer)
    prompts = ["größer", "It was"]
    expected = [data.decode("utf-8", "replace") for data in own_bytes(model.model, prompts)]
    options = {"max_new_tokens": NUM_NEW, "do_sample": False}
    (single,) = pipe(prompts[0], **options)
    assert single["generated_text"] == prompts[0] + expected[0]
    both = pipe(prompts, **options, batch_size=2, return_full_text=False)
    assert [found["generated_text"] for (found,) in both] == expected
