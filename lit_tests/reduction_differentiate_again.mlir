// RUN: pylazy-opt %s --pass-pipeline='reduction-differentiate' | filecheck %s

// Forward mode, and both modes on functions that are derivatives already. All start from the sum over j of exp(x y).

// The tangent of an argument comes last, with its rows; that of y is 0.
// CHECK-LABEL: @jvp
// CHECK-SAME: %arg2: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "tangent0"}) -> tensor<?x1xf32> {
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "i"}
// CHECK-NEXT: [[Y:%.+]] = "reduction.var"(%arg1) {axis = "j"}
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: [[E:%.+]] = "reduction.exp"([[P]])
// CHECK-NEXT: [[T:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK-NEXT: [[DP:%.+]] = "reduction.mul"([[T]], [[Y]])
// CHECK-NEXT: [[DE:%.+]] = "reduction.mul"([[DP]], [[E]])
// CHECK-NEXT: [[R:%.+]] = "reduction.reduce"([[DE]]) {axis = "j", kind = "sum"}
// CHECK-NEXT: return [[R]]
func.func @jvp(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.tangents = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %e = "reduction.exp"(%p) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%e) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// x stands once in the first factor and once in exp(x y): ct w y**2 exp(x y), and w y exp(x y) for the cotangent.
// CHECK-LABEL: @vjp_of_vjp
// CHECK-SAME: {reduction.axis = "i", reduction.name = "cotangent0"}
// CHECK-SAME: {reduction.axis = "i", reduction.name = "cotangent0_2"}) -> (tensor<?x1xf32>, tensor<?x1xf32>) {
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "i"}
// CHECK-NEXT: [[Y:%.+]] = "reduction.var"(%arg1) {axis = "j"}
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: [[E:%.+]] = "reduction.exp"([[P]])
// CHECK-NEXT: [[CT:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK-NEXT: [[W:%.+]] = "reduction.var"(%arg3) {axis = "i"}
// CHECK-NEXT: [[WY:%.+]] = "reduction.mul"([[W]], [[Y]])
// CHECK-NEXT: [[OF_CT:%.+]] = "reduction.mul"([[WY]], [[E]])
// CHECK-NEXT: [[OF_E:%.+]] = "reduction.mul"([[WY]], [[CT]])
// CHECK-NEXT: [[OF_P:%.+]] = "reduction.mul"([[OF_E]], [[E]])
// CHECK-NEXT: [[OF_X:%.+]] = "reduction.mul"([[OF_P]], [[Y]])
// CHECK-NEXT: [[GX:%.+]] = "reduction.reduce"([[OF_X]]) {axis = "j", kind = "sum"}
// CHECK-NEXT: [[GCT:%.+]] = "reduction.reduce"([[OF_CT]]) {axis = "j", kind = "sum"}
// CHECK-NEXT: return [[GX]], [[GCT]]
func.func @vjp_of_vjp(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>, %ct_rows: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"}) -> tensor<?x1xf32> attributes {reduction.wrt = [0, 2]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %e = "reduction.exp"(%p) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %ct = "reduction.var"(%ct_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.mul"(%ct, %e) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %g = "reduction.mul"(%s, %y) : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%g) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @jvp_of_vjp
// CHECK-SAME: %arg3: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "tangent0"}
// CHECK-SAME: %arg4: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "tangent2"}
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "i"}
// CHECK-NEXT: [[Y:%.+]] = "reduction.var"(%arg1) {axis = "j"}
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: [[E:%.+]] = "reduction.exp"([[P]])
// CHECK-NEXT: [[CT:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK-NEXT: [[DX:%.+]] = "reduction.var"(%arg3) {axis = "i"}
// CHECK-NEXT: [[DP:%.+]] = "reduction.mul"([[DX]], [[Y]])
// CHECK-NEXT: [[DE:%.+]] = "reduction.mul"([[DP]], [[E]])
// CHECK-NEXT: [[DCT:%.+]] = "reduction.var"(%arg4) {axis = "i"}
// CHECK-NEXT: [[FIRST:%.+]] = "reduction.mul"([[DCT]], [[E]])
// CHECK-NEXT: [[SECOND:%.+]] = "reduction.mul"([[DE]], [[CT]])
// CHECK-NEXT: [[SUM:%.+]] = "reduction.add"([[FIRST]], [[SECOND]])
// CHECK-NEXT: [[DG:%.+]] = "reduction.mul"([[SUM]], [[Y]])
// CHECK-NEXT: "reduction.reduce"([[DG]]) {axis = "j", kind = "sum"}
func.func @jvp_of_vjp(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>, %ct_rows: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"}) -> tensor<?x1xf32> attributes {reduction.tangents = [0, 2]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %e = "reduction.exp"(%p) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %ct = "reduction.var"(%ct_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.mul"(%ct, %e) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %g = "reduction.mul"(%s, %y) : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%g) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @vjp_of_jvp
// CHECK-SAME: {reduction.axis = "i", reduction.name = "tangent0"}
// CHECK-SAME: {reduction.axis = "i", reduction.name = "cotangent0"}) -> (tensor<?x1xf32>, tensor<?x1xf32>) {
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "i"}
// CHECK-NEXT: [[Y:%.+]] = "reduction.var"(%arg1) {axis = "j"}
// CHECK-NEXT: [[P:%.+]] = "reduction.mul"([[X]], [[Y]])
// CHECK-NEXT: [[E:%.+]] = "reduction.exp"([[P]])
// CHECK-NEXT: [[T:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK-NEXT: [[TY:%.+]] = "reduction.mul"([[T]], [[Y]])
// CHECK-NEXT: [[CT:%.+]] = "reduction.var"(%arg3) {axis = "i"}
// CHECK-NEXT: [[OF_TY:%.+]] = "reduction.mul"([[CT]], [[E]])
// CHECK-NEXT: [[OF_E:%.+]] = "reduction.mul"([[CT]], [[TY]])
// CHECK-NEXT: [[OF_T:%.+]] = "reduction.mul"([[OF_TY]], [[Y]])
// CHECK-NEXT: [[OF_P:%.+]] = "reduction.mul"([[OF_E]], [[E]])
// CHECK-NEXT: [[OF_X:%.+]] = "reduction.mul"([[OF_P]], [[Y]])
// CHECK-NEXT: [[GX:%.+]] = "reduction.reduce"([[OF_X]]) {axis = "j", kind = "sum"}
// CHECK-NEXT: [[GT:%.+]] = "reduction.reduce"([[OF_T]]) {axis = "j", kind = "sum"}
// CHECK-NEXT: return [[GX]], [[GT]]
func.func @vjp_of_jvp(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>, %t_rows: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "tangent0"}) -> tensor<?x1xf32> attributes {reduction.wrt = [0, 2]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %e = "reduction.exp"(%p) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %t = "reduction.var"(%t_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.mul"(%t, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %d = "reduction.mul"(%s, %e) : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%d) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// The tangent of a logsumexp is a sum weighted by shares, which read the saved result; no second logsumexp.
// CHECK-LABEL: @jvp_reads_the_result
// CHECK-SAME: {reduction.axis = "i", reduction.name = "saved0"}
// CHECK-SAME: {reduction.axis = "i", reduction.name = "tangent0"}
// CHECK: [[SAVED:%.+]] = "reduction.var"(%arg2) {axis = "i"}
// CHECK: "reduction.eq"([[SAVED]], {{%.+}})
// CHECK-NOT: logsumexp
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", kind = "sum"}
func.func @jvp_reads_the_result(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.tangents = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %p = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @tangent_of_a_step_is_zero
// CHECK: [[Z:%.+]] = "reduction.constant"() {value = 0.000000e+00 : f32}
// CHECK-NEXT: "reduction.reduce"([[Z]]) {axis = "j", kind = "sum"}
func.func @tangent_of_a_step_is_zero(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.tangents = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.step"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%s) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// The gradient of a parameter is one row, summed over all pairs; its cotangent is one row, read by all pairs.
// CHECK-LABEL: @vjp_of_a_sum_over_all_pairs
// CHECK-SAME: %arg1: tensor<1x1xf32> {reduction.axis = "", reduction.name = "cotangent0"}) -> tensor<?x1xf32> {
// CHECK: [[X:%.+]] = "reduction.var"(%arg0) {axis = "i"}
// CHECK-NEXT: [[CT:%.+]] = "reduction.var"(%arg1) {axis = ""}
// CHECK-NEXT: [[OF_S:%.+]] = "reduction.mul"([[CT]], [[X]])
// CHECK: [[OF_X:%.+]] = "reduction.mul"([[OF_S]], {{%.+}})
// CHECK-NEXT: "reduction.reduce"([[OF_X]]) {axis = "j", kind = "sum"} : ({{.*}}) -> tensor<?x1xf32>
func.func @vjp_of_a_sum_over_all_pairs(%x_rows: tensor<?x1xf32>) -> tensor<1x1xf32> attributes {reduction.wrt = [0]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.square"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %0 = "reduction.reduce"(%s) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %rows = "reduction.var"(%0) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%rows) {axis = "i", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<1x1xf32>
  return %r0 : tensor<1x1xf32>
}

// Both orders at once: the cotangent of the cotangent is the tangent of x.
// CHECK-LABEL: @two_orders_of_vjp
// CHECK-SAME: %arg1: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0"}
// CHECK-SAME: %arg2: tensor<?x1xf32> {reduction.axis = "i", reduction.name = "cotangent0_2"}) -> (tensor<?x1xf32>, tensor<?x1xf32>) {
// CHECK: return
func.func @two_orders_of_vjp(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.wrt = [[0], [0, 1]]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.exp"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%s) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// CHECK-LABEL: @two_orders_of_jvp
// CHECK-SAME: {reduction.axis = "i", reduction.name = "tangent0"}
// CHECK-SAME: {reduction.axis = "i", reduction.name = "tangent0_2"}
// CHECK-SAME: {reduction.axis = "i", reduction.name = "tangent1"}) -> tensor<?x1xf32> {
// CHECK: "reduction.add"
func.func @two_orders_of_jvp(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> attributes {reduction.tangents = [[0], [0, 1]]} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %s = "reduction.exp"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%s) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}
