"""Reductions as functions of JAX arrays."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pylazy.runtime.errors import UnsupportedError
from pylazy.spreads import Spread
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylazy.execution.templates import Template
    from pylazy.genred import Genred


def jax_function(reduction: Reduction | Genred | Spread) -> Callable[..., Any]:
    """Make a function of JAX arrays of a reduction with symbolic variables.

    For example::

        gaussian = pylazy.jax_function(((-Vi(0, 3).sqdist(Vj(1, 3))).exp() * Vj(2, 1)).sum(axis=1))
        gradient = jax.jit(jax.grad(lambda x, y, b: gaussian(x, y, b).sum()))(x, y, b)

    Args:
        reduction: a `Reduction` of a formula of Vi(0, 3), Vj(1, 3) and the like, what its `var` or `std` gives, or a
            `Genred`. Data that is stored in the formula is a constant.

    Returns:
        A function of an array for each variable, in the order of their positions, of shape (*batch, M, D), (*batch, N,
        D) or (*batch, D), which gives an array, or a tuple of them where the reduction has several results. It can be
        transformed by jit, vmap, grad, vjp, jvp, and these by each other. Dtypes of results are what JAX makes of those
        of the reduction: 32 bits for 64, unless `jax_enable_x64` is set. For a variable `ComplexLazyTensor((0, 6, 0))`
        it takes an array of 3 complex numbers, or of their 6 parts in turn; derivatives by complex numbers are JAX's,
        so that the gradient of a real function of x + iy is its derivative by x minus i times that by y.

    Raises:
        UnsupportedError: the reduction has no symbolic variables, or has ranges; or there is no JAX.
    """
    if find_spec("jax") is None:
        raise UnsupportedError(at_user_line("JAX is not installed: install it, as by pip install 'pylazy[jax]'"))
    if isinstance(reduction, Spread):
        mean = _template_of(reduction.mean)
        from pylazy.jax_primitive import call_spread

        return partial(call_spread, mean, _template_of(reduction.sums), reduction.divisor)
    if not isinstance(reduction, Reduction):
        reduction = reduction._reduction
    template = _template_of(reduction)
    from pylazy.complex_numbers.complex_reductions import ComplexReduction
    from pylazy.jax_primitive import call, call_complex

    if isinstance(reduction, ComplexReduction):
        return partial(call_complex, template, drop_inner=reduction.drop_inner)
    return partial(call, template, is_single=reduction.is_single)


def _template_of(reduction: Reduction) -> Template:
    template = reduction._template
    if template is None or template._ranges is not None:
        found = "its data" if template is None else "ranges"
        raise UnsupportedError(
            at_user_line(f"the reduction has {found}, expected one of symbolic variables, as Vi(0, 3), over all pairs")
        )
    return template
