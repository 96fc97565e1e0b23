"""Noise: what each kind does, at which rate, and that its draws depend on nothing but seed, kind and place."""

import pytest

from patchpad.errors import ConfigError
from patchpad.tasks.noise import HOMOGLYPHS, KINDS, NEIGHBOURS, Noise, noisy

TEXT = "The quick brown fox jumps over a lazy dog, twice: Straße, naïve, Привет, 你好. " * 400
STANDARD_ERRORS = 4.0
"""How far a measured rate may lie from the asked one."""


def is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def changed_share(before: str, after: str, can_change) -> tuple[float, int]:
    """Returns the share of changed characters among those that can change, and how many these are; equal lengths."""
    places = [number for number, character in enumerate(before) if can_change(character)]
    return sum(before[place] != after[place] for place in places) / len(places), len(places)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_depends_on_seed_kind_and_place_alone(kind):
    first = noisy(TEXT, kind, seed=1, place="7/ctx")
    noisy("another text in between", kind, seed=1, place="8/ctx")
    assert noisy(TEXT.encode(), kind, seed=1, place="7/ctx") == first
    assert first != TEXT.encode()
    if kind not in ("uppercase", "antspeak"):  # these leave nothing to chance at a rate of 1
        assert noisy(TEXT, kind, seed=2, place="7/ctx") != first
        assert noisy(TEXT, kind, seed=1, place="8/ctx") != first


@pytest.mark.parametrize(
    ("kind", "can_change"),
    [
        ("typo", lambda c: c in NEIGHBOURS),
        ("case", lambda c: c.swapcase() != c and len(c.swapcase()) == 1),
        ("uppercase", lambda c: c.upper() != c and len(c.upper()) == 1),
        ("homoglyph", lambda c: c in HOMOGLYPHS),
    ],
)
@pytest.mark.parametrize("rate", [0.03, 0.4])
def test_letters_change_at_the_rate_and_nothing_else_does(kind, can_change, rate):
    text = TEXT.replace("ß", "s")  # its capitals are two letters, and would shift those behind
    after = noisy(text, kind, rate).decode()
    share, count = changed_share(text, after, can_change)
    assert abs(share - rate) < STANDARD_ERRORS * (rate * (1 - rate) / count) ** 0.5
    assert all(a == b for a, b in zip(text, after, strict=True) if not can_change(a))


def test_a_typo_is_a_key_beside_the_right_one_in_the_same_case():
    assert set(NEIGHBOURS["g"]) == set("fhtyvb")
    assert set(NEIGHBOURS["Q"]) == set("WA")
    assert all(letter in NEIGHBOURS[other] for letter in NEIGHBOURS for other in NEIGHBOURS[letter])
    after = noisy("gQ" * 500, "typo", 1.0).decode()
    assert set(after[::2]) == set("fhtyvb")
    assert set(after[1::2]) == set("WA")


def test_dropped_and_repeated_characters_come_at_the_rate():
    count = len(TEXT)
    dropped = noisy(TEXT, "drop", 0.1).decode()
    assert abs(1 - len(dropped) / count - 0.1) < STANDARD_ERRORS * (0.09 / count) ** 0.5
    once = "abcdefghij" * 1000
    repeated = noisy(once, "repeat", 0.2).decode()
    lengths, at = [], 0
    for character in once:  # neighbours differ, so each run is one character's
        length = len(repeated) - at - len(repeated[at:].lstrip(character))
        lengths.append(length)
        at += length
    assert at == len(repeated)
    assert set(lengths) == {1, 2, 3, 4}
    assert abs(sum(length > 1 for length in lengths) / len(once) - 0.2) < STANDARD_ERRORS * (0.16 / len(once)) ** 0.5


def test_of_a_text_whose_every_character_is_dropped_one_stays():
    assert {noisy("ab", "drop", 1.0, place=str(number)) for number in range(20)} == {b"a", b"b"}
    assert noisy("", "drop", 1.0) == b""


def test_swapped_letters_are_neighbours_and_stay_the_same_letters():
    text = "ab" * 5000
    after = noisy(text, "swap", 0.1).decode()
    assert sorted(after) == sorted(text)
    num_swaps, at = 0, 0
    while at < len(text):
        if after[at] != text[at]:
            assert after[at : at + 2] == text[at : at + 2][::-1]
            num_swaps += 1
            at += 1
        at += 1
    asked = len(text) - num_swaps - 1  # a letter that has moved is not asked again
    assert abs(num_swaps / asked - 0.1) < STANDARD_ERRORS * (0.09 / asked) ** 0.5
    assert noisy("a b c. d", "swap", 1.0) == b"a b c. d"


def test_invalid_utf8_is_no_utf8_and_hits_characters_at_the_rate():
    after = noisy(TEXT, "invalid_utf8", 0.05)
    assert not is_utf8(after)
    num_broken = sum(0xDC80 <= ord(character) <= 0xDCFF for character in after.decode("utf-8", "surrogateescape"))
    assert abs(num_broken / len(TEXT) - 0.05) < STANDARD_ERRORS * (0.05 * 0.95 / len(TEXT)) ** 0.5
    for number in range(300):  # a single one breaks the text, whatever stands beside it
        one = noisy("你a é", "invalid_utf8", 0.3, place=str(number))
        assert is_utf8(one) == (one == "你a é".encode())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "invalid_utf8"])
def test_other_kinds_keep_valid_utf8(kind):
    assert is_utf8(noisy(TEXT, kind))


def test_bytes_that_are_not_text_pass_through():
    assert noisy(b"\xff\x80ab", "uppercase") == b"\xff\x80AB"


def test_uppercase_and_antspeak_are_those_of_the_noised_hellaswag():
    assert noisy("A roof, two", "uppercase") == b"A ROOF, TWO"
    assert noisy("A roof", "antspeak") == b"A   R O O F"


def test_homoglyphs_are_one_letter_of_another_script_each():
    assert len(set(HOMOGLYPHS.values())) == len(HOMOGLYPHS)
    assert all(latin.isascii() and len(other) == 1 and not other.isascii() for latin, other in HOMOGLYPHS.items())
    assert all(latin.isupper() == other.isupper() for latin, other in HOMOGLYPHS.items())


def test_wrong_noise_says_what_is_allowed():
    with pytest.raises(ConfigError, match=r"noise.kind is 'typos'[\s\S]*`typo`"):
        Noise(kind="typos")
    for rate in (0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="above 0, up to 1"):
            noisy("text", "drop", rate)
    with pytest.raises(ConfigError, match="antspeak"):
        Noise(kind="antspeak", rate=0.5)


def test_a_change_of_an_example_depends_on_its_id_and_text_alone():
    noise = Noise(kind="invalid_utf8", rate=0.2, seed=3)
    first, other = noise.change(TEXT, "a.jsonl:1"), noise.change(TEXT, "a.jsonl:2")
    assert first != other
    assert noise.change(TEXT, "a.jsonl:1") == first
    again = noise.change(first, "a.jsonl:1")  # its bytes that are no text change like any other character
    assert len(again) == len(first)
    same_length = noise.change("a" * 200, "a.jsonl:1"), noise.change("b" * 200, "a.jsonl:1")
    places = [{place for place, c in enumerate(text) if c not in "ab"} for text in same_length]
    assert places[0] != places[1]


def test_noise_reaches_what_is_scored_for_choices_alone_unless_the_suite_says_so():
    assert Noise(kind="drop").reaches_choices("choices")
    assert not Noise(kind="drop").reaches_choices("continuation")
    assert Noise(kind="drop", where="both").reaches_choices("continuation")
    assert not Noise(kind="drop", where="context").reaches_choices("choices")
