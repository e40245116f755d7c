"""Claims about the monitor's numbers."""
