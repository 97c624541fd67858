"""The errors that pylazy raises."""


class PylazyError(Exception):
    """Base of all errors of pylazy."""


class ShapeError(PylazyError, ValueError):
    """Sizes that do not fit together."""


class DtypeError(PylazyError, TypeError):
    """An element type that is unknown, or types that do not fit together."""


class DeviceError(PylazyError, ValueError):
    """Arrays that live on different devices, or on one that cannot be used; or a device that fails."""


class AxisError(PylazyError, ValueError):
    """An axis that the array or the formula does not have."""


class FormulaError(PylazyError, ValueError):
    """A text that is no formula, or no declaration of a variable."""


class NonFiniteError(PylazyError, ValueError):
    """NaN or infinity where only finite numbers have a meaning."""


class UnsupportedError(PylazyError, NotImplementedError):
    """An operation that the chosen target does not have."""


class CompileError(PylazyError):
    """A module that cannot be compiled."""


class InternalError(PylazyError):
    """A fault of pylazy itself."""


class KernelFormatError(PylazyError, ValueError):
    """Bytes that are not a kernel image."""


class BundleFormatError(PylazyError, ValueError):
    """Bytes that are not a bundle, or a file that breaks a rule of the format."""


class UntrustedBundleError(PylazyError, PermissionError):
    """A bundle that other users may have written; it holds machine code."""
