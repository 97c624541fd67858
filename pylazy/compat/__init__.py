"""Names of other libraries on top of pylazy."""
