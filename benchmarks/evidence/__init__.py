"""How often the evidence is wrong, and how long it takes to be right."""
