"""Claims about how challengers are made and measured."""
