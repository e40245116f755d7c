"""The week's maintenance: its tasks, who runs them, and what they do."""
