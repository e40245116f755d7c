"""Whether the tests of the alert rules notice a rule that is spoilt."""
