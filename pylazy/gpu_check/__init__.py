"""The check of a GPU: every result against an oracle, and speed against a bound."""
