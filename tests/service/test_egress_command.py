"""`earthmap egress` serves until it is asked to end, and says beforehand what a run would be told."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from earthmap.cli import main
from earthmap.errors import JobError
from earthmap.service.egress_rules import EgressRules, make_rules


def test_it_serves_until_it_is_asked_to_end() -> None:
    command = [sys.executable, "-m", "earthmap.cli", "egress", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = urlsplit(process.stdout.readline().split()[-1])
            with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as client:
                client.sendall(b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 403")
        finally:
            process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(said.splitlines()[-1])["refused"] == {"not_public": 1}


def test_the_service_takes_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[EgressRules] = []
    monkeypatch.setattr("earthmap.service.serve.egress_thread", lambda rules, gate: _took(taken, rules))
    monkeypatch.setattr("earthmap.service.serve.refuse_open_doors", lambda cluster: None)
    words = ["serve", "--out", str(tmp_path), "--catalog", "inner=http://10.9.0.1:8080/v1", "--catalog", "own=c.json"]
    rules = ["--allow", "minio.inside.example:9000", "--allow-port", "8443", "--deny", "11.0.0.0/8", "--allow-http"]
    assert main([*words, *rules]) == 2
    (found,) = taken
    listed = ["minio.inside.example:9000", "10.9.0.1:8080"]
    assert found == make_rules(listed, ports=[443, 8443], plain_http=True, denied=["11.0.0.0/8"])
    assert main([*words, "--only-allowed"]) == 2
    assert taken[1] == make_rules(["10.9.0.1:8080"], public=False)


def _took(taken: list[EgressRules], rules: EgressRules) -> contextlib.AbstractContextManager[None]:
    taken.append(rules)
    raise JobError("as far as this test goes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--allow", "0.0.0.0/0"], "cannot be allowed"),
        (["--allow", "https://stac.example.org"], "cannot be allowed"),
        (["--allow", "stac.example.org:99999"], "cannot be allowed"),
        (["--deny", "stac.example.org"], "cannot be allowed or denied"),
        (["--deny", "::/0"], "cannot be allowed or denied"),
        (["--allow-port", "70000"], "not all ports"),
        (["--allow", "fd00:ec2::254"], "cannot be allowed"),
        (["--allow", "[fd00:ec2::254]"], "allowed in vain"),
        (["--deny", "10.0.0.0/8"], "10.9.0.1/32 is allowed in vain: it is denied"),  # the catalogue that is offered
    ],
)
def test_the_service_refuses_nonsense(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earthmap.service.serve.refuse_open_doors", lambda cluster: None)
    serving = ["serve", "--out", str(tmp_path), "--catalog", "inner=http://10.9.0.1:8080/v1"]
    assert main([*serving, *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--try", "https://8.8.8.8/a.tif"], 0, "a run may read"),
        (["--try", "s3://maps/a.tif", "--allow-bucket", "maps"], 0, "a run may read"),
        (["--try", "https://10.0.0.1/"], 2, "it is not a public address"),
        (["--try", "https://localhost/"], 2, "not_public"),
        (["--try", "file:///etc/passwd"], 2, "it is no https address"),
        (["--allow", "0.0.0.0/0"], 2, "cannot be allowed"),
        (["--allow-port", "0"], 2, "not all ports"),
        (["--allow", "169.254.169.254:80"], 2, "169.254.169.254/32 is allowed in vain: clouds hand out keys there"),
        (["--allow", "10.2.0.0/16:9000", "--deny", "10.0.0.0/8"], 2, "10.2.0.0/16 is allowed in vain: it is denied"),
        (["--deny", "inner.example"], 2, "cannot be allowed or denied"),
        (["--host", "192.0.2.1", "--port", "0"], 2, "cannot listen on 192.0.2.1:0"),
    ],
)
def test_what_is_said(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", *words]) == code
    told = capsys.readouterr()
    assert said in " ".join((told.out + told.err).split())
