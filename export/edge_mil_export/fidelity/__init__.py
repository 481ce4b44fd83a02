"""How far an exported extractor moves slide scores: bags, measures, the report of a bundle."""
