"""Ahead-of-time export: reductions are compiled for several machines into one file."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING

from pylazy.bundling.bundle_compiler import DEFAULT_TARGETS, check_targets, compile_parts
from pylazy.bundling.bundle_parts import part_of
from pylazy.runtime.bundle import BundleFile, save_bundle, sign_bundle
from pylazy.runtime.errors import UnsupportedError
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from pylazy.bundling.bundle_parts import Part
    from pylazy.genred import Genred

__all__ = ["DEFAULT_TARGETS", "Bundle"]

_CALL_KEYWORDS = ("out", "ranges", "backend", "device_id")


class Bundle:
    """Reductions to compile ahead of time.

    For example::

        bundle = pylazy.Bundle()
        bundle.add((K * Vj(b)).sum(axis=1, call=False), name="gaussian", arguments=("x", "y", "b"))
        bundle.compile(targets=["x86-64", "x86-64-v3", "aarch64", "sm_80"])
        bundle.save("k.plzb")
    """

    def __init__(self) -> None:
        """Make an empty bundle."""
        self._parts: dict[str, Part] = {}
        self._data: bytes | None = None

    def add(
        self,
        reduction: Reduction | Genred,
        *,
        name: str,
        gradients: bool = True,
        arguments: Sequence[str] | None = None,
        dtype: str | None = None,
        ranged: bool = False,
    ) -> None:
        """Add a reduction; its arrays say only which axes, dtype and inner dimension the arguments have.

        Args:
            reduction: what a method of `LazyTensor` gives with `call=False`, or with symbolic variables; or a `Genred`.
            name: of the function, a Python identifier.
            gradients: compile gradients too, where the reduction has them, with respect to every array.
            arguments: names of the arrays, in the order in which the formula first uses them, of symbolic variables in
                the order of their indices; by default x0, y1, p2 and so on, by axis and place. Numbers get such names
                in any case, and the bundle keeps their values. A complex array is one argument.
            dtype: "float32" or "float64" for symbolic variables, by default float64; else that of the arrays, where
                16-bit floats count as float32: the function reads them, and gives float32.
            ranged: a call of the function brings `ranges`, for a reduction with symbolic variables or a `Genred`; one
                that was made with ranges needs no word.

        Raises:
            UnsupportedError: the name is taken or no identifier, the names do not fit the arrays, or this is no
                reduction.
        """
        part = part_of(reduction, name=name, gradients=gradients, arguments=arguments, dtype=dtype, ranged=ranged)
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__") or not name.isascii():
            raise UnsupportedError(at_user_line(f"name is {name!r}, expected an ASCII identifier of Python"))
        if name in self._parts:
            raise UnsupportedError(at_user_line(f"the bundle has a function {name!r} already: choose another name"))
        for argument in part.arguments:
            if argument.name in _CALL_KEYWORDS:
                raise UnsupportedError(
                    at_user_line(
                        f"an argument is called {argument.name!r}, a keyword of every call: choose another name"
                    )
                )
        self._parts[name] = part
        self._data = None

    def compile(
        self,
        targets: Sequence[str] = DEFAULT_TARGETS,
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Bundle:
        """Compile everything for some targets; needs none of these machines.

        Args:
            targets: CPU levels ("x86-64", "x86-64-v3", "x86-64-v4", "aarch64") and GPUs ("sm_80"). For each of these
                there is PTX, and a cubin where ptxas or nvJitLink is installed, in the packages nvidia-cuda-nvcc and
                nvidia-nvjitlink; besides PTX for the oldest, which drivers compile for every other GPU.
            progress: called with a kernel and target, the number of compilations done, and of all.

        Returns:
            This bundle.

        Raises:
            UnsupportedError: there is nothing to compile, or no such target.
            CompileError: a formula cannot be compiled.
        """
        if not self._parts:
            raise UnsupportedError(at_user_line("the bundle is empty, expected at least one reduction: use add"))
        check_targets(targets)
        self._data = compile_parts(tuple(self._parts.values()), tuple(dict.fromkeys(targets)), progress)
        return self

    def to_bytes(self) -> bytes:
        """The file: the same bytes for the same formulas, targets and versions.

        Raises:
            UnsupportedError: nothing is compiled yet.
        """
        if self._data is None:
            raise UnsupportedError(at_user_line("the bundle is not compiled, expected compile(targets=...) before"))
        return self._data

    def save(self, path: str | os.PathLike[str], *, private_key: str | os.PathLike[str] | None = None) -> str:
        """Write the file, which other users may read and not change.

        Args:
            path: the file.
            private_key: a file with an Ed25519 private key in PEM, to sign the bundle: the signature lies beside it,
                with ".sig" after its name.

        Returns:
            Its SHA-256, for `load_bundle(path, sha256=...)`.

        Raises:
            UnsupportedError: nothing is compiled yet, or the key cannot be used.
        """
        data = self.to_bytes()
        save_bundle(path, data)
        if private_key is not None:
            sign_bundle(path, private_key)
        return BundleFile(data).sha256

    def reductions(self) -> dict[str, Reduction]:
        """The reductions by the names of their functions, on arrays of the kinds that they were added with."""
        return {name: Reduction(part.job, None, single=len(part.job.wanted) == 1) for name, part in self._parts.items()}

    def __repr__(self) -> str:
        state = f"{len(self._data)} bytes" if self._data is not None else "not compiled"
        return f"<Bundle of {', '.join(self._parts) or 'nothing'}, {state}>"
