"""A converted model and its source are measured side by side: each number against one found in another way."""

import gzip
import json
import math
import re
import shlex

import conversion_differences
import conversion_tables
import measure_conversion
import pytest
import torch
from conversion_bits import Pair, Text, noised
from conversion_record import Record
from conversion_tasks import on_source
from conversion_words import CutWord, cut_words, our_answers, source_answers

import patchpad
from patchpad.config import ModelConfig
from patchpad.conversion.convert import convert
from patchpad.cost import cost
from patchpad.errors import ConfigError, DataError
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.kinds import load_task
from patchpad.testing.tokens import LACKS, tiny_source_tokens, tiny_tokenizer_json

transformers = pytest.importorskip("transformers", reason='needs the extra `convert`: pip install "patchpad[convert]"')
pytest.importorskip("tokenizers", reason='needs the extra `bpe`: pip install "patchpad[bpe]"')
from conversion_source import LOST_BYTE_NATS, Source  # noqa: E402

NAMES = ("<|endoftext|>", "<|im_end|>")
NUM_TOKENS = len(tiny_source_tokens().bytes_of)
CONFIG = """
model:
  byte_dim: 16
  byte_heads: 2
  window_bytes: 8
  encoder_layers: 1
  decoder_layers: 1
  context_bytes: 160
  patchifier: {kind: tokens}
"""
SENTENCES = (
    "The cat doesn't sit on the mattress; it's in the hatbox, and they'll say they've seen that.",
    "Another evening brought strangers, whispering together beneath the lanterns of the harbour.",
    "Yesterday somebody wondered whether mountains remember travellers, and nobody answered him.",
)
PROSE = "\n".join(SENTENCES[number % 3] for number in range(40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random source as transformers saves it, a run converted from it, texts and the data of three tasks."""
    place = tmp_path_factory.mktemp("measured")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=NUM_TOKENS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(place / "llama")
    (place / "llama" / "tokenizer.json").write_text(tiny_tokenizer_json(names=NAMES), encoding="utf-8")
    (place / "model.yaml").write_text(CONFIG)
    convert(place / "llama", place / "model.yaml", place / "run")
    (place / "books.txt").write_text(PROSE)
    write_tasks(place / "data")
    return place


def write_tasks(data):
    rows = [{"context": "The cat sits on the", "continuation": "mat"}, {"context": "In the", "continuation": "hat"}]
    write_rows(data / "lambada_openai" / "test.jsonl.gz", rows)
    endings = ["sits.", "sees the hat.", "says that.", "ends."]
    row = {"activity": "Cats", "ctx_a": "The cat", "ctx_b": "", "endings": endings, "gold": 2}
    write_rows(data / "hellaswag" / "validation.jsonl.gz", [row, {**row, "gold": 0}])
    (data / "cute" / "data").mkdir(parents=True)
    (data / "cute" / "data" / "spell.tsv").write_text("input1\tlabel\ncat\tc a t\nhat\th a t\n")


def write_rows(path, rows):
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode()))


@pytest.fixture(scope="module")
def source(folder):
    return Source(folder / "llama")


def words(folder, out, *more):
    parts = [str(folder / out), "--source", str(folder / "llama"), "--run", str(folder / "run")]
    parts += ["--text", f"books={folder / 'books.txt'}", "--data", str(folder / "data")]
    parts += ["--bytes", "600", "--noise-bytes", "400", "--calibration-bytes", "600", "--prompts", "6", "--limit", "2"]
    return [*parts, "--tasks", "lambada", "hellaswag", "cute_spell", *more]


@pytest.fixture(scope="module")
def measured(folder):
    measure_conversion.main(words(folder, "all.json"))
    return folder / "all.json"


def cells_of(path):
    return json.loads(path.read_text())["cells"]


def direct(source, ids):
    """ln p of every token after each of some, which begin with the token that begins a text, without a cache."""
    with torch.no_grad():
        return source.model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)


def test_a_text_becomes_tokens_that_stand_for_all_of_its_bytes(source):
    data = "naïve “café” <|endoftext|> the cat".encode() + b"\x80\xe2\x28the end\xe6\x97"
    ids = source.encode(data)
    assert b"".join(map(source.bytes_of, ids)) == bytes(byte for byte in data if byte not in LACKS)
    assert source.tokens.begin not in ids
    assert ids[: len(source.encode(b"na")) - 1] == source.encode("naïve".encode())[: len(source.encode(b"na")) - 1]


def test_bytes_without_a_token_are_charged(source):
    known, lacking = source.score_text(b"the cat"), source.score_text(b"the cat\xff\xff")
    assert lacking.num_lost_bytes == 2
    assert lacking.nats == pytest.approx(known.nats + 2 * LOST_BYTE_NATS, abs=1e-4)
    assert not lacking.is_greedy


def test_the_nats_of_a_text_are_those_of_its_tokens(source):
    ids = [source.tokens.begin, *source.encode(PROSE[:200].encode())]
    logs = direct(source, ids)
    expected = -sum(float(logs[place, token]) for place, token in enumerate(ids[1:]))
    assert source.score_text(PROSE[:200].encode()).nats == pytest.approx(expected, abs=1e-3)


def test_an_end_inside_a_token_counts_every_token_that_goes_on(source):
    data = b"The cat sits on t"
    ids = source.encode(data)
    assert len(source.beginning_with(source.bytes_of(ids[-1]))) > 1
    logs, begin = direct(source, [source.tokens.begin, *ids]).exp(), len(ids)
    ways = 0.0
    for taken in range(1, 4):
        open_text = b"".join(map(source.bytes_of, ids[begin - taken :]))
        before = math.prod(float(logs[place, token]) for place, token in enumerate(ids[: begin - taken]))
        starting = [t for t in range(NUM_TOKENS) if source.bytes_of(t).startswith(open_text)]
        ways += before * float(logs[begin - taken, starting].sum())
    found = source.score_text(data)
    assert found.open_nats == pytest.approx(-math.log(ways), abs=1e-3)
    assert found.open_nats < found.nats - 1e-3


def test_a_continuation_is_split_from_its_context_as_lm_eval_does(source):
    whole = source.encode(b"The cat sits on the mat")
    before = source.encode(b"The cat sits on the")
    assert whole[: len(before)] == before
    assert source.score_pair(b"The cat sits on the ", b"mat") == source.score(before, whole[len(before) :], 4)
    inside = source.score_pair(b"The cat sits on t", b"he mat")  # " the" would belong to both
    assert inside == source.score(source.encode(b"The cat sits on t"), source.encode(b"he mat"), 6)


def test_greedy_writing_takes_the_likeliest_token_each_time(source):
    ids, written = [source.tokens.begin, *source.encode(b"The cat")], b""
    while len(written) < 12:
        ids.append(int(direct(source, ids)[-1].argmax()))
        if not source.bytes_of(ids[-1]):
            break
        written += source.bytes_of(ids[-1])
    assert source.write(b"The cat", 12) == written[:12]
    stop = written[3:5]
    assert source.write(b"The cat", 12, stops=(stop,)) == written[: written.index(stop)]


def test_the_end_of_a_prompt_makes_way_for_the_likeliest_token_that_begins_with_it(source):
    prompt = b"The cat sits on t"
    ids, begin = source.encode(prompt), source.tokens.begin
    ways = []
    for taken in range(1, 9):
        kept, open_text = ids[:-taken], b"".join(map(source.bytes_of, ids[-taken:]))
        logs = direct(source, [begin, *kept])
        before = sum(float(logs[place, token]) for place, token in enumerate(kept))
        ways += [
            (before + float(logs[-1, token]), [*kept, token], source.bytes_of(token)[len(open_text) :])
            for token in range(NUM_TOKENS)
            if source.bytes_of(token).startswith(open_text)
        ]
    _, chosen, written = max(ways)
    assert len(ways) > 1
    given = [begin, *chosen]
    while len(written) < 8:
        given.append(int(direct(source, given)[-1].argmax()))
        if not source.bytes_of(given[-1]):
            break
        written += source.bytes_of(given[-1])
    assert source.write(prompt, 8, takes_back=True) == written[:8]


def test_compute_of_the_source_is_that_of_a_bpe_model_of_its_sizes(source):
    config = ModelConfig(
        kind="bpe",
        trunk_dim=32,
        trunk_layers=2,
        trunk_heads=2,
        trunk_ffn_dim=48,
        bpe_vocab_size=NUM_TOKENS,
        context_bytes=160,
    )
    known = cost(
        config,
        context_bytes=100,
        patches_per_byte=0.3,
        scratchpads_per_byte=0,
        trunk_pairs_per_slot=31 / 2,
        pooled_bytes_per_slot=0,
    )
    found = source.rates([(100, 30), (100, 30)])
    assert found["trunk_calls_per_byte"] == pytest.approx(0.3)
    assert found["flops_per_byte"] == pytest.approx(known.flops_per_byte)
    assert found["trunk_cache_bytes_per_byte"] == pytest.approx(known.trunk_cache_bytes_per_byte)


def test_our_bits_are_those_of_evaluate_on_the_windows_that_the_source_read(folder, measured, source):
    cells, model = cells_of(measured), patchpad.load(folder / "run")
    text = Text.read("books", folder / "books.txt", 600, 600)
    windows, others = text.windows(160)
    assert not set(windows.numbers.tolist()) & set(others.numbers.tolist())
    nats = {"plain": math.inf, "everywhere": -math.inf, **cells["calibration/books"]["values"]["thresholds_nats"]}
    assert len(nats) > 3
    for name, threshold in nats.items():
        values = cells[f"bits/books/{name}"]["values"]
        (point,) = patchpad.evaluate(model, windows, scratchpad_threshold_nats=threshold, limit_bytes=0)
        assert sum(values["bits"]) / sum(values["num_bytes"]) == pytest.approx(point.bits_per_byte, abs=1e-4)
        assert values["flops_per_byte"] == pytest.approx(point.flops_per_byte)
        assert values["scratchpads_per_byte"] == pytest.approx(point.scratchpads_per_byte)
    of_source = cells["bits/books/source"]["values"]
    texts = [document.tobytes() for document in windows.as_corpus().documents]
    assert of_source["num_bytes"] == values["num_bytes"] == list(map(len, texts))
    assert of_source["bits"][1] == pytest.approx(source.score_text(texts[1]).open_nats / math.log(2), abs=1e-3)


def test_the_same_command_measures_nothing_again_and_other_options_are_refused(folder, measured, monkeypatch):
    before = measured.read_bytes()
    monkeypatch.setattr(Source, "score", lambda *given: pytest.fail("measured again"))
    measure_conversion.main(words(folder, "all.json"))
    assert measured.read_bytes() == before
    with pytest.raises(DataError, match="`cut/source` was measured with"):
        measure_conversion.main(words(folder, "all.json", "--prompts", "7", "--parts", "cut"))
    with pytest.raises(DataError, match="results of other models"):
        Record(measured, {"source": {}, "ours": {}})


def test_a_run_without_tokens_and_a_missing_folder_of_tasks_are_refused(folder):
    given = words(folder, "x.json")
    with pytest.raises(ConfigError, match="allowed: `tokens`"):
        measure_conversion.main([*given, "--run", "bundled"])
    with pytest.raises(ConfigError, match="--data is missing"):
        measure_conversion.main([word for word in given if word not in ("--data", str(folder / "data"))])
    with pytest.raises(ConfigError, match="names `books` twice"):
        measure_conversion.main([*given, "--text", "books=other.txt"])


def test_the_commands_of_the_page_have_options_that_there_are():
    page = conversion_tables.PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [line[1] for line in lines] == [
        f"recipes/{name}.py" for name in ("new_text", "measure_conversion", "conversion_tables")
    ]
    given = measure_conversion.parser().parse_args(lines[1][2:])
    assert given.text == ["books=books_en_val.jsonl.xz", "new=new_text.txt"]
    assert all(f"| `{part}` | " in page for part in given.parts)
    assert conversion_tables.BEGIN in page


def test_an_arm_is_measured_on_the_same_windows_and_its_training_is_named(folder, measured, tmp_path, monkeypatch):
    (folder / "fixed.yaml").write_text(CONFIG.replace("tokens", "fixed"))
    convert(folder / "llama", folder / "fixed.yaml", folder / "fixed")
    given = words(folder, "arms.json", "--parts", "arms")
    with pytest.raises(ConfigError, match="--arm is missing"):
        measure_conversion.main(given)
    given += ["--arm", f"4-byte patches={folder / 'fixed'}"]
    with pytest.raises(DataError, match="says nothing of the training"):
        measure_conversion.main(given)
    (folder / "fixed" / "metrics.jsonl").write_text('{"bytes_seen": 500000}\n{"validation": 1}\n')
    measure_conversion.main(given)
    cells = cells_of(folder / "arms.json")
    ours = cells["arms/4-byte patches/plain"]["values"]
    assert ours["num_bytes"] == cells_of(measured)["bits/books/plain"]["values"]["num_bytes"]
    table = conversion_tables.arms_table(conversion_tables.Cells([measured, folder / "arms.json"]))
    bits = sum(ours["bits"]) / sum(ours["num_bytes"])
    assert f"| 4-byte patches | 0.50 | {bits:.3f} | 0.000 |" in table
    assert "windows of books," in table


def test_noise_is_that_of_the_tasks_and_reaches_every_window(measured):
    kinds = dict(noised([b"The cat sits on the mat" * 4], "books"))
    assert set(kinds) == {"clean", "typo", "case", "repeat", "drop", "homoglyph"}
    assert len(set(map(tuple, kinds.values()))) == 6
    cells = cells_of(measured)
    clean, repeated = (cells[f"noise/{kind}/source"]["values"]["num_bytes"] for kind in ("clean", "repeat"))
    assert all(after > before for before, after in zip(clean, repeated, strict=True))
    assert cells["noise/repeat/everywhere"]["values"]["num_bytes"] == repeated


def test_prompts_are_cut_inside_words_at_the_same_places_each_time(folder):
    corpus = Text.read("books", folder / "books.txt", 600, 600).corpus
    found = cut_words(corpus, 6, 160)
    assert found == cut_words(corpus, 6, 160)
    for word in found:
        first, rest, end = word.prompt.rpartition(b" ")[2], word.rest[:-1], word.rest[-1:]
        assert len(first) >= 2
        assert len(rest) >= 2
        assert (first + rest).decode() in re.findall("[a-z]+", PROSE)
        assert not end.isalnum()
        assert word.prompt + word.rest in PROSE.encode()
    with pytest.raises(DataError, match="words were found"):
        cut_words(corpus, 4000, 160)


def test_an_answer_is_right_if_it_is_what_the_model_writes(folder, source):
    model, prompt = patchpad.load(folder / "run"), b"Another evening brought stran"
    pair = Pair(source, model, Record(folder / "unused.json", {}))
    for threshold in (math.inf, -math.inf):
        (ours,) = patchpad.complete(
            model, [prompt], max_new_bytes=4, temperature=0, scratchpad_threshold_nats=threshold
        )
        answers = [CutWord(prompt, ours.data), CutWord(prompt, b"gers,")]
        found = our_answers(pair, answers, threshold)
        assert found["right"] == [1, 0]
        nats = patchpad.score(model, prompt + b"gers,", scratchpad_threshold_nats=threshold)[len(prompt) :]
        assert found["bits"][1] == pytest.approx(float(nats.sum()) / math.log(2), abs=2e-3)
    for takes_back in (False, True):
        answers = [CutWord(prompt, source.write(prompt, 4, takes_back=takes_back)), CutWord(prompt, b"gers,")]
        found = source_answers(source, answers, takes_back=takes_back)
        assert found["right"] == [1, 0]
    whole, before = (source.score_text(data).open_nats for data in (prompt + b"gers,", prompt))
    assert found["bits"][1] == pytest.approx((whole - before) / math.log(2), abs=2e-3)


@pytest.mark.parametrize(
    ("written", "marks"),
    [
        (b"gers,", (1, 1)),
        (b"gers ", (1, 0)),
        (b"gerst", (0, 0)),
        (b"gers", (0, 0)),
        (b"ge", (0, 0)),
        (b"gets,", (0, 0)),
    ],
)
def test_a_word_is_right_if_it_ends_where_it_should(written, marks):
    assert CutWord(b"Another evening brought stran", b"gers,").marks(written) == marks


def test_the_source_is_right_in_cute_where_it_writes_the_answer(folder, source, monkeypatch):
    task = load_task("cute_spell")
    options = TaskOptions(data=folder / "data")
    asked = []
    monkeypatch.setattr(source, "write", lambda prompt, size, stops: asked.append((prompt, size, stops)) or b"c a t")
    found = on_source(source, task, task.rows(options.data), options)
    assert found["scores"] == [1.0, 0.0]
    assert [prompt.rpartition(b"\n")[2] for prompt, _, _ in asked] == [
        b'Spell "cat". Answer: "',
        b'Spell "hat". Answer: "',
    ]
    assert asked[0][1:] == (40, (b'"',))


def test_both_models_answer_the_same_examples_of_a_task(measured, source):
    cells = cells_of(measured)
    for task in ("lambada", "hellaswag", "cute_spell"):
        ours, theirs = (cells[f"tasks/{task}/{name}"]["values"] for name in ("everywhere", "source"))
        assert ours["ids"] == theirs["ids"] == theirs["open"]["ids"]
        assert all(a <= b for a, b in zip(theirs["open"]["bits_per_byte"], theirs["bits_per_byte"], strict=True))
    nats = source.score_pair(b"The cat sits on the", b" mat").nats
    assert cells["tasks/lambada/source"]["values"]["bits_per_byte"][0] == pytest.approx(
        nats / math.log(2) / 4, abs=1e-4
    )


def test_tables_are_made_of_the_file_and_put_into_the_page(measured, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{conversion_tables.BEGIN}\n\nwas here\n\n<!-- end of measured -->\n\nafter\n")
    monkeypatch.setattr(conversion_tables, "PAGE", page)
    conversion_tables.main([measured, measured])
    text = page.read_text()
    assert "was here" not in text
    assert "`new`" not in text  # which was not measured
    assert text.startswith("before")
    assert text.endswith("after\n")
    values = {name: cells_of(measured)[f"bits/books/{name}"]["values"] for name in ("source", "everywhere")}
    bits = {name: sum(one["bits"]) / sum(one["num_bytes"]) for name, one in values.items()}
    assert f"| books | the source | {bits['source']:.3f} |  | 0.000 |" in text
    difference = f"{bits['everywhere'] - bits['source']:+.3f} ± "
    assert f"| books | converted, scratchpads everywhere | {bits['everywhere']:.3f} | {difference}" in text
    assert "| homoglyphs, 10 % of those that have one |" in text
    assert "| the source, end of the prompt taken back | " in text
    assert "| cute | exact match | 2 | - |" in text
    assert "| hellaswag | accuracy per byte | 2 | 0.250 |" in text


def test_files_about_other_models_or_windows_are_not_put_into_one_table(measured, tmp_path):
    other = json.loads(measured.read_text())
    other["models"]["ours"]["run"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="about other models"):
        conversion_tables.Cells([measured, tmp_path / "other.json"])
    values = {"bits": [1.0, 2.0], "num_bytes": [1, 1]}
    with pytest.raises(DataError, match="different windows"):
        conversion_differences.difference(values, {"bits": [1.0, 2.0], "num_bytes": [1, 2]})


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1.0), (5, 5, 1.0), (8, 2, 0.109375), (10, 0, 0.001953125), (0, 1, 1.0)]
)
def test_the_sign_test_is_exact(wins, losses, p):
    first, second = [1] * wins + [0] * losses + [1, 0], [0] * wins + [1] * losses + [1, 0]
    assert conversion_differences.sign_test(first, second) == pytest.approx(p)
    assert conversion_differences.sign_test(second, first) == pytest.approx(p)
