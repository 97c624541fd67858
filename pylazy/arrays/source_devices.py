"""The one device, and the one library, that the arrays of a formula are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.arrays.sources import DEVICE, NUMBER, NUMPY, OF_OTHER_LIBRARIES, TORCH, Source
from pylazy.runtime.errors import DeviceError, DtypeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.gpu.places import Place
    from pylazy.options import Backend


def check_devices(sources: Sequence[Source]) -> str:
    """Say of which kind the results are, and check that all data lies on one device.

    Raises:
        DeviceError: the arrays lie on different devices, or on one that is neither the CPU nor a GPU of NVIDIA.
        DtypeError: the arrays are of two libraries besides NumPy.
    """
    kind = NUMPY
    for source in sources:
        own = source.kind
        if own == TORCH:
            if kind in OF_OTHER_LIBRARIES:
                _refuse_libraries(sources)
            kind = TORCH
            if not source.array.is_cpu:
                check_one_device(sources)
        elif own in OF_OTHER_LIBRARIES:
            if kind == TORCH or (kind != NUMPY and len(_libraries(sources)) > 1):
                _refuse_libraries(sources)
            if own == DEVICE:
                check_one_device(sources)
            kind = own
    return kind


def place_of(kind: str, sources: Sequence[Source], backend: Backend | None) -> Place | None:
    """Choose the GPU that a reduction runs on; None for the CPU.

    Args:
        kind: what `check_devices` says.
        sources: the inputs.
        backend: what the user asks for, if anything.

    Raises:
        DeviceError: the GPU is not there, or the arrays do not lie where the user asks the reduction to run.
    """
    if kind == TORCH:
        for source in sources:
            if source.kind == TORCH:
                if source.array.is_cuda:
                    from pylazy.gpu.torch_place import TorchPlace

                    return TorchPlace.of(source.array.device, backend)
                if source.array.ndim:  # a number of the host may stand before tensors of a GPU
                    break
    if kind == DEVICE:
        from pylazy.gpu.library_places import place_of_library

        return place_of_library(sources, backend)
    if backend is not None and backend.name == "GPU":
        from pylazy.gpu.places import place_of_host_arrays

        return place_of_host_arrays(kind, backend)
    return None


def _libraries(sources: Sequence[Source]) -> dict[str, Any]:
    """The namespaces of arrays that are neither NumPy's nor torch's, by name.

    One that records what is done with arrays of a library, for a derivative, takes the place of that library.
    """
    found = [source.imported.namespace for source in sources if source.imported is not None]
    recorded = [namespace.library for namespace in found if hasattr(namespace, "record")]
    kept = [namespace for namespace in found if namespace not in recorded]
    return {getattr(namespace, "__name__", str(namespace)): namespace for namespace in kept}


def _refuse_libraries(sources: Sequence[Source]) -> None:
    names = [*_libraries(sources), *(["torch"] if any(source.kind == TORCH for source in sources) else [])]
    raise DtypeError(
        at_user_line(
            f"the arrays of this formula are of {' and '.join(sorted(names))}, expected one library besides NumPy: "
            "convert them, as by numpy.from_dlpack"
        )
    )


def library_of(sources: Sequence[Source]) -> Any:
    """The namespace of the arrays that are neither NumPy's nor torch's, of which there are some."""
    (namespace,) = _libraries(sources).values()
    return namespace


def recorder_of(kind: str, sources: Sequence[Source]) -> Any | None:
    """What records reductions of these arrays, in a function that is differentiated; see `pylazy.differentiation`.

    Args:
        kind: what `check_devices` says.
        sources: the inputs.
    """
    if kind not in OF_OTHER_LIBRARIES:
        return None
    library = library_of(sources)
    return library if hasattr(library, "record") else None


def check_one_device(sources: Sequence[Source]) -> None:
    """Check that the arrays lie on one GPU, and none beside them on the host, but for single numbers and lists.

    Raises:
        DeviceError: they do not; the message names the devices.
    """
    devices = {_device_name(source) for source in sources if source.kind != NUMBER and not _is_constant(source)}
    names = " and ".join(sorted(devices))
    if len(devices) > 1:
        raise DeviceError(
            at_user_line(
                f"the arrays of this formula lie on the devices {names}, expected one: move them together, as by x.to()"
            )
        )
    if not names.startswith("cuda"):
        raise DeviceError(
            at_user_line(
                f"the arrays of this formula lie on the device {names}, expected cpu or cuda: move them, as by x.cpu()"
            )
        )


def _device_name(source: Source) -> str:
    if source.kind == TORCH:
        return str(source.array.device)
    return f"cuda:{source.imported.device}" if source.kind == DEVICE and source.imported is not None else "cpu"


def _is_constant(source: Source) -> bool:
    """Whether this is a list or a number of the host, which is copied to the device of the arrays that it meets."""
    if source.kind == TORCH:
        return bool(source.weak and source.array.is_cpu and source.array.ndim == 0)
    return source.kind == NUMPY and source.weak
