"""Times of pylazy beside its peers, and their pictures."""
