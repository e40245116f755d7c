"""Pure decisions and values: standard library, numpy and scipy only."""
