"""How often the evidence is wrong, and how long it takes to be right."""
"""What the statistics promise, measured on seeded markets whose truth is known."""
