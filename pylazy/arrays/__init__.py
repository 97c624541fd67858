"""The users' arrays: what they are, where they lie, and results like them."""
