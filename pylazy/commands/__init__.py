"""What the subcommands of `pylazy` do; the command line itself is `pylazy.cli`."""
