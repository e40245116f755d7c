"""A TCP proxy that does to connections what networks do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CHUNK_BYTES = 65_536


@dataclass(kw_only=True)
class FaultProxy:
    """Stands before a server, a socket file or HOST:PORT; each fault lasts until it is taken back.

    `delay_seconds` holds every chunk up, `bytes_per_second` throttles, `is_black_hole` swallows
    what comes from either side and lets nobody know. For faults of a moment see `cut` and
    `half_close`. Of HTTP, so many of the next: `errors` requests are answered 503 and not passed
    on, `lost` answers are cut off though the server did its work, `truncated` answers break off
    in the middle, `headless` ones in their headers.
    """

    target: str
    errors: int = 0
    lost: int = 0
    truncated: int = 0
    headless: int = 0
    port: int = 0
    delay_seconds: float = 0.0
    bytes_per_second: float = float("inf")
    is_black_hole: bool = False
    is_refusing: bool = False
    _pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def cut(self) -> None:
        """Reset every connection there is."""
        self._on_loop(lambda: [w.transport.abort() for pair in self._pairs for w in pair])

    def half_close(self) -> None:
        """End what the server hears, and leave the other way open."""
        self._on_loop(lambda: [server.write_eof() for _, server in self._pairs])

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Serve in a thread of its own while the context lasts."""
        thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        thread.start()
        made = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.port = made.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._on_loop(made.close)
            self.cut()
            asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def _on_loop(self, call: object) -> None:
        async def called() -> None:
            assert callable(call)
            call()

        asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    async def _ended(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_refusing:
            writer.transport.abort()
            return
        if self.errors > 0:
            self.errors -= 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await writer.drain()
            writer.close()
            return
        from_server, to_server = await self._connected()
        pair = (writer, to_server)
        self._pairs.add(pair)
        try:
            back = self._pass(from_server, writer, is_answer=True)
            await asyncio.gather(self._pass(reader, to_server), back)
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, colon, port = self.target.rpartition(":")
        if colon and port.isdecimal():
            return await asyncio.open_connection(host, int(port))
        return await asyncio.open_unix_connection(self.target)

    def _spoilt(self, chunk: bytes) -> bytes | None:
        """What of an answer comes through; None where all of it does."""
        if chunk.startswith(b"HTTP/1.1 100"):
            return None
        if self.lost > 0:
            self.lost -= 1
            return b""
        if self.headless > 0 and (end := chunk.find(b"\r\n\r\n")) >= 0:
            self.headless -= 1
            return chunk[:end]
        if self.truncated > 0 and len(chunk) > 1:
            self.truncated -= 1
            return chunk[: len(chunk) - 1]
        return None

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        while True:
            try:
                chunk = await source.read(CHUNK_BYTES)
            except ConnectionError:
                chunk = b""
            if not chunk:
                sink.transport.abort()  # a server that ends a session ends both ways
                return
            if self.is_black_hole:
                continue
            if is_answer and (part := self._spoilt(chunk)) is not None:
                sink.write(part)
                with suppress(ConnectionError):
                    await sink.drain()
                sink.close()
                return
            await asyncio.sleep(self.delay_seconds + len(chunk) / self.bytes_per_second)
            sink.write(chunk)
