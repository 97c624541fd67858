"""Importing this package makes `import pykeops` give pylazy.

`python -m pylazy.compat.keops script.py` does the same for a script that is left as it is. `finder.py` says which file
stands in for which module of pykeops, and the files beside it hold their names.
"""

from pylazy.compat.keops.finder import install

install()
