"""The machines that a kernel can be compiled for."""

from dataclasses import dataclass

__all__ = ["CPU_LEVELS", "CpuTarget", "NvidiaTarget", "Target", "target_from_name"]

_X86_TRIPLE = "x86_64-unknown-linux-gnu"
_AARCH64_TRIPLE = "aarch64-unknown-linux-gnu"


@dataclass(frozen=True)
class _CpuLevel:
    vector_bits: int
    has_fma: bool
    has_rounding: bool
    cpu: str
    triple: str


# The x86-64 levels are those of the x86-64 psABI, "micro-architecture levels"; `cpu` is LLVM's name of the level.
_LEVELS = {
    "x86-64": _CpuLevel(vector_bits=128, has_fma=False, has_rounding=False, cpu="x86-64", triple=_X86_TRIPLE),
    "x86-64-v3": _CpuLevel(vector_bits=256, has_fma=True, has_rounding=True, cpu="x86-64-v3", triple=_X86_TRIPLE),
    "x86-64-v4": _CpuLevel(vector_bits=512, has_fma=True, has_rounding=True, cpu="x86-64-v4", triple=_X86_TRIPLE),
    "aarch64": _CpuLevel(vector_bits=128, has_fma=True, has_rounding=True, cpu="generic", triple=_AARCH64_TRIPLE),
}
CPU_LEVELS = tuple(_LEVELS)


@dataclass(frozen=True)
class CpuTarget:
    """A level of a processor family: every processor of the level runs the kernel.

    Args:
        level: "x86-64" (SSE2), "x86-64-v3" (AVX2 and FMA), "x86-64-v4" (AVX-512) or "aarch64" (NEON).

    Raises:
        ValueError: the level is not one of `CPU_LEVELS`.
    """

    level: str

    def __post_init__(self) -> None:
        """Refuse a level that no table describes."""
        if self.level not in _LEVELS:
            raise ValueError(f"unknown processor level {self.level!r}: expected one of {', '.join(CPU_LEVELS)}")

    @property
    def name(self) -> str:
        """The name of the target in pipelines, kernel images and messages."""
        return self.level

    @property
    def vector_bits(self) -> int:
        """Width of a vector register."""
        return _LEVELS[self.level].vector_bits

    @property
    def has_fma(self) -> bool:
        """A multiply and an add with one rounding is an instruction."""
        return _LEVELS[self.level].has_fma

    @property
    def has_rounding(self) -> bool:
        """Rounding a float to an integral float is an instruction (SSE2 has none)."""
        return _LEVELS[self.level].has_rounding

    @property
    def has_avx512(self) -> bool:
        """AVX-512 F, DQ, BW and VL are there."""
        return self.level == "x86-64-v4"

    @property
    def has_few_registers(self) -> bool:
        """There are 16 vector registers for three operands and a multiply-add: AVX2."""
        return self.level == "x86-64-v3"

    @property
    def triple(self) -> str:
        """LLVM's target triple."""
        return _LEVELS[self.level].triple

    @property
    def cpu(self) -> str:
        """LLVM's name of the processor; it implies the features of the level."""
        return _LEVELS[self.level].cpu

    @property
    def features(self) -> str:
        """LLVM's features beyond those of the processor: macOS and Windows keep x18 of 64-bit Arm for themselves."""
        return "+reserve-x18" if self.level == "aarch64" else ""

    def lanes(self, dtype_bits: int) -> int:
        """Elements of `dtype_bits` bits in a vector register."""
        return self.vector_bits // dtype_bits


MATH_MODES = ("accurate", "", "fast")


@dataclass(frozen=True)
class NvidiaTarget:
    """A compute capability of an NVIDIA GPU.

    Args:
        arch: LLVM's name of it, such as "sm_90".
        math_mode: how functions of f32 are computed: "accurate" within 2 ulp, "" within what half an ulp in the
            argument causes and 2 ulp, "fast" with approximate quotients and logarithms.

    Raises:
        ValueError: there is no such mode.
    """

    arch: str
    math_mode: str = ""

    def __post_init__(self) -> None:
        """Refuse a mode that no table describes."""
        if self.math_mode not in MATH_MODES:
            raise ValueError(
                f"unknown math mode {self.math_mode!r}: expected one of {', '.join(map(repr, MATH_MODES))}"
            )

    @property
    def name(self) -> str:
        """The name of the target in pipelines, kernel images and messages."""
        return self.arch

    @property
    def triple(self) -> str:
        """LLVM's target triple."""
        return "nvptx64-nvidia-cuda"

    @property
    def cpu(self) -> str:
        """LLVM's name of the processor."""
        return self.arch

    @property
    def has_fma(self) -> bool:
        """A multiply and an add with one rounding is an instruction."""
        return True

    @property
    def has_rounding(self) -> bool:
        """Rounding a float to an integral float is an instruction."""
        return True

    @property
    def has_avx512(self) -> bool:
        """AVX-512 is an extension of x86."""
        return False


Target = CpuTarget | NvidiaTarget


def target_from_name(name: str) -> Target:
    """Return the target of a name as pipelines write it: a level of `CPU_LEVELS`, "sm_90", or "sm_90+fast" for a mode.

    Raises:
        ValueError: no target has this name.
    """
    if name.startswith("sm_"):
        return NvidiaTarget(*name.split("+", 1))
    return CpuTarget(name)
