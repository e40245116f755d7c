"""An exchange on this machine: Binance's public REST for one spot pair, with faults on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from learners.market.candles import Candles

PAIR = "BTC/USDT"
_SYMBOL = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "baseAssetPrecision": 8,
    "quoteAsset": "USDT",
    "quotePrecision": 8,
    "quoteAssetPrecision": 8,
    "orderTypes": ["LIMIT", "MARKET"],
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False,
    "permissions": ["SPOT"],
    "filters": [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": "0.01",
            "maxPrice": "1000000",
            "tickSize": "0.01",
        },
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
    ],
}


@dataclass
class FakeExchange:
    """The bars it gives, closed or not, the time it tells, and the faults of its next answers."""

    candles: Candles
    server_time: datetime
    page_bars: int = 1_000
    faults: list[int] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """What points ccxt's Binance here, and keeps it from asking for futures elsewhere."""
        return {
            "urls": {"api": {"public": f"http://127.0.0.1:{self.port}/api/v3"}},
            "options": {"fetchMarkets": {"types": ["spot"]}},
        }

    def pages(self) -> int:
        return sum(path == "/api/v3/klines" for path, _ in self.asked)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        self.asked.append((path, query))
        if self.faults:
            fault = self.faults.pop(0)
            return fault, {"code": -1003, "msg": "Too many requests."} if fault < 500 else {}
        match path:
            case "/api/v3/time":
                return 200, {"serverTime": round(self.server_time.timestamp() * 1000)}
            case "/api/v3/exchangeInfo":
                return 200, {"timezone": "UTC", "symbols": [_SYMBOL]}
            case "/api/v3/klines" if query["symbol"] == "BTCUSDT":
                return 200, self._klines(query)
        return 400, {"code": -1121, "msg": "Invalid symbol."}

    def _klines(self, query: dict[str, str]) -> list[list[Any]]:
        """As Binance: numbers as text, from `startTime` on, the bar that is not closed yet too."""
        opened = self.candles.opened_at.astype("datetime64[ms]").astype(np.int64)
        first = int(np.searchsorted(opened, int(query["startTime"])))
        bars = range(first, min(first + min(int(query["limit"]), self.page_bars), len(opened)))
        length = int(self.candles.interval.total_seconds() * 1000)
        columns = self.candles.numbers().values()
        return [
            [
                int(opened[bar]),
                *(str(float(values[bar])) for values in columns),
                int(opened[bar]) + length - 1,
                "0",
                1,
                "0",
                "0",
                "0",
            ]
            for bar in bars
        ]


@contextmanager
def serving(exchange: FakeExchange) -> Iterator[FakeExchange]:
    """Run the exchange on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, document = exchange.answer(parts.path, query)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    exchange.port = server.server_address[1]
    try:
        yield exchange
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
