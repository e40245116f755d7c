"""Makes challengers, and reads the market data they are made from."""
