"""A folder over HTTP with byte ranges, a delay before each answer and a share of faults: a far archive on the loopback.

    python jobs/range_server.py FOLDER --delay 0.05 --faults 0.05

Prints its port, then serves until its standard input ends. One thread that never waits: it answers thousands of
requests a second, where a thread for each connection would take the cores from those who are measured. Only the last
part of a path counts, so that /a/B04.tif and /b/B04.tif are the same file to the server and two to every cache.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class RangeServer:
    """What is served, and how badly."""

    files: dict[str, bytes]
    delay_s: float = 0.0
    """Before each answer."""
    faults: float = 0.0
    """Share of the answers that are a 503 or a reset connection, in turns."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    faulty: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive until the client closes it or a fault does."""
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(self.delay_s)
                if self.chance.random() < self.faults:
                    self.faulty += 1
                    if self.faulty % 2:
                        writer.transport.abort()
                        return
                    writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
                else:
                    writer.writelines(self.answer(request.decode("latin-1")))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        finally:
            writer.close()

    def answer(self, request: str) -> list[bytes]:
        """Head and body of the answer to one request."""
        method, path = request.split(" ", 2)[:2]
        data = self.files.get(path.partition("?")[0].rpartition("/")[2])
        if data is None:
            return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
        status, extra, start, end = "200 OK", "", 0, len(data)
        wanted = re.search(r"\r\nrange: *bytes=(\d*)-(\d*)\r\n", request, re.IGNORECASE)
        if wanted and any(wanted.groups()):
            start = int(wanted[1]) if wanted[1] else max(0, len(data) - int(wanted[2]))
            end = min(int(wanted[2]) + 1, len(data)) if wanted[1] and wanted[2] else len(data)
            status, extra = "206 Partial Content", f"Content-Range: bytes {start}-{end - 1}/{len(data)}\r\n"
        head = f"HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Type: image/tiff\r\n{extra}"
        body = b"" if method == "HEAD" else data[start:end]
        return [f"{head}Content-Length: {end - start}\r\n\r\n".encode(), body]


async def _run(server: RangeServer) -> None:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    listening.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--faults", type=float, default=0.0, help="share of answers that are none")
    options = parser.parse_args(arguments)
    files = {path.name: path.read_bytes() for path in options.folder.iterdir() if path.is_file()}
    asyncio.run(_run(RangeServer(files, options.delay, options.faults)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
