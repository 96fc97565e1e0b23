"""Sources of a mixture in a configuration."""

from dataclasses import replace

import pytest

from patchpad.config import Config, DataConfig, SourceConfig, load_config
from patchpad.errors import ConfigError

MIXTURE = """
data:
  sources:
    books: {paths: [a, b], weight: 3}
    code: {paths: c, validation_paths: [d], validation_fraction: 0.2}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mixture.yaml").write_text(MIXTURE)
    return tmp_path / "mixture.yaml"


def test_sources_are_read_from_yaml_and_keys_of_theirs_from_the_command_line(path):
    config = load_config(path, {"data.sources.code.weight": "0.5", "data.sources.prose.paths": "[e]"})
    assert config.data.sources == {
        "books": SourceConfig(paths=("a", "b"), weight=3.0),
        "code": SourceConfig(paths=("c",), validation_paths=("d",), validation_fraction=0.2, weight=0.5),
        "prose": SourceConfig(paths=("e",)),
    }
    assert config.data.all_paths == ("a", "b", "c", "d", "e")
    assert Config.from_dict(config.to_dict()) == config
    assert config.data.sources["code"].alone == DataConfig(
        paths=("c",), validation_paths=("d",), validation_fraction=0.2
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.paths": "[x]"}, "data.paths is ('x',) beside data.sources; allowed: one of the two"),
        ({"data.validation_fraction": "0.3"}, "data.validation_fraction is 0.3 beside data.sources"),
        ({"data.sources.code.weight": "0"}, "data.sources.code.weight is 0.0; allowed: a number above 0"),
        ({"data.sources.code.wieght": "1"}, "unknown key `data.sources.code.wieght`"),
        ({"data.sources.code.paths": "[]"}, "paths is empty; allowed: files, globs or directories"),
        ({"data.sources.more": "{weight: 2}"}, "paths is empty"),
        ({"data.sources": "{a b: {paths: c}}"}, "sources has the name 'a b'; allowed: letters, digits, - and _"),
        ({"data.sources": "[c]"}, "`data.sources` is ['c']; allowed: keys and values"),
    ],
)
def test_what_is_wrong_with_a_source_is_told(path, overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert message in caught.value.message


def test_a_text_that_is_given_in_python_does_not_silently_join_a_mixture(path):
    with pytest.raises(ConfigError, match=r"beside data\.sources"):
        replace(load_config(path).data, paths=("x",))
