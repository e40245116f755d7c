"""Commands of the terminal: parse, call one function, print."""
