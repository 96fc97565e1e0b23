"""Who may ask: keys, hosts and origins; and what logs never hold."""

import logging
import os

import pytest

from patchpad.errors import ConfigError
from patchpad.serving.security import is_loopback, others_can_read, read_keys

KEY, OTHER = "k" * 16, "another-key-of-many-letters"
GATED = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/metrics"),
    ("GET", "/tokenizer_info"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/playground/next-byte"),
    ("POST", "/playground/marks"),
    ("GET", "/nothing"),
    ("POST", "/"),
    ("POST", "/health"),
]


@pytest.fixture(scope="module")
def gated(serve):
    with serve(api_keys=(KEY.encode(), OTHER.encode())) as server:
        yield server


@pytest.mark.parametrize(("method", "path"), GATED)
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer \xff"]
)
def test_without_a_key_there_is_no_answer(gated, method, path, header):
    headers = {} if header is None else {"Authorization": header}
    reply = gated.ask(method, path, {} if method == "POST" else None, headers)
    assert reply.status == 401
    assert reply.error["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"
    assert KEY not in reply.body.decode()


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_each_key_opens(gated, key):
    headers = {"Authorization": f"Bearer {key}"}
    assert gated.ask("GET", "/v1/models", headers=headers).status == 200
    assert gated.post("/v1/completions", headers, prompt="a", max_tokens=1).status == 200


def test_health_needs_no_key(gated):
    assert gated.ask("GET", "/health").json == {"status": "ok"}


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "192.168.0.7", "proxy.example"]
)
def test_hosts_that_are_this_server_are_answered(serve, host):
    with serve(allowed_hosts=("proxy.example",)) as server:
        assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8000", "a@localhost", "[::1]x", "", "a b"]
)
def test_hosts_that_are_not_are_refused(served, host):
    reply = served.ask("GET", "/v1/models", headers={"Host": host})
    assert reply.status in (400, 403)
    assert "host" in reply.error["message"].lower()


def test_pages_of_other_sites_are_refused_and_the_own_page_is_not(served):
    own = f"127.0.0.1:{served.port}"
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{served.port + 1}",
        "file://",
        f"ftp://{own}",
        "[",
        "",
    ):
        reply = served.ask("POST", "/v1/completions", {"prompt": "a"}, {"Origin": origin})
        assert reply.status == 403, origin
        assert reply.error["code"] == "bad_origin"
    for scheme in ("http", "https"):
        reply = served.post("/v1/completions", {"Origin": f"{scheme}://{own}"}, prompt="a", max_tokens=1)
        assert reply.status == 200


def test_no_page_of_another_site_may_read_answers(served):
    for method, path in (("OPTIONS", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/nothing")):
        reply = served.ask(method, path)
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["cache-control"] == "no-store"


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n\n  {OTHER}\n")
    monkeypatch.delenv("PATCHPAD_API_KEY", raising=False)
    assert read_keys(None) == ()
    assert read_keys(file) == (KEY.encode(), OTHER.encode())
    monkeypatch.setenv("PATCHPAD_API_KEY", OTHER)
    assert read_keys(None) == (OTHER.encode(),)
    assert read_keys(file) == (KEY.encode(), OTHER.encode())


@pytest.mark.parametrize("text", ["", "\n \n", "short", "a key with spaces in it", "schlüssel-mit-umlaut-drin"])
def test_keys_that_are_none_are_refused_and_not_shown(tmp_path, monkeypatch, text):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match="allowed: ") as refused:
        read_keys(file)
    assert not text.strip() or text.strip() not in str(refused.value)
    monkeypatch.setenv("PATCHPAD_API_KEY", text)
    with pytest.raises(ConfigError, match="the variable PATCHPAD_API_KEY"):
        read_keys(None)


def test_a_file_of_keys_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_keys(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_of_keys_that_others_can_read_is_noticed(tmp_path):
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o644)
    assert others_can_read(file)
    file.chmod(0o600)
    assert not others_can_read(file)


def test_loopback_is_told_from_other_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "example.org")))


@pytest.mark.parametrize("log_requests", [False, True])
def test_logs_hold_no_prompt_no_path_and_no_key(serve, caplog, monkeypatch, log_requests):
    def fail(*_):
        raise RuntimeError("secret-prompt")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("patchpad.serving.app.detokenize", fail)
    with serve(api_keys=(KEY.encode(),), log_requests=log_requests) as server:
        headers = {"Authorization": f"Bearer {KEY}"}
        server.post("/v1/completions", headers, prompt="secret-prompt", max_tokens=2)
        server.ask("GET", "/secret-path?secret-query", headers=headers)
        server.ask("GET", "/v1/models/secret-model", headers=headers)
        failed = server.post("/detokenize", headers, tokens=[1])
    assert failed.status == 500
    assert failed.error["code"] == "internal_error"
    assert "secret" not in failed.body.decode()
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "a request failed with RuntimeError in " in text
    assert "secret" not in text
    assert KEY not in text
    assert ("/v1/completions 200" in text) == log_requests
