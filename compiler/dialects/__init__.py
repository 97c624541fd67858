"""The dialects that pylazy defines."""
