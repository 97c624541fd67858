// RUN: pylazy-opt %s --pass-pipeline='reduction-differentiate' --split-input-file --verify-diagnostics

func.func @index(%x: tensor<?x3xf32>) -> tensor<?x3xi64> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' of kind "argmin" has no derivative}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "argmin"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xi64>
  return %1 : tensor<?x3xi64>
}

// -----

func.func @extreme(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' of kind "min" has no derivative}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "min"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

func.func @one_row(%x: tensor<?x3xf32>) -> tensor<1x3xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' to one row has no derivative}}
  %1 = "reduction.reduce"(%0) {axis = "i", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<1x3xf32>
  return %1 : tensor<1x3xf32>
}

// -----

func.func @two_axes(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{argument 0 is viewed on axis "j" and on axis "i"}}
  %y = "reduction.var"(%x) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

// expected-error@below {{`reduction.wrt` asks for argument 3, but the function has 1}}
func.func @no_such_argument(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [3]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

// expected-error@below {{`reduction.wrt` is "x", expected an array of argument numbers}}
func.func @no_array(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = "x"} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

// expected-error@below {{a result of the function is no reduction}}
func.func @no_reduction(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [0]} {
  return %x : tensor<?x3xf32>
}

// -----

// expected-error@below {{argument 0 is not used and has no attribute `reduction.axis`}}
func.func @unused(%x: tensor<?x3xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.constant"() {value = 1.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"", vector<1xf32>>) -> tensor<?x1xf32>
  return %1 : tensor<?x1xf32>
}

// -----

// expected-error@below {{`reduction.tangents` asks for argument 3, but the function has 1}}
func.func @no_such_tangent(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.tangents = [3]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

// expected-error@below {{a function has both `reduction.wrt` and `reduction.tangents`, expected one}}
func.func @both_modes(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.tangents = [0], reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

func.func @step_without_derivative(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.tangents = [0]} {
  %0 = "reduction.var"(%x) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' of kind "max" has no derivative}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "max"} : (!reduction.lazy<"j", vector<3xf32>>) -> tensor<?x3xf32>
  %2 = "reduction.var"(%1) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %3 = "reduction.reduce"(%2) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %3 : tensor<?x3xf32>
}

// -----

func.func @one_row_of_a_product(%x: tensor<?x3xf32>) -> tensor<1x3xf32> attributes {reduction.tangents = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' of kind "prod" to one row has no derivative, only that of kind "sum" has}}
  %1 = "reduction.reduce"(%0) {axis = "i", kind = "prod"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<1x3xf32>
  return %1 : tensor<1x3xf32>
}

// -----

// expected-error@below {{`reduction.wrt` is [[0], 0], expected an array of argument numbers, or of arrays of them}}
func.func @some_nested(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [[0], 0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

// The first derivative has two arguments, the second cannot ask for a third.
// expected-error@below {{`reduction.tangents` asks for argument 2, but the function has 2}}
func.func @second_order_asks_for_more(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.tangents = [[0], [2]]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

// expected-error@below {{`reduction.derivatives` is [{}], expected an array of dictionaries such as {wrt = [0]}}}
func.func @no_mode(%x: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.derivatives = [{}]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1 : tensor<?x3xf32>
}

// -----

func.func @third_derivative(%x: tensor<?x1xf32>, %u: tensor<?x3xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %1 = "reduction.var"(%u) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{the third derivative of reduction.soft_dtw is not implemented, two are}}
  %2 = "reduction.soft_dtw_hessian"(%0, %0, %0, %1) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %3 = "reduction.reduce"(%2) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %3 : tensor<?x3xf32>
}
