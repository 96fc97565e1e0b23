from patchpad.data import open_corpus
from patchpad.data.bundled_text import bundled_excerpt, bundled_novels


def test_the_bundled_text_is_split_by_document():
    config = bundled_novels()
    training, held_out = open_corpus(config.paths), open_corpus(config.validation_paths)
    assert (len(training.documents), len(held_out.documents)) == (5, 1)
    assert training.num_bytes > 3_500_000
    start = held_out.documents[0][1000:1200].tobytes()
    assert not any(start in document.tobytes() for document in training.documents)


def test_the_excerpt_is_whole_lines_of_a_book_that_is_no_training_text():
    excerpt = bundled_excerpt()
    assert len(excerpt.text) > 10_000
    assert excerpt.text.endswith(b"\n")
    assert all(line.isprintable() for line in excerpt.text.decode("utf-8").splitlines())
    training = open_corpus(bundled_novels().paths)
    assert not any(excerpt.text[1000:1100] in document.tobytes() for document in training.documents)
