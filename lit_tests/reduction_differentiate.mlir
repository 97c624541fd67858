// RUN: pylazy-opt %s --pass-pipeline='reduction-differentiate' | filecheck %s

// No `reduction.wrt`, no change.
// CHECK-LABEL: @left_alone
// CHECK-SAME: -> tensor<?x3xf32>
// CHECK: "reduction.exp"
func.func @left_alone(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %e = "reduction.exp"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%e) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// A gradient sums over the axis that its argument lacks. What only the forward result needed is gone.
// CHECK-LABEL: @chain_rule
// CHECK-SAME: (%arg0: tensor<?x1xf32>, %arg1: tensor<?x1xf32>, %arg2: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"})
// CHECK-SAME: -> (tensor<?x1xf32>, tensor<?x1xf32>) {
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "i"}
// CHECK-NEXT: [[Y:%.+]] = "reduction.var"(%arg1) {axis = "j"}
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: [[E:%.+]] = "reduction.exp"([[P]])
// CHECK-NEXT: [[CT:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK-NEXT: [[INNER:%.+]] = "reduction.mul"([[CT]], [[E]])
// CHECK-NEXT: [[DX:%.+]] = "reduction.mul"([[INNER]], [[Y]])
// CHECK-NEXT: [[DY:%.+]] = "reduction.mul"([[INNER]], [[X]])
// CHECK-NEXT: [[GX:%.+]] = "reduction.reduce"([[DX]]) {axis = "j", kind = "sum"}
// CHECK-NEXT: [[GY:%.+]] = "reduction.reduce"([[DY]]) {axis = "i", kind = "sum"}
// CHECK-NEXT: return [[GX]], [[GY]]
func.func @chain_rule(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0, 1]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %e = "reduction.exp"(%p) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%e) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @only_what_is_asked
// CHECK-NOT: "reduction.var"(%arg1)
// CHECK: [[X:%.+]] = "reduction.var"(%arg0)
// CHECK-NEXT: [[CT:%.+]] = "reduction.var"(%arg2)
// CHECK-NEXT: [[D:%.+]] = "reduction.mul"([[CT]], [[X]])
// CHECK-NEXT: [[G:%.+]] = "reduction.reduce"([[D]]) {axis = "i", kind = "sum"}
// CHECK-NEXT: return [[G]] : tensor<?x1xf32>
func.func @only_what_is_asked(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [1]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @parameter_is_summed_over_all_pairs
// CHECK-SAME: -> tensor<1x1xf32>
// CHECK: [[ROWS:%.+]] = "reduction.reduce"({{.*}}) {axis = "j", kind = "sum"} : ({{.*}}) -> tensor<?x1xf32>
// CHECK-NEXT: [[VIEW:%.+]] = "reduction.var"([[ROWS]]) {axis = "i"}
// CHECK-NEXT: "reduction.reduce"([[VIEW]]) {axis = "i", kind = "sum"} : ({{.*}}) -> tensor<1x1xf32>
func.func @parameter_is_summed_over_all_pairs(%x_rows: tensor<?x1xf32>, %p_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [1]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %p = "reduction.var"(%p_rows) {axis = ""} : (tensor<?x1xf32>) -> !reduction.lazy<"", vector<1xf32>>
  %r = "reduction.mul"(%x, %p) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%r) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @broadcast_component_sums_its_cotangents
// CHECK: [[CT:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK-NEXT: [[S:%.+]] = "reduction.inner_sum"([[CT]])
// CHECK-NEXT: "reduction.reduce"([[S]]) {axis = "i", kind = "sum"} : ({{.*}}) -> tensor<?x1xf32>
func.func @broadcast_component_sums_its_cotangents(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x3xf32> attributes {reduction.wrt = [1]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.add"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @sum_of_components_broadcasts_its_cotangent
// CHECK: [[CT:%.+]] = "reduction.var"(%arg1) {axis = "i"}
// CHECK-NEXT: [[B:%.+]] = "reduction.broadcast"([[CT]]) {size = 3 : i64}
// CHECK-NEXT: "reduction.reduce"([[B]]) {axis = "j", kind = "sum"}
func.func @sum_of_components_broadcasts_its_cotangent(%x_rows: tensor<?x3xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %p = "reduction.inner_sum"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @step_has_gradient_zero
// CHECK: [[Z:%.+]] = "reduction.constant"() {value = 0.000000e+00 : f32}
// CHECK-NEXT: [[B:%.+]] = "reduction.broadcast"([[Z]]) {size = 2 : i64}
// CHECK-NEXT: "reduction.reduce"([[B]]) {axis = "j", kind = "sum"} : ({{.*}}) -> tensor<?x2xf32>
func.func @step_has_gradient_zero(%x_rows: tensor<?x2xf32>) -> tensor<?x2xf32> attributes {reduction.wrt = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x2xf32>) -> !reduction.lazy<"i", vector<2xf32>>
  %p = "reduction.step"(%x) : (!reduction.lazy<"i", vector<2xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}

// CHECK-LABEL: @logsumexp_reads_its_result
// CHECK-SAME: %arg2: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "saved0"}, %arg3: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"}
// CHECK: [[P:%.+]] = "reduction.mul"
// CHECK: [[SAVED:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK: [[EMPTY:%.+]] = "reduction.eq"([[SAVED]], {{%.+}})
// CHECK: [[L:%.+]] = "reduction.where"([[EMPTY]], {{%.+}}, [[SAVED]])
// CHECK-NEXT: [[D:%.+]] = "reduction.sub"([[P]], [[L]])
// CHECK-NEXT: "reduction.exp"([[D]])
// CHECK-NOT: logsumexp
func.func @logsumexp_reads_its_result(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @several_results
// CHECK-SAME: %arg2: tensor<?x1xf32> {reduction.axis = "j", reduction.name = "saved1"}
// CHECK-SAME: %arg3: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"}
// CHECK-SAME: %arg4: tensor<?x1xf32> {reduction.axis = "j", reduction.name = "cotangent1"}
// CHECK: "reduction.add"
func.func @several_results(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> (tensor<?x1xf32>, tensor<?x1xf32>) attributes {reduction.wrt = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  %r1 = "reduction.reduce"(%p) {axis = "i", kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0, %r1 : tensor<?x1xf32>, tensor<?x1xf32>
}

// Gradients add up as the results do, where their reductions have such a scheme: that of a sum over one row too.
// CHECK-LABEL: @wide_gradients
// CHECK: "reduction.reduce"({{.+}}) {accumulator = f64, axis = "j", kind = "sum", scheme = "direct"}
// CHECK: "reduction.reduce"({{.+}}) {accumulator = f64, axis = "j", kind = "sum", scheme = "direct"} : {{.+}} -> tensor<?x1xf32>
// CHECK: "reduction.reduce"({{.+}}) {accumulator = f64, axis = "i", kind = "sum", scheme = "direct"} : {{.+}} -> tensor<1x1xf32>
func.func @wide_gradients(%x_rows: tensor<?x1xf32>, %p_row: tensor<1x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0, 1]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %p = "reduction.var"(%p_row) {axis = ""} : (tensor<1x1xf32>) -> !reduction.lazy<"", vector<1xf32>>
  %m = "reduction.mul"(%x, %p) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%m) {accumulator = f64, axis = "j", kind = "logsumexp", scheme = "direct"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// The results stay before their gradients, and what both need is computed once: no result is an argument.
// CHECK-LABEL: @results_stay_beside_gradients
// CHECK-SAME: (%arg0: tensor<?x1xf32>, %arg1: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"})
// CHECK-SAME: -> (tensor<?x1xf32>, tensor<?x1xf32>) {
// CHECK: [[VALUE:%.+]] = "reduction.reduce"([[F:%.+]]) {axis = "j", kind = "logsumexp"}
// CHECK: [[CT:%.+]] = "reduction.var"(%arg1) {axis = "i"}
// CHECK: "reduction.var"([[VALUE]]) {axis = "i"}
// CHECK: [[GX:%.+]] = "reduction.reduce"({{.*}}) {axis = "j", kind = "sum"}
// CHECK-NEXT: return [[VALUE]], [[GX]]
func.func @results_stay_beside_gradients(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.derivatives = [{wrt = [0], with_results}]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%x) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// The gradient of a tangent: forward mode, then reverse mode.
// CHECK-LABEL: @modes_may_follow_each_other
// CHECK-SAME: (%arg0: tensor<?x1xf32>, %arg1: tensor<?x1xf32> {{{.*}}"tangent0"}, %arg2: tensor<?x1xf32> {{{.*}}"cotangent0"})
// CHECK: return {{%[^,]+}} : tensor<?x1xf32>
func.func @modes_may_follow_each_other(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.derivatives = [{tangents = [0]}, {wrt = [0]}]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.square"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%s) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// The gradient of a dense array is a table with a row for each pair, as the array is; the cotangent of a table is one too.
// CHECK-LABEL: func.func @dense(
// CHECK-SAME: [[A:%[a-z0-9]+]]: tensor<?x1xf32>
// CHECK-SAME: [[CT:%[a-z0-9]+]]: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"}
// CHECK-SAME: -> tensor<?x1xf32>
// CHECK: [[C:%.+]] = "reduction.var"([[CT]]) {axis = "i"}
// CHECK: [[T:%.+]] = "reduction.tabulate"({{%.+}}) {axis = "ji"}
// CHECK: return [[T]]
func.func @dense(%a: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%a) {axis = "ji"} : (tensor<?x1xf32>) -> !reduction.lazy<"ij", vector<1xf32>>
  %1 = "reduction.exp"(%0) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %2 = "reduction.reduce"(%1) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %2 : tensor<?x1xf32>
}

// CHECK-LABEL: func.func @table(
// CHECK-SAME: [[CT:%[a-z0-9]+]]: tensor<?x1xf32> {reduction.axis = "ij", reduction.name = "cotangent0"}
// CHECK: "reduction.var"([[CT]]) {axis = "ij"}
// CHECK: [[G:%.+]] = "reduction.reduce"({{%.+}}) {axis = "j", kind = "sum"}
// CHECK: return [[G]]
func.func @table(%x: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %1 = "reduction.exp"(%0) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %2 = "reduction.tabulate"(%1) {axis = "ij"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %2 : tensor<?x1xf32>
}

// The cotangent of a branch is 0 where the other one is taken, also after it has met an infinite derivative.
// CHECK-LABEL: func.func @branch(
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "j"}
// CHECK: [[C:%.+]] = "reduction.var"(%arg1) {axis = "i"}
// CHECK: [[CT:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK: [[FIRST:%.+]] = "reduction.where"([[C]], [[CT]], {{%.+}})
// CHECK: [[SECOND:%.+]] = "reduction.where"([[C]], {{%.+}}, [[CT]])
// CHECK: [[QUOTIENT:%.+]] = "reduction.div"([[FIRST]], [[X]])
// CHECK: [[AGAIN:%.+]] = "reduction.where"([[C]], [[QUOTIENT]], {{%.+}})
// CHECK: [[DX:%.+]] = "reduction.add"([[SECOND]], [[AGAIN]])
// CHECK: "reduction.reduce"([[DX]]) {axis = "i", kind = "sum"}
func.func @branch(%x: tensor<?x2xf64>, %c: tensor<?x2xf64>) -> tensor<?x2xf64> attributes {reduction.wrt = [0]} {
  %0 = "reduction.var"(%x) {axis = "j"} : (tensor<?x2xf64>) -> !reduction.lazy<"j", vector<2xf64>>
  %1 = "reduction.var"(%c) {axis = "i"} : (tensor<?x2xf64>) -> !reduction.lazy<"i", vector<2xf64>>
  %2 = "reduction.log"(%0) : (!reduction.lazy<"j", vector<2xf64>>) -> !reduction.lazy<"j", vector<2xf64>>
  %3 = "reduction.where"(%1, %2, %0) : (!reduction.lazy<"i", vector<2xf64>>, !reduction.lazy<"j", vector<2xf64>>, !reduction.lazy<"j", vector<2xf64>>) -> !reduction.lazy<"ij", vector<2xf64>>
  %4 = "reduction.reduce"(%3) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<2xf64>>) -> tensor<?x2xf64>
  return %4 : tensor<?x2xf64>
}
