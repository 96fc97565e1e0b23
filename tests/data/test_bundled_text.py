from patchpad.data import open_corpus
from patchpad.data.bundled_text import bundled_novels


def test_the_bundled_text_is_split_by_document():
    config = bundled_novels()
    training, held_out = open_corpus(config.paths), open_corpus(config.validation_paths)
    assert (len(training.documents), len(held_out.documents)) == (5, 1)
    assert training.num_bytes > 3_500_000
    start = held_out.documents[0][1000:1200].tobytes()
    assert not any(start in document.tobytes() for document in training.documents)
