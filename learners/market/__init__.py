"""Candles: loading and validation."""
