"""From a formula and its data to a run of a program."""
