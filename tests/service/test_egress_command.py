"""`earthmap egress` serves until it is asked to end, and says beforehand what a run would be told."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from earthmap.cli import main


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
        (["--host", "192.0.2.1", "--port", "0"], 2, "cannot listen on 192.0.2.1:0"),
    ],
)
def test_what_is_said(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", *words]) == code
    told = capsys.readouterr()
    assert said in " ".join((told.out + told.err).split())
