"""Allocators: one file a strategy."""
