"""Configuration of lit; pytest runs the same files in-process, in tests/test_lit.py."""

import os
import sys

import lit.formats

config.name = "pylazy"  # noqa: F821 (lit defines it)
config.test_format = lit.formats.ShTest(execute_external=False)  # noqa: F821
config.suffixes = [".mlir"]  # noqa: F821
config.test_source_root = os.path.dirname(os.path.abspath(__file__))  # noqa: F821
config.environment["PYTHONPATH"] = os.path.dirname(config.test_source_root)  # noqa: F821
config.substitutions += [  # noqa: F821
    ("pylazy-opt", f"{sys.executable} -m pylazy.compiler.opt"),
    (r"\bfilecheck\b", f"{sys.executable} -c 'from filecheck.main import main; main()'"),
]
