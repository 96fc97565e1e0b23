"""The tokenizer: any bytes make a round trip, special ids stand where they should, batches are padded on the left."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.errors import InputError
from patchpad.hub.text import bytes_text, text_bytes

HARD = [
    b"",
    bytes(range(256)),
    b"\xff\xfe\x00\xf0\x9f\x99",
    "größer 日本 🙂".encode(),
    b"<|separator|><|padding|><0xE9>",
    b" a  b \n\t.",
]


@given(st.binary(max_size=60))
def test_any_bytes_are_text_and_come_back(data):
    assert text_bytes(bytes_text(data)) == data


@given(st.text(max_size=30))
def test_any_text_has_bytes_and_a_character_keeps_its_own(text):
    assert text_bytes(text) == text.encode()


def test_lone_surrogates_that_stand_for_no_byte_are_kept():
    assert text_bytes("a\ud800é\udcff") == b"a\xed\xa0\x80\xc3\xa9\xff"


@pytest.mark.parametrize("data", HARD)
def test_bytes_of_any_kind_make_a_round_trip(hub, data):
    tokenizer = hub.tokenizer
    assert tokenizer.encode_bytes(data) == [256, *data]
    assert tokenizer.decode_bytes([256, *data, 256, 257]) == data
    text = data.decode("utf-8", "surrogateescape")
    assert tokenizer(text)["input_ids"] == [256, *data]
    assert tokenizer.encode(text, add_special_tokens=False) == list(data)
    exact = hub.Tokenizer(errors="surrogateescape")
    assert exact.decode([256, *data], skip_special_tokens=True) == text
    assert tokenizer.decode([256, *data], skip_special_tokens=True) == data.decode("utf-8", "replace")
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == list(data)
    assert exact.convert_tokens_to_string(exact.tokenize(text)) == text


def test_special_ids_are_named_and_counted(hub):
    tokenizer = hub.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 256, 257)
    assert (tokenizer.vocab_size, len(tokenizer), tokenizer.is_fast) == (256, 258, False)
    assert sorted(tokenizer.all_special_ids) == [256, 257]
    vocab = tokenizer.get_vocab()
    assert sorted(vocab.values()) == list(range(258))
    assert [tokenizer.convert_ids_to_tokens(number) for number in vocab.values()] == list(vocab)
    assert tokenizer.decode([256, 65, 257]) == "<|separator|>A<|padding|>"
    assert tokenizer.decode(65) == "A"
    assert tokenizer.decode(torch.tensor([256, 65]), skip_special_tokens=True) == "A"
    assert tokenizer.batch_decode([[256, 65], [66]], skip_special_tokens=True) == ["A", "B"]
    assert tokenizer.get_special_tokens_mask([256, 65, 257], already_has_special_tokens=True) == [1, 0, 1]
    assert tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"] == [1, 0]


def test_batches_are_padded_on_the_left_or_as_asked(hub):
    batch = hub.tokenizer(["ab", ""], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[256, 97, 98], [257, 257, 256]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    right = hub.tokenizer(["ab", ""], padding="max_length", max_length=4, padding_side="right")
    assert right["input_ids"] == [[256, 97, 98, 257], [256, 257, 257, 257]]
    cut = hub.tokenizer("abcdef", truncation=True, max_length=3)
    assert cut["input_ids"] == [256, 97, 98]


def test_ends_are_added_where_they_are_asked_for(hub):
    tokenizer = hub.Tokenizer(add_eos_token=True)
    assert tokenizer("a")["input_ids"] == [256, 97, 256]
    assert hub.Tokenizer(add_bos_token=False)("a")["input_ids"] == [97]
    assert tokenizer("a", "b")["input_ids"] == [256, 97, 256, 256, 98, 256]


def test_a_saved_tokenizer_is_loaded_as_it_was(hub, tmp_path):
    hub.Tokenizer(errors="surrogateescape", model_max_length=77).save_pretrained(tmp_path)
    again = hub.transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(again) is hub.Tokenizer
    assert (again.errors, again.model_max_length, again.padding_side) == ("surrogateescape", 77, "left")
    text = HARD[2].decode("utf-8", "surrogateescape")
    assert again.decode(again.encode(text), skip_special_tokens=True) == text
    again.save_pretrained(tmp_path / "again")
    third = hub.transformers.AutoTokenizer.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert third.get_vocab() == again.get_vocab()
    assert third.errors == "surrogateescape"


def test_a_saved_tokenizer_keeps_the_ends_that_were_asked_for(hub, tmp_path):
    hub.Tokenizer(add_bos_token=False, add_eos_token=True).save_pretrained(tmp_path)
    again = hub.transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert again("a")["input_ids"] == [97, 256]
    other = hub.transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True, add_eos_token=False)
    assert other("a")["input_ids"] == [97]


def test_no_ids_can_be_added_and_unknown_ones_are_said(hub):
    tokenizer = hub.Tokenizer()
    with pytest.raises(InputError, match="cannot be added"):
        tokenizer.add_tokens(["new"])
    with pytest.raises(InputError, match="the id 258 is unknown"):
        tokenizer.decode([258])
    for ids in ([258], [-100, 65]):  # -100 is a label of transformers
        with pytest.raises(InputError, match=f"the id {ids[0]} is unknown"):
            tokenizer.decode(ids, skip_special_tokens=True)
    with pytest.raises(InputError, match="'zz' is not the name of an id"):
        tokenizer.convert_tokens_to_string(["a", "zz"])
    with pytest.raises(InputError, match="errors is 'ignore'"):
        hub.Tokenizer(errors="ignore")
    assert len(tokenizer) == 258
