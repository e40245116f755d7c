"""What alerts do, and whether the tests of their rules notice one that is spoilt."""
