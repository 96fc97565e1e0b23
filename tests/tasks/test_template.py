import pytest

from patchpad.errors import ConfigError, DataError
from patchpad.tasks.template import Template, as_bytes


def rendered(text, change=None, **values):
    return Template(text, "task.yaml: `context`").render(values, change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a} and {b[1]}", "x y and two"),
        ("{{{a}}} {{}}", "{x y} {}"),
        ("{b:lettered}", "A. one\nB. two"),
        ("{b:letters:lines}", "A\nB"),
        ("{b:lines}", "one\ntwo"),
        ("{c:stripped:capitalized}", "The end_of it"),
        ("{c:stripped:spaced:lowercase}", "the end of it"),
        ("{c:before=_}|{c:after=_:stripped}", "  the END|of it"),
        ("{a:led}{empty:led}", " x y"),
        ("{number} {share}", "3 0.5"),
        ("no field", "no field"),
        ("", ""),
    ],
)
def test_a_template_puts_fields_and_their_formats_in_place(text, expected):
    values = {"a": "x y", "b": ["one", "two"], "c": "  the END_of it ", "empty": "", "number": 3, "share": 0.5}
    assert rendered(text, **values) == expected


def test_a_template_is_no_code():
    for text in ("{a.upper()}", "{__import__('os')}", "{a!r}", "{a + b}", "{}", "{0}", "{a[b]}", "{a[-1]}"):
        with pytest.raises(ConfigError, match=r"task\.yaml: `context`: .* is not a field; allowed"):
            Template(text, "task.yaml: `context`")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a", "`{` in '{a' is not a field"),
        ("a}", "`}` in 'a}' is not a field"),
        ("{a:upper}", r"unknown format `upper`, in `{a:upper}`"),
        ("{a:strippd}", "Did you mean `stripped`?"),
        ("{a:before}", "format `before` needs a mark"),
        ("{a:before=}", "format `before` needs a mark"),
        ("{a:stripped=x}", "format `stripped` takes no argument"),
    ],
)
def test_a_wrong_template_names_its_file_and_what_is_wrong(text, message):
    with pytest.raises(ConfigError) as found:
        Template(text, "task.yaml: `context`")
    assert str(found.value).startswith("task.yaml: `context`: ")
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{missing}", "`{missing}` of task.yaml: `context` is missing"),
        ("{b}", "is a list; allowed here: {b:lettered}"),
        ("{b[2]}", "`{b[2]}` of task.yaml: `context` has 2 items"),
        ("{a[0]}", "is 'x'; allowed: a list"),
        ("{a:before=_}", "has no '_'"),
        ("{a:lettered}", "is 'x'; allowed: a list of at most 26"),
        ("{yes}", "holds True; allowed: text, numbers"),
        ("{nested:lines}", "holds ['x']; allowed: text, numbers"),
    ],
)
def test_a_row_that_does_not_fit_its_template_is_named(text, problem):
    with pytest.raises(DataError) as found:
        rendered(text, a="x", b=["one", "two"], yes=True, nested=[["x"]])
    assert str(found.value).startswith("a row: ")
    assert problem in str(found.value)


def test_only_a_template_that_is_one_field_gives_a_text_for_each_item():
    values = {"b": ["one", "two"], "a": "x"}
    each = {text: Template(text, "t").render_each(values) for text in ("{b}", "{b:letters}", "{a}", " {a}", "A")}
    assert each == {"{b}": ["one", "two"], "{b:letters}": ["A", "B"], "{a}": ["x"], " {a}": [" x"], "A": ["A"]}


def test_noise_reaches_fields_and_neither_the_template_nor_letters():
    def loud(text):
        return text.upper()

    assert rendered("Question: {a:before=_}\n{b:lettered}", loud, a="why_not", b=["x", "y"]) == (
        "Question: WHY\nA. X\nB. Y"
    )
    assert rendered("{b:letters:lines}", str.lower, b=["x", "y"]) == "A\nB"
    assert Template("{a} {b}", "t").render({"a": "x", "b": "y"}, loud, keep=("b",)) == "X y"


def test_bytes_that_noise_wrote_and_surrogates_that_the_row_had_both_become_bytes():
    assert as_bytes("é" + b"\xff".decode("utf-8", "surrogateescape")) == b"\xc3\xa9\xff"
    assert as_bytes("\ud800") == b"\xed\xa0\x80"


def test_a_template_knows_its_fields():
    assert Template("{b}{a[0]}{b:lines}{{c}}", "t").fields == ("b", "a")
