"""Each patchifier's rule is its definition, patches are bounded, and a prefix's ends are those of the whole."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import PatchifierConfig
from patchpad.patching import ByteFacts, Documents, build_patchifier
from patchpad.patching.patchifiers import is_spacelike
from patchpad.registry import PATCHIFIERS
from patchpad.testing import as_row, random_documents, settle_patches, sharp_model, tiny_model_config

WORDS = "naïve 日本語 text, with 'quotes'…\n\tand שלום 12-34 emoji🙂 end".encode()


def spacebyte_definition(document: bytes) -> list[bool]:
    """The rule in words: neither an ASCII letter or digit nor a continuation byte, and not after another such byte."""

    def spacelike(byte: int) -> bool:
        return not (chr(byte).isascii() and chr(byte).isalnum()) and not 0x80 <= byte < 0xC0

    return [spacelike(byte) and index > 0 and not spacelike(document[index - 1]) for index, byte in enumerate(document)]


def ends_of(document: bytes, **options) -> list[bool]:
    ids = torch.tensor([as_row(document)])
    documents = Documents.locate(ids)
    patchifier = build_patchifier(PatchifierConfig(**options))
    return patchifier.patch_ends(ByteFacts.gather(ids, documents, None), documents, torch.tensor(math.nan))[
        0, 1:
    ].tolist()


def test_spacelike_bytes_are_those_of_the_definition():
    spacelike = is_spacelike(torch.arange(257)).tolist()
    for byte in range(256):
        letter_or_digit = byte < 0x80 and chr(byte).isalnum()
        assert spacelike[byte] == (not letter_or_digit and not 0x80 <= byte < 0xC0)
    assert spacelike[256]  # the separator


@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)))
def test_spacebyte_ends_are_those_of_the_definition(document):
    assert ends_of(document, kind="spacebyte", max_patch_size=1000) == spacebyte_definition(document)
    assert ends_of(WORDS, kind="spacebyte", max_patch_size=1000) == spacebyte_definition(WORDS)


@given(st.integers(1, 9), st.integers(0, 50))
def test_fixed_patches_have_their_size_from_the_first_byte(size, length):
    assert ends_of(b"x" * length, target_patch_size=size) == [(n + 1) % size == 0 for n in range(length)]


@pytest.mark.parametrize("patchifier", list(PATCHIFIERS))
@pytest.mark.parametrize(
    "document", [b"a" * 300, b"\x00" * 300, b"nospaces" * 40, b"word", b" " * 100, "日本語".encode() * 30], ids=repr
)
def test_patches_of_any_text_are_bounded(patchifier, document):
    model = sharp_model(tiny_model_config(patchifier, "entropy", patch_size=4, max_patch_size=9))
    with torch.no_grad():
        layout = model(torch.tensor([as_row(document)])).layout
    longest = model.config.patchifier.longest_patch
    assert longest == (4 if patchifier == "fixed" else 9)
    assert int(layout.open_bytes.max()) <= longest
    assert bool(layout.patch_end_mask[0, 0]) == (patchifier == "tokens")  # whose source begins a text with a token


@pytest.mark.parametrize("patchifier", list(PATCHIFIERS))
@pytest.mark.parametrize("rule", ["global", "jump"])
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_ends_of_a_prefix_are_those_of_the_whole(patchifier, rule, seed, share):
    config = tiny_model_config(patchifier, "never")
    config = type(config)(
        **{**vars(config), "patchifier": PatchifierConfig(**{**vars(config.patchifier), "rule": rule})}
    )
    model = sharp_model(config, seed=seed % 5)
    document = random_documents(seed, [60])[0]
    ids = torch.tensor([as_row(document)])
    settle_patches(model, ids)
    cut = 1 + round(share * 60)
    with torch.no_grad():
        whole, prefix = model(ids).layout.patch_end_mask, model(ids[:, :cut]).layout.patch_end_mask
    assert torch.equal(prefix, whole[:, :cut])
    assert whole.any()


@pytest.mark.parametrize("rule", ["global", "jump"])
def test_entropy_patches_end_where_the_rule_says(rule):
    patchifier = build_patchifier(PatchifierConfig(kind="entropy", rule=rule, target_patch_size=4, max_patch_size=100))
    ids = torch.tensor([as_row(b"abcdef", b"xy")])
    entropies = torch.tensor([[3.0, 0.5, 1.2, 2.5, 1.1, 0.1, 1.4, 9.0, 0.2, 1.3]])
    documents = Documents.locate(ids)
    ends = patchifier.patch_ends(ByteFacts.gather(ids, documents, entropies), documents, torch.tensor(1.0))[0].tolist()
    separators = (0, 7)
    before = [entropies[0, n - 1] if n not in separators else entropies[0, n] for n in range(10)]
    score = [float(entropies[0, n] - (before[n] if rule == "jump" else 0)) for n in range(10)]
    assert ends == [n not in separators and score[n] > 1.0 for n in range(10)]
    assert sum(ends) == {"global": 5, "jump": 3}[rule]


def test_with_the_global_rule_scratchpads_lie_below_the_patch_threshold():
    model = sharp_model(tiny_model_config("entropy", "entropy", max_patch_size=1000))
    ids = torch.tensor([as_row(random_documents(1, [200])[0])])
    settle_patches(model, ids)
    with torch.no_grad():
        output = model(ids, -math.inf)
    is_byte = output.layout.documents.is_byte
    assert float(output.entropy_nats[output.layout.scratchpad_mask & is_byte].max()) <= model.patch_threshold_nats
    assert float(output.entropy_nats[output.layout.patch_end_mask].min()) > model.patch_threshold_nats
