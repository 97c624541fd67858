// Written by pylazy.compiler.dialects.reduction.irdl; for mlir-opt --irdl-file=.
module {
  irdl.dialect @reduction {
    irdl.type @lazy {
      %0 = irdl.base "#builtin.string" 
      %1 = irdl.any
      irdl.parameters(axes: %0, vector: %1)
    }
    irdl.operation @neg {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @abs {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @exp {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @log {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sqrt {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @rsqrt {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @square {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @reciprocal {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sin {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @cos {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @tan {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @asin {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @acos {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @atan {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sinh {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @cosh {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @tanh {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @exp2 {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @log2 {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @log1p {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @expm1 {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @cbrt {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @erf {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @erfc {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sigmoid {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @softplus {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @relu {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @step {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sign {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @floor {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @ceil {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @trunc {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @round {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @xlogx {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sinxdivx {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @isnan {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @logical_not {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @powi {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.base "#builtin.integer" 
      irdl.attributes {"exponent" = %1}
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @add {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @sub {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @mul {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @div {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @pow {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @atan2 {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @minimum {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @maximum {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @hypot {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @mod0 {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @eq {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @ne {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @lt {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @le {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @gt {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @ge {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @logical_and {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @logical_or {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @where {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(operand0: %0, operand1: %1, operand2: %2)
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @ifelse {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(operand0: %0, operand1: %1, operand2: %2)
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @clamp {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(operand0: %0, operand1: %1, operand2: %2)
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @inner_sum {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @inner_prod {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @inner_min {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @inner_max {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @inner_argmin {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @inner_argmax {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @sqnorm2 {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @norm2 {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @normalize {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @dot {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @sqdist {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @concat {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @extract {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.base "#builtin.integer" 
      %2 = irdl.base "#builtin.integer" 
      irdl.attributes {"start" = %1, "size" = %2}
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @broadcast {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.base "#builtin.integer" 
      irdl.attributes {"size" = %1}
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @one_hot {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.base "#builtin.integer" 
      irdl.attributes {"size" = %1}
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @contract {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(operand0: %0, operand1: %1)
      %2 = irdl.base "#builtin.array" 
      %3 = irdl.base "#builtin.array" 
      %4 = irdl.base "#builtin.array" 
      %5 = irdl.base "#builtin.array" 
      irdl.attributes {"sizes" = %2, "left" = %3, "right" = %4, "kept" = %5}
      %6 = irdl.any
      irdl.results(result: %6)
    }
    irdl.operation @soft_dtw {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(operand0: %0, operand1: %1, operand2: %2)
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @soft_dtw_gradient {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(operand0: %0, operand1: %1, operand2: %2)
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @soft_dtw_hessian {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      %3 = irdl.any
      irdl.operands(operand0: %0, operand1: %1, operand2: %2, operand3: %3)
      %4 = irdl.any
      irdl.results(result: %4)
    }
    irdl.operation @var {
      %0 = irdl.any
      irdl.operands(tensor: %0)
      %1 = irdl.base "#builtin.string" 
      irdl.attributes {"axis" = %1}
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @constant {
      %0 = irdl.base "#builtin.float" 
      irdl.attributes {"value" = %0}
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @index {
      %0 = irdl.base "#builtin.string" 
      irdl.attributes {"axis" = %0}
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @tabulate {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.base "#builtin.string" 
      irdl.attributes {"axis" = %1}
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @reduce {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(value: %0, weight: optional %1)
      %2 = irdl.base "#builtin.string" 
      %3 = irdl.base "#builtin.string" 
      irdl.attributes {"kind" = %2, "axis" = %3}
      %4 = irdl.any
      irdl.results(result: %4)
    }
    irdl.operation @map_reduce {
      %0 = irdl.any
      irdl.operands(table: optional %0)
      %1 = irdl.base "#builtin.string" 
      %2 = irdl.base "#builtin.string" 
      irdl.attributes {"rows" = %1, "columns" = %2}
      %3 = irdl.region
      irdl.regions(body: %3)
    }
    irdl.operation @map {
      %0 = irdl.base "#builtin.string" 
      irdl.attributes {"rows" = %0}
      %1 = irdl.region
      irdl.regions(body: %1)
    }
    irdl.operation @load {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(buffer: %0, index: optional %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @load_pair {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(buffer: %0, slow: %1, fast: %2)
      %3 = irdl.any
      irdl.results(result: %3)
    }
    irdl.operation @index_value {
      %0 = irdl.any
      irdl.operands(index: %0)
      %1 = irdl.any
      irdl.results(result: %1)
    }
    irdl.operation @store {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      irdl.operands(value: %0, buffer: %1, index: %2)
    }
    irdl.operation @store_pair {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      %3 = irdl.any
      irdl.operands(value: %0, buffer: %1, slow: %2, fast: %3)
    }
    irdl.operation @accumulate {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      %3 = irdl.any
      irdl.operands(value: %0, weight: optional %1, values: optional %2, indices: optional %3)
      %4 = irdl.base "#builtin.string" 
      irdl.attributes {"kind" = %4}
    }
    irdl.operation @inner_reduce {
      %0 = irdl.any
      irdl.operands(value: %0)
      %1 = irdl.base "#builtin.string" 
      irdl.attributes {"kind" = %1}
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @concat_rows {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(first: %0, second: %1)
      %2 = irdl.any
      irdl.results(result: %2)
    }
    irdl.operation @contract_rows {
      %0 = irdl.any
      %1 = irdl.any
      irdl.operands(first: %0, second: %1)
      %2 = irdl.base "#builtin.array" 
      %3 = irdl.base "#builtin.array" 
      %4 = irdl.base "#builtin.array" 
      %5 = irdl.base "#builtin.array" 
      irdl.attributes {"sizes" = %2, "left" = %3, "right" = %4, "kept" = %5}
      %6 = irdl.any
      irdl.results(result: %6)
    }
    irdl.operation @soft_dtw_rows {
      %0 = irdl.any
      %1 = irdl.any
      %2 = irdl.any
      %3 = irdl.any
      irdl.operands(x: %0, y: %1, gamma: %2, along: optional %3)
      %4 = irdl.base "#builtin.integer" 
      irdl.attributes {"order" = %4}
      %5 = irdl.any
      irdl.results(result: %5)
    }
    irdl.operation @positions {
      %0 = irdl.any
      irdl.results(result: %0)
    }
    irdl.operation @yield 
  }
}
