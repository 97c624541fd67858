"""The functions that formula texts may call, and the methods of LazyTensor that they stand for."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pylazy.complex_numbers.complex_lazy_tensor import from_interleaved, interleaved
from pylazy.formula_texts import reduction_texts
from pylazy.formula_texts.reduction_texts import REDUCTION_OPS
from pylazy.lazy_tensor import LazyTensor, Pm, Var, Vi, Vj
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMULA, INTEGER, INTEGERS = "formula", "integer", "list of integers"
REDUCTION, EITHER = "reduction", "formula or reduction"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a keyword.

    Attributes:
        name: for messages.
        kind: `FORMULA`, `INTEGER`, `INTEGERS`, `REDUCTION` or `EITHER`; integers are part of the formula.
        optional: whether it can be left out; only the last ones can.
    """

    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Keyword:
    """One function of the language.

    Attributes:
        name: as pykeops writes it, where pykeops has it.
        signature: its parameters: `f` is a formula, `n: int` an integer, `d: ints` a list of integers, `r: reduction` a
            reduction, `f: either` one of both; a question mark follows what can be left out.
        build: the name of a method of LazyTensor, called with the first argument as its self; or a function.
    """

    name: str
    signature: str
    build: str | Callable[..., Any]

    def parameters(self) -> tuple[Parameter, ...]:
        """Read the signature."""
        found = []
        for word in self.signature.split(", "):
            name, _, kind = word.removesuffix("?").partition(": ")
            kinds = {"": FORMULA, "int": INTEGER, "ints": INTEGERS, "reduction": REDUCTION, "either": EITHER}
            found.append(Parameter(name, kinds[kind], optional=word.endswith("?")))
        return tuple(found)

    def builder(self) -> Callable[..., Any]:
        """The function to call."""
        found: Callable[..., Any] = getattr(LazyTensor, self.build) if isinstance(self.build, str) else self.build
        return found


def _zero(size: int) -> LazyTensor:
    return LazyTensor(0) if size == 1 else LazyTensor(0).sumT(size)


def _padded(f: LazyTensor, before: int, after: int) -> LazyTensor:
    parts = [_zero(before)] if before > 0 else []
    parts.append(f)
    return LazyTensor.cat((*parts, _zero(after)) if after > 0 else parts)


def _placed(f: LazyTensor, size: int, start: int) -> LazyTensor:
    return _padded(f, start, size - start - f.ndim)


def _inside(f: LazyTensor, low: int, high: int) -> LazyTensor:
    return (f >= low).logical_and(f <= high)


def _on_complex(function: Callable[..., Any]) -> Callable[..., LazyTensor]:
    """Make a function of complex LazyTensors one of vectors with real and imaginary parts in turn."""

    def build(*formulas: LazyTensor) -> LazyTensor:
        result = function(*map(from_interleaved, formulas))
        return interleaved(result) if result.is_complex else result

    return build


def _to_complex(method: str) -> Callable[[LazyTensor], LazyTensor]:
    return lambda f: interleaved(getattr(f, method)())


def _scaled_complex(f: LazyTensor, g: LazyTensor) -> LazyTensor:
    scale, scaled = (f, g) if f.ndim == 1 else (g, f)
    if scale.ndim != 1 or scaled.ndim % 2:
        raise ShapeError(
            at_user_line(
                f"ComplexRealScal was given inner dimensions {f.ndim} and {g.ndim}, expected 1 and an even number"
            )
        )
    return scale * scaled


def _repeated_complex(f: LazyTensor, n: int) -> LazyTensor:
    if f.ndim != 2 or n % 2:
        raise ShapeError(
            at_user_line(
                f"ComplexSumT was given inner dimension {f.ndim} and n = {n}, expected 2 and an even number: twice "
                "that of complex components"
            )
        )
    return interleaved(from_interleaved(f).sumT(n // 2))


def _rows(signature: str, **builds: str | Callable[..., Any]) -> dict[str, Keyword]:
    return {name: Keyword(name, signature, build) for name, build in builds.items()}


def _reduction(name: str, kind: str) -> Keyword:
    row = REDUCTIONS[kind]
    if row.takes_k:
        return Keyword(f"{name}_Reduction", "f, K: int, category: int", reduction_texts.keeping(name))
    if row.weight == "required" or name == "LogSumExpWeight":
        return Keyword(f"{name}_Reduction", "f, category: int, g", reduction_texts.weighted(name))
    return Keyword(f"{name}_Reduction", "f, category: int", reduction_texts.plain(name))


KEYWORDS: Mapping[str, Keyword] = MappingProxyType(
    {
        # Variables and constants
        **_rows("index: int, dim: int", Vi=Vi, Vj=Vj, Pm=Pm),
        **_rows("index: int, dim: int, category: int", Var=Var),
        **_rows("n: int", IntCst=LazyTensor, IntInv=lambda n: 1 / LazyTensor(n), Zero=_zero),
        **_rows("p: int, q: int", RatCst=lambda p, q: LazyTensor(p) / q),
        # Arithmetic
        **_rows("f, g", Add=operator.add, Subtract=operator.sub, Mult=operator.mul, Divide=operator.truediv),
        **_rows("f, n: int", Pow="__pow__", Round="round"),
        **_rows("f, g", Powf="power", Atan2="atan2", Hypot="hypot", Minimum="minimum", Maximum="maximum"),
        **_rows("f", Minus="__neg__", Inv="reciprocal", Square="square", Sqrt="sqrt", Rsqrt="rsqrt", Cbrt="cbrt"),
        **_rows("f", Abs="abs", Sign="sign", Step="step", ReLU="relu", Floor="floor", Ceil="ceil", Trunc="trunc"),
        # Exponentials and angles
        **_rows("f", Exp="exp", Log="log", XLogX="xlogx", Exp2="exp2", Log2="log2", Log1p="log1p", Expm1="expm1"),
        **_rows("f", Sin="sin", Cos="cos", Tan="tan", Asin="asin", Acos="acos", Atan="atan", SinXDivX="sinxdivx"),
        **_rows("f", Sinh="sinh", Cosh="cosh", Tanh="tanh", Erf="erf", Erfc="erfc"),
        **_rows("f", Sigmoid="sigmoid", Softplus="softplus"),
        # Selection
        **_rows("f, a, b", Clamp="clamp", IfElse="ifelse", Where="where"),
        **_rows("f, m: int, n: int", ClampInt="clamp", DiffClampInt=_inside),
        **_rows("f, m, offset?", Mod="mod"),
        # Comparison and logic
        **_rows("f, g", Equal=operator.eq, NotEqual=operator.ne, LessThan=operator.lt, LessOrEqual=operator.le),
        **_rows("f, g", GreaterThan=operator.gt, GreaterOrEqual=operator.ge),
        **_rows("f, g", LogicalAnd="logical_and", LogicalOr="logical_or"),
        **_rows("f", LogicalNot="logical_not", IsNan="isnan"),
        # Vectors
        **_rows("f", Sum="sum", Max="max", Min="min", ArgMax="argmax", ArgMin="argmin"),
        **_rows("f", SqNorm2="sqnorm2", Norm2="norm2", Normalize="normalize"),
        **_rows("f, g", Scalprod="dot", SqDist="sqdist", Concat="concat"),
        **_rows("f, n: int", SumT="sumT", OneHot="one_hot", Elem="elem"),
        **_rows("f, start: int, dim: int", Extract="extract", ExtractT=lambda f, start, dim: _placed(f, dim, start)),
        **_rows("f, dim: int, m: int", ElemT=_placed),
        **_rows("knots, x, k: int", BSpline="bspline"),
        # Weighted norms
        **_rows("s, f", WeightedSqNorm=lambda s, f: f.weightedsqnorm(s), SymSqNorm=lambda s, f: f.weightedsqnorm(s)),
        **_rows("s, f", SqNormIso=lambda s, f: s * f.sqnorm2(), SqNormDiag=lambda s, f: (s * f.square()).sum(-1)),
        **_rows("s, f, g", WeightedSqDist=lambda s, f, g: f.weightedsqdist(g, s)),
        # Tensors
        **_rows("A, b", MatVecMult="matvecmult", VecMatMult="vecmatmult", TensorProd="tensorprod"),
        **_rows("f, g, dimsf: ints, dimsg: ints, contf: ints, contg: ints, perm: ints?", TensorDot="keops_tensordot"),
        **_rows("f, g, dimsf: ints, dimsg: ints", Kron="keops_kron"),
        **_rows("f, g, gamma", SoftDTW_SqDist="softdtw_sqdist"),
        # Derivatives
        **_rows("f: either, v, e?", Grad=reduction_texts.grad),
        **_rows("f: either, v, u", Diff=reduction_texts.diff),
        **_rows("f, v, u", AdjointOperator="adjoint_operator"),
        **_rows("f, v", GradMatrix="grad_matrix", Divergence="divergence", Laplacian="laplacian"),
        **_rows("f, v", TraceOperator="trace_operator", SumLinOperator="sum_linear_operator"),
        **_rows("r: reduction, v, e, saved", Grad_WithSavedForward=reduction_texts.grad_with_saved_forward),
        **_rows("r: reduction, v, u, saved", Diff_WithSavedForward=reduction_texts.diff_with_saved_forward),
        # Sharing: equal parts of a formula are computed once in any case
        **_rows("f, g", Factorize="factorize"),
        **_rows("f", AutoFactorize="auto_factorize"),
        # Complex numbers, as real and imaginary parts in turn
        **_rows("f", ComplexReal=_on_complex(lambda z: z.real), ComplexImag=_on_complex(lambda z: z.imag)),
        **_rows("f", Real2Complex=_to_complex("real2complex"), Imag2Complex=_to_complex("imag2complex")),
        **_rows("f", Conj=_on_complex(lambda z: z.conj()), ComplexAbs=_on_complex(abs)),
        **_rows("f", ComplexSquareAbs=_on_complex(lambda z: z.real.square() + z.imag.square())),
        **_rows("f", ComplexAngle=_on_complex(lambda z: z.angle()), ComplexSum=_on_complex(lambda z: z.sum(-1))),
        **_rows("f", ComplexExp=_on_complex(lambda z: z.exp()), ComplexExp1j=_to_complex("exp1j")),
        **_rows("f, g", ComplexAdd=_on_complex(operator.add), ComplexSubtract=_on_complex(operator.sub)),
        **_rows("f, g", ComplexMult=_on_complex(operator.mul), ComplexDivide=_on_complex(operator.truediv)),
        **_rows("f, g", ComplexRealScal=_scaled_complex),
        **_rows("f, n: int", ComplexSumT=_repeated_complex),
        # Reductions: the whole text, or what a derivative is taken of
        **{f"{name}_Reduction": _reduction(name, kinds[0]) for name, kinds in REDUCTION_OPS.items()},
        **_rows("dim: int, category: int", Zero_Reduction=reduction_texts.zero),
        **_rows("f, category: int", Max_SumShiftExp_Reduction=reduction_texts.plain("Max_SumShiftExp")),
        **_rows("f, category: int, g", Max_SumShiftExpWeight_Reduction=reduction_texts.weighted("Max_SumShiftExp")),
    }
)
"""Every function of the language. To add one whose operation is a method already, add its name to a row."""
