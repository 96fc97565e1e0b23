"""pytest plugin, `-p pretended_plugin`: all tests see the pretended CUDA device, so those marked `gpu` run too."""

from collections.abc import Generator

import pytest

try:
    import pretended_cuda

    missing = None
except RuntimeError as error:  # `pretended_cuda.hooks.CannotPretendError`, which nothing can import then
    missing = str(error)

RECORD = pytest.StashKey["pretended_cuda.Record"]()


def pytest_configure(config: pytest.Config) -> None:
    """Ends at once, and well, where no device can be pretended."""
    config.addinivalue_line("markers", "unmeasured: asks for no bytes, FLOPs or memory of the device, and is quicker")
    if missing is not None:
        pytest.exit(f"the tests on a pretended CUDA device are skipped: {missing}", returncode=0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Gives each test a record of its own."""
    measures = item.get_closest_marker("unmeasured") is None and item.get_closest_marker("gpu") is None
    with pretended_cuda.recording(measures=measures) as record:
        item.stash[RECORD] = record
        try:
            return (yield)
        finally:
            pretended_cuda.Device.transfers.under_way.clear()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> "pretended_cuda.Record":
    """What the test has asked of the device so far."""
    return request.node.stash[RECORD]


@pytest.fixture(autouse=True)
def _flex_attention_never_gives_way(monkeypatch):
    from patchpad.model import flex_attention

    monkeypatch.setattr(flex_attention, "_has_given_up", False)
    yield
    assert not flex_attention.has_given_up()
