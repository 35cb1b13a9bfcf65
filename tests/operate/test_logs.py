"""Logs are JSON, say which run and tile they are about, and never hold a secret, wherever it stood."""

from __future__ import annotations

import io
import json
import logging
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.errors import JobError
from earthmap.operate.logs import bound, log_progress, logging_as_asked, logging_to
from earthmap.operate.redaction import MASK, Redactor
from earthmap.pipeline import Progress

LOGGER = logging.getLogger("earthmap.tests")

SECRETS = st.text("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789", min_size=12, max_size=40).map(
    lambda text: f"Zq9{text}"
)
NAMES = st.sampled_from(
    [
        "token", "password", "AWS_SECRET_ACCESS_KEY", "aws_session_token", "Authorization", "x-api-key", "api_key",
        "X-Amz-Signature", "sig", "cookie", "Set-Cookie", "subscription_key", "client_secret", "EARTHMAP_TOKEN",
        "db.passwd", "auth", "clientSecret", "accessKey",
    ]
)  # fmt: skip


def _logged(log: Callable[[], object], redactor: Redactor | None = None) -> list[dict[str, Any]]:
    stream = io.StringIO()
    with logging_to(stream, level=logging.DEBUG, redactor=redactor or Redactor()):
        log()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


FORMS: tuple[Callable[[str, str], str], ...] = (
    lambda name, secret: f"https://data.example.org/a/b.tif?se=2026-11-21&sig={secret}&x=1",
    lambda name, secret: f"read of /vsicurl/https://h.org/a.tif?{secret} failed",
    lambda name, secret: f"GET http://anna:{secret}@proxy.example.org:3128/ 407",
    lambda name, secret: f"proxy http://anna:p/{secret}@h".replace("p/", ""),
    lambda name, secret: f"> Authorization: Bearer {secret}",
    lambda name, secret: f"Authorization: AWS4-HMAC-SHA256 Credential={secret}/2026, Signature={secret}\nnext",
    lambda name, secret: f"Cookie: a=1; session={secret}",
    lambda name, secret: f"{name}={secret}",
    lambda name, secret: f"{name}: {secret}, and more",
    lambda name, secret: json.dumps({"a": {name: secret}}),
    lambda name, secret: json.dumps(json.dumps({name: secret})),
    lambda name, secret: repr({name: secret}),
    lambda name, secret: f"curl -H 'bearer {secret}'",
    lambda name, secret: f"export {name}='{secret}'",
    lambda name, secret: f"next=https%3A%2F%2Fh%2Fa%3F{name}%3D{secret}",
    lambda name, secret: f"s3://bucket/key?X-Amz-Credential={secret}#frag",
    lambda name, secret: f"-----BEGIN RSA PRIVATE KEY-----\n{secret}\n{secret}",
)

TEXTS = st.builds(lambda form, name, secret: (form(name, secret), secret), st.sampled_from(FORMS), NAMES, SECRETS)
NAMED = st.builds(lambda name, secret: ({name: secret}, secret), NAMES, SECRETS)
LISTED = st.builds(lambda name, secret: ({name: ["x", {"y": secret}]}, secret), NAMES, SECRETS)


def _nest(value: Any, ways: list[str]) -> Any:
    for way in ways:
        value = {
            "list": [1, value], "tuple": (value, None), "dict": {"a": 1.5, "b": value}, "json": {"deep": [value]},
        }[way]  # fmt: skip
    return value


@settings(max_examples=500)
@given(
    st.one_of(TEXTS, NAMED, LISTED),
    st.lists(st.sampled_from(["list", "tuple", "dict", "json"]), max_size=5),
    st.sampled_from(["extra", "bound", "argument", "message", "exception"]),
)
def test_no_secret_comes_out_of_any_nesting(drawn: tuple[Any, str], ways: list[str], where: str) -> None:
    content, secret = drawn
    value = _nest(content, ways)

    def log() -> None:
        if where == "extra":
            LOGGER.info("event", extra={"value": value})
        elif where == "bound":
            with bound({"value": value}):
                LOGGER.info("event")
        elif where == "argument":
            LOGGER.info("said %s of %s", value, "it")
        elif where == "message":
            LOGGER.info(value)
        else:
            try:
                raise OSError(value)
            except OSError:
                LOGGER.exception("failed")

    lines = _logged(log)
    assert len(lines) == 1
    assert secret not in json.dumps(lines)


@given(st.text(min_size=6, max_size=30).filter(lambda text: text.strip() == text), st.text(max_size=10))
def test_what_the_environment_keeps_secret_comes_out_nowhere(secret: str, other: str) -> None:
    redactor = Redactor.of_environment({"AWS_SECRET_ACCESS_KEY": secret, "HOME": "/home/anna"})
    for text in (f"{other}{secret}{other}", f"{other}/{quote(secret, safe='')}/"):
        assert secret not in redactor.text(text).replace(MASK, "")
    said = json.dumps(redactor({"a": [f"x{secret}"], f"k{secret}": b"y" + secret.encode("utf-8", "replace")}))
    assert MASK in said


def test_proxies_and_headers_of_the_environment_are_known() -> None:
    environment = {
        "https_proxy": "http://anna:pa%24s-word@proxy:3128",
        "EARTHMAP_HEADERS": "X-One: value-one\nX-Two: value-two",
        "EARTHMAP_TOKEN": "tttoken1",
        "PATH": "/usr/bin:/usr/local/bin",
    }
    redactor = Redactor.of_environment(environment)
    said = redactor("pa%24s-word pa$s-word value-one value-two tttoken1 /usr/bin:/usr/local/bin")
    assert said == f"{MASK} {MASK} {MASK} {MASK} {MASK} /usr/bin:/usr/local/bin"
    assert redactor({"n": 1234567})["n"] == 1234567
    assert Redactor(["1234567"])({"n": 1234567})["n"] == MASK


def test_folders_of_the_environment_are_no_secrets(tmp_path: Path) -> None:
    redactor = Redactor.of_environment({"PWD": str(tmp_path), "SSH_AUTH_SOCK": str(tmp_path), "MY_TOKEN": "/not/there"})
    assert redactor(f"{tmp_path}/runs of /not/there") == f"{tmp_path}/runs of {MASK}"


def test_what_is_no_secret_stays() -> None:
    plain = {
        "event": "waited 30 s for data.example.org, which refused or did not answer",
        "cell": "utm0-33N-10-384-12-9",
        "tokens": 5400,
        "max_tokens": 16,
        "href": "https://data.example.org/S2B_20240607/B04.tif",
        "message": "there is no Ray cluster at 10.0.0.1:6379: refused; to fix: start one",
        "share": 0.25,
        "none": None,
        "yes": True,
        "design": "signature-free",
    }
    assert Redactor()(plain) == plain


def test_lines_are_whole_whatever_they_say() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    loop: list[Any] = []
    loop += [loop, loop]

    def log() -> None:
        LOGGER.info('two\nlines "quoted" \ud800 \x00')
        LOGGER.info("%d tiles", "many")
        LOGGER.info("odd", extra={"x": math.nan, "y": {1: math.inf}, "z": Broken(), "loop": loop, "b": b"\xff"})

    lines = _logged(log)
    assert [line["level"] for line in lines] == ["info"] * 3
    assert lines[0]["event"].startswith("two\nlines")
    assert "do not fit" in lines[1]["event"]


def test_a_long_line_takes_no_time() -> None:
    redactor = Redactor(["hunter22"])
    parts = ("a", "token", "http://", "a.-", "eyJ", "\\", "token=[", "Bearer ", "://@?", "-----BEGIN ", "'\\", "sig\\")
    for text in (part * (60_000 // len(part)) + '"' for part in parts):
        started = time.process_time()
        redactor.text(text)
        assert time.process_time() - started < 2.0


def test_run_and_cell_are_told_and_libraries_are_heard() -> None:
    apart = logging.getLogger("library.apart")
    apart.propagate = False
    progress = Progress(cells=1, tiles=16, tiles_planned=32, km2=1.0, failed=2, cell_id="cell-7", execution=2)

    def log() -> None:
        with bound({"run": "runs/valley"}):
            log_progress(progress)
            logging.getLogger("urllib3").warning("Retrying https://h/a?sig=abc")
        apart.warning("apart")
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        lines = _logged(log)
    first, retried, alone, old = lines
    assert (first["run"], first["execution"], first["cell"], first["failed"]) == ("runs/valley", 2, "cell-7", 2)
    assert first["event"] == "cell done"
    assert first["time"].endswith("Z")
    assert retried["event"] == "Retrying https://h/a?***"
    assert alone["logger"] == "library.apart"
    assert "run" not in alone
    assert "DeprecationWarning" in old["event"]
    apart.propagate = True


def test_logging_ends_as_it_began() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    _logged(lambda: None)
    assert (root.handlers, root.level) == before


def test_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARTHMAP_LOG", raising=False)
    stream = io.StringIO()
    with logging_as_asked(stream) as on:
        assert not on
    monkeypatch.setenv("EARTHMAP_LOG", "warning")
    with logging_as_asked(stream) as on:
        assert on
        LOGGER.info("not told")
        LOGGER.warning("told")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["told"]
    monkeypatch.setenv("EARTHMAP_LOG", "loud")
    with pytest.raises(JobError, match="EARTHMAP_LOG"), logging_as_asked(stream):
        pass
