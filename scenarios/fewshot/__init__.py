"""Few-shot protocols: many small tasks instead of one stream, as the papers on meta-learning do."""
