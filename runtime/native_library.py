"""The C++ library: found, loaded once, with its functions declared."""

import ctypes
import os
import sys

from pylazy.runtime import errors
from pylazy.runtime.fork_lock import ForkLock

ABI_VERSION = 5

_lock = ForkLock()
_loaded: ctypes.CDLL | None = None


class CBuffer(ctypes.Structure):
    """`plz_buffer` of pylazy_runtime.h."""

    _fields_ = (
        ("role", ctypes.c_int32),
        ("axis", ctypes.c_int32),
        ("row_bytes", ctypes.c_int64),
        ("per_split", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class CPhase(ctypes.Structure):
    """`plz_phase` of pylazy_runtime.h."""

    _fields_ = (
        ("entry", ctypes.c_int64),
        ("rows_per_tile", ctypes.c_int64),
        ("max_columns_per_split", ctypes.c_int64),
        ("cost", ctypes.c_double),
        ("rows_axis", ctypes.c_int32),
        ("columns_axis", ctypes.c_int32),
        ("splittable", ctypes.c_int32),
        ("merges", ctypes.c_int32),
        ("tile_table", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class CGeometry(ctypes.Structure):
    """`plz_geometry` of pylazy_runtime.h."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("columns_per_split", ctypes.c_int64),
        ("splits", ctypes.c_int64),
        ("tiles", ctypes.c_int64),
    )


class CGpuProperties(ctypes.Structure):
    """`plz_gpu_properties` of pylazy_runtime.h."""

    _fields_ = (
        ("processors", ctypes.c_int32),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("clock_kilohertz", ctypes.c_int32),
        ("name", ctypes.c_char * 256),
    )


class CGpuKernel(ctypes.Structure):
    """`plz_gpu_kernel` of pylazy_runtime.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("rows_per_block", ctypes.c_int64),
        ("tile_columns", ctypes.c_int64),
        ("rows_axis", ctypes.c_int32),
        ("columns_axis", ctypes.c_int32),
        ("block_threads", ctypes.c_int32),
        ("blocks_per_processor", ctypes.c_int32),
        ("splittable", ctypes.c_int32),
        ("merges", ctypes.c_int32),
        ("tile_table", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class CGpuGeometry(ctypes.Structure):
    """`plz_gpu_geometry` of pylazy_runtime.h."""

    _fields_ = (
        ("row_blocks", ctypes.c_int64),
        ("split_blocks", ctypes.c_int64),
        ("columns_per_split", ctypes.c_int64),
        ("splits", ctypes.c_int64),
    )


class CGpuSizes(ctypes.Structure):
    """`plz_gpu_sizes` of pylazy_runtime.h; the arrays arrive as packed bytes."""

    _fields_ = (
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("tiles", ctypes.c_char_p),
        ("batch_sizes", ctypes.c_char_p),
        ("batch_strides", ctypes.c_char_p),
        ("batch_rank", ctypes.c_int32),
        ("processors", ctypes.c_int32),
    )


def native_library() -> ctypes.CDLL:
    """The library, loaded by the first call. Its calls release the GIL.

    Raises:
        InternalError: the library is missing, cannot be loaded, or is of another version of pylazy.
    """
    global _loaded
    if _loaded is not None:
        return _loaded
    with _lock.held():
        if _loaded is None:
            _loaded = _load(library_file_name())
        return _loaded


def library_file_name() -> str:
    """The name of the library's file on this system."""
    if sys.platform == "win32":
        return "libpylazy_runtime.dll"
    return "libpylazy_runtime.dylib" if sys.platform == "darwin" else "libpylazy_runtime.so"


def check(status: int) -> None:
    """Raise what a status of the library means, with the message that it left for this thread.

    Raises:
        MemoryError: PLZ_OUT_OF_MEMORY.
        UnsupportedError: PLZ_UNSUPPORTED.
        DeviceError: PLZ_NO_DEVICE and PLZ_DEVICE_ERROR.
        CompileError: PLZ_COMPILE_ERROR.
        InternalError: any other failure: the Python above passes only checked arguments.
    """
    if status == 0:
        return
    message = native_library().plz_last_error().decode(errors="replace")
    raise _ERRORS.get(status, errors.InternalError)(message)


_ERRORS: dict[int, type[Exception]] = {
    2: MemoryError,
    4: errors.UnsupportedError,
    5: errors.DeviceError,
    6: errors.DeviceError,
    7: errors.CompileError,
}


def _open(path: str) -> ctypes.CDLL:
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise errors.InternalError(
            f"the runtime library {name} is not beside {os.path.basename(__file__)}: build it with "
            "`pip install .` or, in a checkout, `pip install -e .` (needs a C++17 compiler)"
        )
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise errors.InternalError(
            f"the runtime library {name} cannot be loaded ({error}): build it again with `pip install .`"
        ) from error


def _load(file_name: str) -> ctypes.CDLL:
    path = os.path.join(os.path.dirname(__file__), file_name)  # pathlib takes 3 ms to import
    if os.path.isfile(path):  # nearly always; importlib.resources takes as long to import as all the rest
        library = _open(path)
    else:
        import importlib.resources

        resource = importlib.resources.files("pylazy.runtime").joinpath(file_name)
        with importlib.resources.as_file(resource) as extracted:
            library = _open(str(extracted))
    _declare(library)
    found = library.plz_abi_version()
    if found != ABI_VERSION:
        raise errors.InternalError(
            f"the runtime library {file_name} has interface version {found}, this pylazy needs {ABI_VERSION}: "
            "build it again with `pip install .` or `pip install -e .`"
        )
    return library


def _declare(library: ctypes.CDLL) -> None:
    int32, int64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    signatures: dict[str, tuple[type | None, tuple[type, ...]]] = {
        "plz_abi_version": (int32, ()),
        "plz_last_error": (ctypes.c_char_p, ()),
        "plz_host_cpu_level": (ctypes.c_char_p, ()),
        "plz_set_thread_count": (int32, (int32,)),
        "plz_thread_count": (int32, ()),
        "plz_program_create": (
            int32,
            (
                ctypes.c_char_p, int64, ctypes.POINTER(CBuffer), int32, ctypes.POINTER(CPhase), int32,
                ctypes.POINTER(pointer),
            ),
        ),
        "plz_program_destroy": (None, (pointer,)),
        "plz_phase_geometry": (int32, (pointer, int32, int64, int64, int64, ctypes.POINTER(CGeometry))),
        # The three arrays arrive as packed bytes, which ctypes passes without a copy.
        "plz_run": (int32, (pointer, ctypes.c_char_p, int64, int64, int32, ctypes.c_char_p, ctypes.c_char_p)),
        "plz_run_one": (int32, (ctypes.c_char_p,)),  # a packed plz_launch
        "plz_gpu_device_count": (int32, (ctypes.POINTER(int32),)),
        "plz_gpu_device_properties": (int32, (int32, ctypes.POINTER(CGpuProperties))),
        "plz_gpu_program_create": (
            int32,
            (
                ctypes.c_char_p, ctypes.c_char_p, int64, ctypes.POINTER(CBuffer), int32, ctypes.POINTER(CGpuKernel),
                int32, ctypes.POINTER(pointer),
            ),
        ),
        "plz_gpu_program_destroy": (None, (pointer,)),
        "plz_gpu_kernel_geometry": (
            int32, (pointer, int32, ctypes.POINTER(CGpuSizes), ctypes.POINTER(CGpuGeometry)),
        ),
        "plz_gpu_scratch_bytes": (int32, (pointer, ctypes.POINTER(CGpuSizes), ctypes.POINTER(int64))),
        "plz_gpu_program_load": (int32, (pointer, int32)),
        "plz_gpu_launch": (
            int32, (pointer, int32, pointer, ctypes.c_char_p, pointer, ctypes.POINTER(CGpuSizes)),
        ),
        "plz_gpu_memory": (int32, (int32, ctypes.POINTER(int64), ctypes.POINTER(int64))),
        "plz_gpu_allocate": (int32, (int32, pointer, int64, ctypes.POINTER(pointer))),
        "plz_gpu_free": (int32, (int32, pointer, pointer)),
        "plz_gpu_copy_to_device": (int32, (int32, pointer, pointer, pointer, int64)),
        "plz_gpu_copy_to_host": (int32, (int32, pointer, pointer, pointer, int64)),
        "plz_gpu_synchronize": (int32, (int32, pointer)),
        "plz_gpu_wait": (int32, (int32, pointer, pointer)),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
