// RUN: pylazy-opt %s --pass-pipeline='reduction-simplify' | filecheck %s

// Constants

// CHECK-LABEL: @constants_are_folded
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[C:%.+]] = "reduction.constant"() {value = 1.000000e+01 : f32}
// CHECK-NEXT: "reduction.mul"([[X]], [[C]])
func.func @constants_are_folded(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.constant"() {value = 2.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %b = "reduction.constant"() {value = 4.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %c = "reduction.mul"(%a, %b) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"", vector<1xf32>>
  %s = "reduction.sqrt"(%b) : (!reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"", vector<1xf32>>
  %d = "reduction.add"(%c, %s) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.mul"(%x, %d) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// The kernel makes the infinity.
// CHECK-LABEL: @pole_is_not_folded
// CHECK: "reduction.log"
func.func @pole_is_not_folded(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %a = "reduction.constant"() {value = 0.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %b = "reduction.log"(%a) : (!reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.add"(%x, %b) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @zero_is_dropped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.reduce"([[X]])
func.func @zero_is_dropped(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %z = "reduction.constant"() {value = 0.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %a = "reduction.add"(%z, %x) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.sub"(%a, %z) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @subtraction_from_zero_is_negation
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.neg"([[X]])
func.func @subtraction_from_zero_is_negation(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %z = "reduction.constant"() {value = 0.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.sub"(%z, %x) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @one_is_dropped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.reduce"([[X]])
func.func @one_is_dropped(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %o = "reduction.constant"() {value = 1.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %a = "reduction.mul"(%o, %x) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.div"(%a, %o) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// NaN * 0 is NaN.
// CHECK-LABEL: @product_with_zero_stays
// CHECK: "reduction.mul"
func.func @product_with_zero_stays(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %z = "reduction.constant"() {value = 0.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.mul"(%x, %z) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// inf - inf is NaN.
// CHECK-LABEL: @difference_with_itself_stays
// CHECK: "reduction.sub"
func.func @difference_with_itself_stays(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.sub"(%x, %x) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @quotient_by_power_of_two_is_product
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[C:%.+]] = "reduction.constant"() {value = 1.250000e-01 : f32}
// CHECK-NEXT: "reduction.mul"([[X]], [[C]])
func.func @quotient_by_power_of_two_is_product(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %o = "reduction.constant"() {value = 8.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.div"(%x, %o) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// 1/3 has no exact representation.
// CHECK-LABEL: @quotient_by_three_stays
// CHECK: "reduction.div"
func.func @quotient_by_three_stays(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %o = "reduction.constant"() {value = 3.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.div"(%x, %o) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @factors_are_merged
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[C:%.+]] = "reduction.constant"() {value = 6.000000e+00 : f32}
// CHECK-NEXT: "reduction.mul"([[X]], [[C]])
func.func @factors_are_merged(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.constant"() {value = 2.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %b = "reduction.constant"() {value = 3.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %c = "reduction.mul"(%x, %a) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%c, %b) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// Two roundings would become one.
// CHECK-LABEL: @inexact_factors_stay
// CHECK-COUNT-2: "reduction.mul"
func.func @inexact_factors_stay(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.constant"() {value = 3.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %b = "reduction.constant"() {value = 5.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %c = "reduction.mul"(%x, %a) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%c, %b) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// (x * 2) * 0.25 is infinite for large x, x * 0.5 is not.
// CHECK-LABEL: @factors_that_may_overflow_stay
// CHECK-COUNT-2: "reduction.mul"
func.func @factors_that_may_overflow_stay(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.constant"() {value = 2.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %b = "reduction.constant"() {value = 0.25 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %c = "reduction.mul"(%x, %a) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%c, %b) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// Negation

// CHECK-LABEL: @double_negation_is_dropped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.reduce"([[X]])
func.func @double_negation_is_dropped(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.neg"(%a) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @negated_difference_is_swapped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.sub"([[Y]], [[X]])
func.func @negated_difference_is_swapped(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.sub"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r = "reduction.neg"(%a) : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @negation_joins_constant_factor
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[C:%.+]] = "reduction.constant"() {value = -3.000000e+00 : f32}
// CHECK-NEXT: "reduction.mul"([[X]], [[C]])
func.func @negation_joins_constant_factor(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %c = "reduction.constant"() {value = 3.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%a, %c) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @negation_leaves_product
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: "reduction.neg"([[P]])
func.func @negation_leaves_product(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%a, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @negation_leaves_quotient
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: [[P:%.+]] = "reduction.div"([[X]], [[Y]])
// CHECK-NEXT: "reduction.neg"([[P]])
func.func @negation_leaves_quotient(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.neg"(%y) : (!reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"j", vector<3xf32>>
  %r = "reduction.div"(%x, %a) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @two_negations_cancel_in_product
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: "reduction.reduce"([[P]])
func.func @two_negations_cancel_in_product(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %b = "reduction.neg"(%y) : (!reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"j", vector<3xf32>>
  %r = "reduction.mul"(%a, %b) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @addition_of_negation_is_subtraction
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.sub"([[Y]], [[X]])
func.func @addition_of_negation_is_subtraction(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.add"(%a, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @subtraction_of_negation_is_addition
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.add"([[X]], [[Y]])
func.func @subtraction_of_negation_is_addition(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.neg"(%y) : (!reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"j", vector<3xf32>>
  %r = "reduction.sub"(%x, %a) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @even_function_drops_negation
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.cos"([[X]])
func.func @even_function_drops_negation(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.cos"(%a) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @odd_function_keeps_negation
// CHECK: "reduction.neg"
func.func @odd_function_keeps_negation(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.sin"(%a) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// Products, powers, distances

// CHECK-LABEL: @product_with_itself_is_square
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.square"([[X]])
func.func @product_with_itself_is_square(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%x, %x) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @integer_powers
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[S:%.+]] = "reduction.square"([[X]])
// CHECK-NEXT: "reduction.reciprocal"([[S]])
func.func @integer_powers(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.powi"(%x) {exponent = 2 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %b = "reduction.powi"(%a) {exponent = 1 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.powi"(%b) {exponent = -1 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @power_zero_is_one_without_axes
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.reduce"([[Y]])
func.func @power_zero_is_one_without_axes(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.powi"(%x) {exponent = 0 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.mul"(%a, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// What no longer reads x does not vary with i.
// CHECK-LABEL: @axes_are_narrowed
// CHECK: "reduction.exp"{{.*}} -> !reduction.lazy<"j", vector<3xf32>>
func.func @axes_are_narrowed(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %d = "reduction.sub"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %a = "reduction.powi"(%d) {exponent = 0 : i64} : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %b = "reduction.add"(%a, %y) : (!reduction.lazy<"ij", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r = "reduction.exp"(%b) : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @constant_exponents
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[A:%.+]] = "reduction.sqrt"([[X]])
// CHECK-NEXT: [[B:%.+]] = "reduction.sqrt"([[A]])
// CHECK-NEXT: [[D:%.+]] = "reduction.reciprocal"([[B]])
// CHECK-NEXT: "reduction.powi"([[D]]) {exponent = 3 : i64}
func.func @constant_exponents(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %h = "reduction.constant"() {value = 0.5 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %m = "reduction.constant"() {value = -0.5 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %n = "reduction.constant"() {value = 3.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %a = "reduction.pow"(%x, %h) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %b = "reduction.pow"(%a, %m) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.pow"(%b, %n) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @fractional_exponent_stays
// CHECK: "reduction.pow"
func.func @fractional_exponent_stays(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %h = "reduction.constant"() {value = 1.5 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.pow"(%x, %h) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @large_exponent_stays
// CHECK: "reduction.pow"
func.func @large_exponent_stays(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %h = "reduction.constant"() {value = 100.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.pow"(%x, %h) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @sum_of_squared_differences_is_distance
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.sqdist"([[X]], [[Y]])
func.func @sum_of_squared_differences_is_distance(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.sub"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %b = "reduction.square"(%a) : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r = "reduction.inner_sum"(%b) : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @sum_of_squares_is_norm
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.sqnorm2"([[X]])
func.func @sum_of_squares_is_norm(%x_rows: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.mul"(%x, %x) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.inner_sum"(%a) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @sum_of_products_is_dot
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.dot"([[X]], [[Y]])
func.func @sum_of_products_is_dot(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %a = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r = "reduction.inner_sum"(%a) : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @sum_of_broadcast_products_stays
// CHECK: "reduction.mul"
// CHECK-NEXT: "reduction.inner_sum"
func.func @sum_of_broadcast_products_stays(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %a = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r = "reduction.inner_sum"(%a) : (!reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @sum_of_equal_components_is_a_product
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[C:%.+]] = "reduction.constant"() {value = 3.000000e+00 : f32}
// CHECK-NEXT: "reduction.mul"([[X]], [[C]])
// CHECK-NOT: inner_sum
func.func @sum_of_equal_components_is_a_product(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %w = "reduction.broadcast"(%x) {size = 3 : i64} : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.inner_sum"(%w) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// The axis of what is dropped goes with it.
// CHECK-LABEL: @condition_that_is_constant_is_decided
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[W:%.+]] = "reduction.broadcast"([[X]]) {size = 3 : i64}
// CHECK-NEXT: "reduction.reduce"([[W]]) {{.*}} : (!reduction.lazy<"i", vector<3xf32>>)
func.func @condition_that_is_constant_is_decided(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %one = "reduction.constant"() {value = 1.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %zero = "reduction.constant"() {value = 0.0 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %a = "reduction.where"(%one, %x, %y) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %b = "reduction.where"(%zero, %y, %a) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"j", vector<3xf32>>, !reduction.lazy<"ij", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %c = "reduction.ifelse"(%zero, %b, %y) : (!reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"ij", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%c) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @dot_with_itself_is_norm
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.sqnorm2"([[X]])
func.func @dot_with_itself_is_norm(%x_rows: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.dot"(%x, %x) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @sum_of_one_component_is_dropped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.reduce"([[X]])
func.func @sum_of_one_component_is_dropped(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r = "reduction.inner_sum"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @distance_of_one_component
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: [[D:%.+]] = "reduction.sub"([[X]], [[Y]])
// CHECK-NEXT: "reduction.square"([[D]])
func.func @distance_of_one_component(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %r = "reduction.sqdist"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @norm_of_one_component
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.abs"([[X]])
func.func @norm_of_one_component(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r = "reduction.norm2"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// exp overflows, and then the logarithm is infinite.
// CHECK-LABEL: @log_of_exp_stays
// CHECK: "reduction.exp"
// CHECK-NEXT: "reduction.log"
func.func @log_of_exp_stays(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %a = "reduction.exp"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.log"(%a) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// Structure

// CHECK-LABEL: @extract_looks_through_concat
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.reduce"([[Y]])
func.func @extract_looks_through_concat(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x2xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x2xf32>) -> !reduction.lazy<"j", vector<2xf32>>
  %a = "reduction.concat"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<2xf32>>) -> !reduction.lazy<"ij", vector<5xf32>>
  %r = "reduction.extract"(%a) {start = 3 : i64, size = 2 : i64} : (!reduction.lazy<"ij", vector<5xf32>>) -> !reduction.lazy<"ij", vector<2xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}

// CHECK-LABEL: @extract_across_concat_stays
// CHECK: "reduction.concat"
// CHECK-NEXT: "reduction.extract"
func.func @extract_across_concat_stays(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x2xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x2xf32>) -> !reduction.lazy<"j", vector<2xf32>>
  %a = "reduction.concat"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<2xf32>>) -> !reduction.lazy<"ij", vector<5xf32>>
  %r = "reduction.extract"(%a) {start = 2 : i64, size = 2 : i64} : (!reduction.lazy<"ij", vector<5xf32>>) -> !reduction.lazy<"ij", vector<2xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}

// CHECK-LABEL: @extracts_are_merged
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.extract"([[X]]) {size = 2 : i64, start = 2 : i64}
func.func @extracts_are_merged(%x_rows: tensor<?x5xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x5xf32>) -> !reduction.lazy<"i", vector<5xf32>>
  %a = "reduction.extract"(%x) {start = 1 : i64, size = 3 : i64} : (!reduction.lazy<"i", vector<5xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.extract"(%a) {start = 1 : i64, size = 2 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}

// CHECK-LABEL: @neighbours_are_joined
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.extract"([[X]]) {size = 4 : i64, start = 1 : i64}
func.func @neighbours_are_joined(%x_rows: tensor<?x5xf32>) -> tensor<?x4xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x5xf32>) -> !reduction.lazy<"i", vector<5xf32>>
  %a = "reduction.extract"(%x) {start = 1 : i64, size = 2 : i64} : (!reduction.lazy<"i", vector<5xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %b = "reduction.extract"(%x) {start = 3 : i64, size = 2 : i64} : (!reduction.lazy<"i", vector<5xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %r = "reduction.concat"(%a, %b) : (!reduction.lazy<"i", vector<2xf32>>, !reduction.lazy<"i", vector<2xf32>>) -> !reduction.lazy<"i", vector<4xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<4xf32>>) -> tensor<?x4xf32>
  return %r0 : tensor<?x4xf32>
}

// CHECK-LABEL: @broadcast_beside_a_vector_is_dropped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK: [[Y:%.+]] = "reduction.var"(%arg1)
// CHECK-NEXT: "reduction.mul"([[X]], [[Y]])
func.func @broadcast_beside_a_vector_is_dropped(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %a = "reduction.broadcast"(%y) {size = 3 : i64} : (!reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"j", vector<3xf32>>
  %r = "reduction.mul"(%x, %a) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @function_is_computed_before_broadcast
// CHECK: [[Y:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[E:%.+]] = "reduction.exp"([[Y]])
// CHECK-NEXT: "reduction.broadcast"([[E]]) {size = 3 : i64}
func.func @function_is_computed_before_broadcast(%y_rows: tensor<?x1xf32>) -> tensor<?x3xf32> {
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %a = "reduction.broadcast"(%y) {size = 3 : i64} : (!reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"j", vector<3xf32>>
  %r = "reduction.exp"(%a) : (!reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"j", vector<3xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"j", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @broadcast_to_one_component_is_dropped
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.reduce"([[X]])
func.func @broadcast_to_one_component_is_dropped(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r = "reduction.broadcast"(%x) {size = 1 : i64} : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @extracted_broadcast_shrinks
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: "reduction.broadcast"([[X]]) {size = 2 : i64}
func.func @extracted_broadcast_shrinks(%x_rows: tensor<?x1xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %a = "reduction.broadcast"(%x) {size = 5 : i64} : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<5xf32>>
  %r = "reduction.extract"(%a) {start = 1 : i64, size = 2 : i64} : (!reduction.lazy<"i", vector<5xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}
