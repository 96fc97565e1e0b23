"""The page of an inspection in a browser."""

from contextlib import contextmanager

import pytest

from patchpad.inspection.page import write_page


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of an inspection; at the end the console must be empty, and nothing was asked for."""

    @contextmanager
    def open_page(inspection, *, fragment="", **options):
        path = tmp_path / "page.html"
        write_page(path, inspection, name="a.txt")
        page = browser.open(path.as_uri() + fragment, **options)
        try:
            page.wait_for("document.documentElement.dataset.ready || null")
            yield page
            assert page.messages == []
            assert [request.partition("#")[0] for request in page.requests] == [path.as_uri()]
        finally:
            page.close()

    return open_page
