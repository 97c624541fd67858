"""What is known of a number from the operations that make it."""

import math

import pytest

from pylazy.compiler.math_approximations.value_bounds import bounds_of
from pylazy.compiler.mlir import ir, new_context

INFINITY = math.inf

CASES = {
    "%r = arith.mulf %x, %x : f32": (0.0, INFINITY),
    "%r = arith.mulf %x, %y : f32": (-INFINITY, INFINITY),
    "%r = arith.subf %x, %x : f32": (-INFINITY, INFINITY),
    "%q = arith.mulf %x, %x : f32\n%r = arith.negf %q : f32": (-INFINITY, 0.0),
    "%q = arith.mulf %x, %x : f32\n%s = arith.mulf %y, %y : f32\n%r = arith.addf %q, %s : f32": (0.0, INFINITY),
    "%q = math.absf %x : f32\n%r = math.fma %x, %x, %q : f32": (0.0, INFINITY),
    "%q = math.absf %x : f32\n%r = math.fma %x, %y, %q : f32": (-INFINITY, INFINITY),
    "%q = math.sqrt %x : f32\n%c = arith.constant 2.5 : f32\n%r = arith.addf %q, %c : f32": (2.5, INFINITY),
    "%q = math.sqrt %x : f32\n%c = arith.constant -2.0 : f32\n%r = arith.mulf %q, %c : f32": (-INFINITY, 0.0),
    "%q = math.exp %x : f32\n%c = arith.constant 4.0 : f32\n%r = arith.divf %c, %q : f32": (0.0, INFINITY),
    "%q = math.exp %x : f32\n%n = arith.negf %q : f32\n%r = arith.divf %q, %n : f32": (-INFINITY, 0.0),
    "%q = math.exp %x : f32\n%r = arith.divf %q, %y : f32": (-INFINITY, INFINITY),
    "%q = math.exp %x : f32\n%c = arith.constant 4.0 : f32\n%r = arith.select %b, %c, %q : f32": (0.0, INFINITY),
    "%q = math.absf %x : f32\n%r = arith.select %b, %y, %q : f32": (-INFINITY, INFINITY),
    "%q = arith.mulf %x, %x : f32\n%c = arith.constant 4.0 : f32\n%g = arith.cmpf ogt, %q, %c : f32\n"
    "%r = arith.select %g, %c, %q : f32": (0.0, 4.0),
    "%q = arith.mulf %x, %x : f32\n%c = arith.constant 4.0 : f32\n%g = arith.cmpf olt, %q, %c : f32\n"
    "%r = arith.select %g, %c, %q : f32": (4.0, INFINITY),
    "%c = arith.constant 4.0 : f32\n%g = arith.cmpf ugt, %x, %c : f32\n%r = arith.select %g, %c, %x : f32": (
        -INFINITY,
        INFINITY,
    ),
    "%c = arith.constant 4.0 : f32\n%g = arith.cmpf ogt, %x, %c : f32\n%r = arith.select %g, %x, %c : f32": (
        -INFINITY,
        INFINITY,
    ),
    "%c = arith.constant 3.0 : f32\n%q = math.exp %x : f32\n%s = arith.addf %q, %c : f32\n%r = math.absf %s : f32": (
        3.0,
        INFINITY,
    ),
    "%c = arith.constant -3.0 : f32\n%q = math.absf %x : f32\n%s = arith.subf %c, %q : f32\n"
    "%n = arith.negf %q : f32\n%t = arith.addf %n, %c : f32\n%r = arith.mulf %t, %t : f32": (9.0, INFINITY),
    "%c = arith.constant 0x7FC00000 : f32\n%r = arith.negf %c : f32": (-INFINITY, INFINITY),
    "%c = arith.constant dense<3.0> : vector<8xf32>\n%r = arith.negf %c : vector<8xf32>": (-3.0, -3.0),
    "%q = math.absf %x : f32\n%r = vector.broadcast %q : f32 to vector<8xf32>": (0.0, INFINITY),
}


@pytest.mark.parametrize("body", CASES)
def test_bounds_follow_from_operations(body: str) -> None:
    text = "func.func @f(%x: f32, %y: f32, %b: i1) {\n" + body + "\nreturn\n}"
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        operations = list(module.body.operations[0].regions[0].blocks[0].operations)
        assert tuple(bounds_of(operations[-2].results[0])) == CASES[body]


def test_values_used_twice_at_each_step_are_looked_at_once() -> None:
    steps = [f"%v{k + 1} = arith.addf %v{k}, %v{k} : f32" for k in range(200)]
    text = "func.func @f(%x: f32) {\n%v0 = math.absf %x : f32\n" + "\n".join(steps) + "\nreturn\n}"
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        operations = list(module.body.operations[0].regions[0].blocks[0].operations)
        assert bounds_of(operations[-2].results[0]).low == 0.0
