"""How orders, candles and trade logs reach the outside world."""
