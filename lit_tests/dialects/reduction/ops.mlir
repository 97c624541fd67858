// RUN: pylazy-opt %s | filecheck %s

// Every op is read and written back, with its verifier in between.

// CHECK-LABEL: @unary_elementwise
// CHECK: "reduction.neg"(
// CHECK: "reduction.abs"(
// CHECK: "reduction.exp"(
// CHECK: "reduction.log"(
// CHECK: "reduction.sqrt"(
// CHECK: "reduction.rsqrt"(
// CHECK: "reduction.square"(
// CHECK: "reduction.reciprocal"(
// CHECK: "reduction.sin"(
// CHECK: "reduction.cos"(
// CHECK: "reduction.tan"(
// CHECK: "reduction.asin"(
// CHECK: "reduction.acos"(
// CHECK: "reduction.atan"(
// CHECK: "reduction.sinh"(
// CHECK: "reduction.cosh"(
// CHECK: "reduction.tanh"(
// CHECK: "reduction.exp2"(
// CHECK: "reduction.log2"(
// CHECK: "reduction.log1p"(
// CHECK: "reduction.expm1"(
// CHECK: "reduction.cbrt"(
// CHECK: "reduction.erf"(
// CHECK: "reduction.erfc"(
// CHECK: "reduction.sigmoid"(
// CHECK: "reduction.softplus"(
// CHECK: "reduction.relu"(
// CHECK: "reduction.step"(
// CHECK: "reduction.sign"(
// CHECK: "reduction.floor"(
// CHECK: "reduction.ceil"(
// CHECK: "reduction.trunc"(
// CHECK: "reduction.round"(
// CHECK: "reduction.xlogx"(
// CHECK: "reduction.sinxdivx"(
// CHECK: "reduction.isnan"(
// CHECK: "reduction.logical_not"(
// CHECK: "reduction.powi"(
func.func @unary_elementwise(%x_rows: tensor<?x3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %v0 = "reduction.neg"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v1 = "reduction.abs"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v2 = "reduction.exp"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v3 = "reduction.log"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v4 = "reduction.sqrt"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v5 = "reduction.rsqrt"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v6 = "reduction.square"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v7 = "reduction.reciprocal"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v8 = "reduction.sin"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v9 = "reduction.cos"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v10 = "reduction.tan"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v11 = "reduction.asin"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v12 = "reduction.acos"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v13 = "reduction.atan"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v14 = "reduction.sinh"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v15 = "reduction.cosh"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v16 = "reduction.tanh"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v17 = "reduction.exp2"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v18 = "reduction.log2"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v19 = "reduction.log1p"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v20 = "reduction.expm1"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v21 = "reduction.cbrt"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v22 = "reduction.erf"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v23 = "reduction.erfc"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v24 = "reduction.sigmoid"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v25 = "reduction.softplus"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v26 = "reduction.relu"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v27 = "reduction.step"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v28 = "reduction.sign"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v29 = "reduction.floor"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v30 = "reduction.ceil"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v31 = "reduction.trunc"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v32 = "reduction.round"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v33 = "reduction.xlogx"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v34 = "reduction.sinxdivx"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v35 = "reduction.isnan"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v36 = "reduction.logical_not"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %v37 = "reduction.powi"(%x) {exponent = 3 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r1 = "reduction.reduce"(%v1) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r2 = "reduction.reduce"(%v2) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r3 = "reduction.reduce"(%v3) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r4 = "reduction.reduce"(%v4) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r5 = "reduction.reduce"(%v5) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r6 = "reduction.reduce"(%v6) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r7 = "reduction.reduce"(%v7) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r8 = "reduction.reduce"(%v8) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r9 = "reduction.reduce"(%v9) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r10 = "reduction.reduce"(%v10) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r11 = "reduction.reduce"(%v11) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r12 = "reduction.reduce"(%v12) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r13 = "reduction.reduce"(%v13) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r14 = "reduction.reduce"(%v14) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r15 = "reduction.reduce"(%v15) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r16 = "reduction.reduce"(%v16) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r17 = "reduction.reduce"(%v17) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r18 = "reduction.reduce"(%v18) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r19 = "reduction.reduce"(%v19) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r20 = "reduction.reduce"(%v20) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r21 = "reduction.reduce"(%v21) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r22 = "reduction.reduce"(%v22) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r23 = "reduction.reduce"(%v23) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r24 = "reduction.reduce"(%v24) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r25 = "reduction.reduce"(%v25) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r26 = "reduction.reduce"(%v26) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r27 = "reduction.reduce"(%v27) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r28 = "reduction.reduce"(%v28) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r29 = "reduction.reduce"(%v29) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r30 = "reduction.reduce"(%v30) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r31 = "reduction.reduce"(%v31) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r32 = "reduction.reduce"(%v32) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r33 = "reduction.reduce"(%v33) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r34 = "reduction.reduce"(%v34) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r35 = "reduction.reduce"(%v35) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r36 = "reduction.reduce"(%v36) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %r37 = "reduction.reduce"(%v37) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15, %r16, %r17, %r18, %r19, %r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27, %r28, %r29, %r30, %r31, %r32, %r33, %r34, %r35, %r36, %r37 : tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>
}

// CHECK-LABEL: @binary_elementwise
// CHECK: "reduction.add"(
// CHECK: "reduction.sub"(
// CHECK: "reduction.mul"(
// CHECK: "reduction.div"(
// CHECK: "reduction.pow"(
// CHECK: "reduction.atan2"(
// CHECK: "reduction.minimum"(
// CHECK: "reduction.maximum"(
// CHECK: "reduction.hypot"(
// CHECK: "reduction.mod0"(
// CHECK: "reduction.eq"(
// CHECK: "reduction.ne"(
// CHECK: "reduction.lt"(
// CHECK: "reduction.le"(
// CHECK: "reduction.gt"(
// CHECK: "reduction.ge"(
// CHECK: "reduction.logical_and"(
// CHECK: "reduction.logical_or"(
func.func @binary_elementwise(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %v0 = "reduction.add"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v1 = "reduction.sub"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v2 = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v3 = "reduction.div"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v4 = "reduction.pow"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v5 = "reduction.atan2"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v6 = "reduction.minimum"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v7 = "reduction.maximum"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v8 = "reduction.hypot"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v9 = "reduction.mod0"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v10 = "reduction.eq"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v11 = "reduction.ne"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v12 = "reduction.lt"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v13 = "reduction.le"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v14 = "reduction.gt"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v15 = "reduction.ge"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v16 = "reduction.logical_and"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v17 = "reduction.logical_or"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r1 = "reduction.reduce"(%v1) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r2 = "reduction.reduce"(%v2) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r3 = "reduction.reduce"(%v3) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r4 = "reduction.reduce"(%v4) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r5 = "reduction.reduce"(%v5) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r6 = "reduction.reduce"(%v6) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r7 = "reduction.reduce"(%v7) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r8 = "reduction.reduce"(%v8) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r9 = "reduction.reduce"(%v9) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r10 = "reduction.reduce"(%v10) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r11 = "reduction.reduce"(%v11) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r12 = "reduction.reduce"(%v12) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r13 = "reduction.reduce"(%v13) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r14 = "reduction.reduce"(%v14) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r15 = "reduction.reduce"(%v15) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r16 = "reduction.reduce"(%v16) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r17 = "reduction.reduce"(%v17) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15, %r16, %r17 : tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>
}

// CHECK-LABEL: @ternary_elementwise
// CHECK: "reduction.where"(
// CHECK: "reduction.ifelse"(
// CHECK: "reduction.clamp"(
func.func @ternary_elementwise(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>, %z_rows: tensor<?x3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %z = "reduction.var"(%z_rows) {axis = ""} : (tensor<?x3xf32>) -> !reduction.lazy<"", vector<3xf32>>
  %v0 = "reduction.where"(%x, %y, %z) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>, !reduction.lazy<"", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v1 = "reduction.ifelse"(%x, %y, %z) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>, !reduction.lazy<"", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %v2 = "reduction.clamp"(%x, %y, %z) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>, !reduction.lazy<"", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r1 = "reduction.reduce"(%v1) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  %r2 = "reduction.reduce"(%v2) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0, %r1, %r2 : tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>
}

// CHECK-LABEL: @unary_scalar
// CHECK: "reduction.inner_sum"(
// CHECK: "reduction.inner_min"(
// CHECK: "reduction.inner_max"(
// CHECK: "reduction.inner_argmin"(
// CHECK: "reduction.inner_argmax"(
// CHECK: "reduction.sqnorm2"(
// CHECK: "reduction.norm2"(
func.func @unary_scalar(%x_rows: tensor<?x3xf32>) -> (tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %v0 = "reduction.inner_sum"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %v1 = "reduction.inner_min"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %v2 = "reduction.inner_max"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %v3 = "reduction.inner_argmin"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %v4 = "reduction.inner_argmax"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %v5 = "reduction.sqnorm2"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %v6 = "reduction.norm2"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %r1 = "reduction.reduce"(%v1) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %r2 = "reduction.reduce"(%v2) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %r3 = "reduction.reduce"(%v3) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %r4 = "reduction.reduce"(%v4) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %r5 = "reduction.reduce"(%v5) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %r6 = "reduction.reduce"(%v6) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0, %r1, %r2, %r3, %r4, %r5, %r6 : tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>
}

// CHECK-LABEL: @unary_first
// CHECK: "reduction.normalize"(
func.func @unary_first(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %v0 = "reduction.normalize"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @binary_pair
// CHECK: "reduction.dot"(
// CHECK: "reduction.sqdist"(
func.func @binary_pair(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> (tensor<?x1xf32>, tensor<?x1xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %v0 = "reduction.dot"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %v1 = "reduction.sqdist"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  %r1 = "reduction.reduce"(%v1) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0, %r1 : tensor<?x1xf32>, tensor<?x1xf32>
}

// CHECK-LABEL: @binary_concat
// CHECK: "reduction.concat"(
func.func @binary_concat(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x6xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %v0 = "reduction.concat"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<6xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<6xf32>>) -> tensor<?x6xf32>
  return %r0 : tensor<?x6xf32>
}

// CHECK-LABEL: @unary_extract
// CHECK: "reduction.extract"(
func.func @unary_extract(%x_rows: tensor<?x3xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %v0 = "reduction.extract"(%x) {start = 1 : i64, size = 2 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}

// CHECK-LABEL: @unary_broadcast
// CHECK: "reduction.broadcast"(
func.func @unary_broadcast(%x_rows: tensor<?x1xf32>) -> tensor<?x4xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %v0 = "reduction.broadcast"(%x) {size = 4 : i64} : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<4xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<4xf32>>) -> tensor<?x4xf32>
  return %r0 : tensor<?x4xf32>
}

// CHECK-LABEL: @unary_one_hot
// CHECK: "reduction.one_hot"(
func.func @unary_one_hot(%x_rows: tensor<?x1xf32>) -> tensor<?x4xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %v0 = "reduction.one_hot"(%x) {size = 4 : i64} : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<4xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<4xf32>>) -> tensor<?x4xf32>
  return %r0 : tensor<?x4xf32>
}

// CHECK-LABEL: @unary_inner_prod
// CHECK: "reduction.inner_prod"(
func.func @unary_inner_prod(%x_rows: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %v0 = "reduction.inner_prod"(%x) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r0 : tensor<?x1xf32>
}

// A matrix of 2 rows and 3 columns times a vector.
// CHECK-LABEL: @binary_contract
// CHECK: "reduction.contract"(%{{.+}}, %{{.+}}) {kept = [0], left = [0, 1], right = [1], sizes = [2, 3]}
func.func @binary_contract(%x_rows: tensor<?x6xf32>, %y_rows: tensor<?x3xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x6xf32>) -> !reduction.lazy<"i", vector<6xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %v0 = "reduction.contract"(%x, %y) {sizes = [2, 3], left = [0, 1], right = [1], kept = [0]} : (!reduction.lazy<"i", vector<6xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<2xf32>>
  %r0 = "reduction.reduce"(%v0) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<2xf32>>) -> tensor<?x2xf32>
  return %r0 : tensor<?x2xf32>
}

// CHECK-LABEL: @leaves
// CHECK: "reduction.var"(%arg0) {axis = "i"}
// CHECK: "reduction.var"(%arg1) {axis = "j"}
// CHECK: "reduction.var"(%arg2) {axis = ""}
// CHECK: "reduction.constant"() {value = 1.500000e+00 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
func.func @leaves(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>, %p_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %p = "reduction.var"(%p_rows) {axis = ""} : (tensor<?x3xf32>) -> !reduction.lazy<"", vector<3xf32>>
  %c = "reduction.constant"() {value = 1.5 : f32} : () -> !reduction.lazy<"", vector<1xf32>>
  %d = "reduction.add"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %e = "reduction.mul"(%d, %p) : (!reduction.lazy<"ij", vector<3xf32>>, !reduction.lazy<"", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %f = "reduction.mul"(%e, %c) : (!reduction.lazy<"ij", vector<3xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%f) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0 : tensor<?x3xf32>
}

// CHECK-LABEL: @reductions
// CHECK: "reduction.reduce"({{.*}}) {axis = "i", kind = "sum"}
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", kind = "mean"}
// CHECK: "reduction.reduce"({{.*}}) {axis = "i", kind = "prod"}
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", kind = "min"}
// CHECK: "reduction.reduce"({{.*}}) {axis = "i", kind = "max"}
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", kind = "argmin"}
// CHECK: "reduction.reduce"({{.*}}) {axis = "i", kind = "argmax"}
func.func @reductions(%x_rows: tensor<?x3xf64>, %y_rows: tensor<?x3xf64>) -> (tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xi64>, tensor<?x3xi64>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf64>) -> !reduction.lazy<"i", vector<3xf64>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf64>) -> !reduction.lazy<"j", vector<3xf64>>
  %d = "reduction.sub"(%x, %y) : (!reduction.lazy<"i", vector<3xf64>>, !reduction.lazy<"j", vector<3xf64>>) -> !reduction.lazy<"ij", vector<3xf64>>
  %r0 = "reduction.reduce"(%d) {axis = "i", kind = "sum"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xf64>
  %r1 = "reduction.reduce"(%d) {axis = "j", kind = "mean"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xf64>
  %r2 = "reduction.reduce"(%d) {axis = "i", kind = "prod"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xf64>
  %r3 = "reduction.reduce"(%d) {axis = "j", kind = "min"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xf64>
  %r4 = "reduction.reduce"(%d) {axis = "i", kind = "max"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xf64>
  %r5 = "reduction.reduce"(%d) {axis = "j", kind = "argmin"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xi64>
  %r6 = "reduction.reduce"(%d) {axis = "i", kind = "argmax"} : (!reduction.lazy<"ij", vector<3xf64>>) -> tensor<?x3xi64>
  return %r0, %r1, %r2, %r3, %r4, %r5, %r6 : tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xf64>, tensor<?x3xi64>, tensor<?x3xi64>
}

// CHECK-LABEL: @best_k_reductions
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", k = 2 : i64, kind = "kmin"} : ({{.*}}) -> tensor<?x6xf32>
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", k = 2 : i64, kind = "kmax"} : ({{.*}}) -> tensor<?x6xf32>
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", k = 2 : i64, kind = "argkmin"} : ({{.*}}) -> tensor<?x6xi64>
// CHECK: "reduction.reduce"({{.*}}) {axis = "j", k = 2 : i64, kind = "argkmax"} : ({{.*}}) -> tensor<?x6xi64>
func.func @best_k_reductions(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> (tensor<?x6xf32>, tensor<?x6xf32>, tensor<?x6xi64>, tensor<?x6xi64>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %d = "reduction.sub"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  %r0 = "reduction.reduce"(%d) {axis = "j", kind = "kmin", k = 2 : i64} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x6xf32>
  %r1 = "reduction.reduce"(%d) {axis = "j", kind = "kmax", k = 2 : i64} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x6xf32>
  %r2 = "reduction.reduce"(%d) {axis = "j", kind = "argkmin", k = 2 : i64} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x6xi64>
  %r3 = "reduction.reduce"(%d) {axis = "j", kind = "argkmax", k = 2 : i64} : (!reduction.lazy<"ij", vector<3xf32>>) -> tensor<?x6xi64>
  return %r0, %r1, %r2, %r3 : tensor<?x6xf32>, tensor<?x6xf32>, tensor<?x6xi64>, tensor<?x6xi64>
}

// CHECK-LABEL: @weighted_reductions
// CHECK: kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
// CHECK: kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> tensor<?x3xf32>
// CHECK: kind = "softmax"}
func.func @weighted_reductions(%x_rows: tensor<?x3xf32>, %y_rows: tensor<?x3xf32>) -> (tensor<?x1xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %d = "reduction.sqdist"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r0 = "reduction.reduce"(%d) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  %r1 = "reduction.reduce"(%d, %y) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> tensor<?x3xf32>
  %r2 = "reduction.reduce"(%d, %y) {axis = "j", kind = "softmax"} : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> tensor<?x3xf32>
  return %r0, %r1, %r2 : tensor<?x1xf32>, tensor<?x3xf32>, tensor<?x3xf32>
}

// CHECK-LABEL: @one_row
// CHECK: "reduction.reduce"({{.*}}) -> tensor<1x3xf32>
func.func @one_row(%x_rows: tensor<?x3xf32>) -> tensor<1x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.reduce"(%x) {axis = "i", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<1x3xf32>
  return %r : tensor<1x3xf32>
}

// CHECK-LABEL: @kernel
// CHECK: "reduction.map"() ({
// CHECK-NEXT: ^bb0(%{{.+}}: index):
// CHECK: [[X:%.+]] = "reduction.load"({{%.+}}, {{%.+}}) : (memref<?x3xf32>, index) -> vector<3xf32>
// CHECK: "reduction.store"([[X]], {{%.+}}, {{%.+}}) : (vector<3xf32>, memref<?x3xf32>, index) -> ()
// CHECK: "reduction.yield"() : () -> ()
// CHECK-NEXT: {rows = "i"}
// CHECK: "reduction.map_reduce"() ({
// CHECK-NEXT: ^bb0(%{{.+}}: index, %{{.+}}: index):
// CHECK: [[P:%.+]] = "reduction.load"({{%.+}}) : (memref<1x3xf32>) -> vector<3xf32>
// CHECK: [[S:%.+]] = "reduction.inner_reduce"([[P]]) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
// CHECK: [[JOINED:%.+]] = "reduction.concat_rows"({{%.+}}, [[P]]) : (vector<3xf32>, vector<3xf32>) -> vector<6xf32>
// CHECK: "reduction.contract_rows"([[JOINED]], [[P]]) {kept = [0], left = [0, 1], right = [1], sizes = [2, 3]}
// CHECK: "reduction.positions"() : () -> vector<3xf32>
// CHECK: "reduction.accumulate"([[S]], {{%.+}}) {kind = "sum"
// CHECK: "reduction.accumulate"([[S]], {{%.+}}, {{%.+}}) {kind = "min"
// CHECK: {columns = "j", rows = "i"}
func.func @kernel(%x: memref<?x3xf32>, %y: memref<?x3xf32>, %p: memref<1x3xf32>, %scaled: memref<?x3xf32>, %sum: memref<?x1xf32>, %least: memref<?x1xf32>, %where: memref<?x1xi64>) {
  "reduction.map"() ({
  ^bb0(%i: index):
    %row = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    "reduction.store"(%row, %scaled, %i) : (vector<3xf32>, memref<?x3xf32>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %column = "reduction.load"(%y, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %parameter = "reduction.load"(%p) : (memref<1x3xf32>) -> vector<3xf32>
    %total = "reduction.inner_reduce"(%parameter) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    %joined = "reduction.concat_rows"(%column, %parameter) : (vector<3xf32>, vector<3xf32>) -> vector<6xf32>
    %product = "reduction.contract_rows"(%joined, %parameter) {sizes = [2, 3], left = [0, 1], right = [1], kept = [0]} : (vector<6xf32>, vector<3xf32>) -> vector<2xf32>
    %numbers = "reduction.positions"() : () -> vector<3xf32>
    "reduction.accumulate"(%total, %sum) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.accumulate"(%total, %least, %where) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 1, 1>} : (vector<1xf32>, memref<?x1xf32>, memref<?x1xi64>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// CHECK-LABEL: @listed_pairs
// CHECK-SAME: [[TABLE:%[a-z0-9]+]]: memref<?x1xi64>
// CHECK: "reduction.map_reduce"([[TABLE]]) ({
// CHECK: {columns = "i", rows = "j"} : (memref<?x1xi64>) -> ()
func.func @listed_pairs(%x: memref<?x1xf32>, %sum: memref<?x1xf32>, %table: memref<?x1xi64>) {
  "reduction.map_reduce"(%table) ({
  ^bb0(%j: index, %i: index):
    %column = "reduction.load"(%x, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%column, %sum) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "i", rows = "j"} : (memref<?x1xi64>) -> ()
  return
}

// How sums are added up: the type of the running sum, and the scheme.
// CHECK-LABEL: func.func @sums(
// CHECK: "reduction.reduce"([[X:%.+]]) {accumulator = f64, axis = "j", kind = "sum", scheme = "kahan"}
// CHECK: "reduction.reduce"([[X]]) {axis = "j", kind = "mean", scheme = "direct"}
// CHECK: "reduction.reduce"([[X]]) {accumulator = f64, axis = "j", kind = "prod"}
func.func @sums(%x: tensor<?x3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.reduce"(%0) {accumulator = f64, axis = "j", kind = "sum", scheme = "kahan"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %2 = "reduction.reduce"(%0) {axis = "j", kind = "mean", scheme = "direct"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  %3 = "reduction.reduce"(%0) {accumulator = f64, axis = "j", kind = "prod"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %1, %2, %3 : tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>
}

// What varies with the pair but belongs to no row and no column: numbers of indices, and dense arrays of both layouts.
// CHECK-LABEL: @indices_and_pairs
// CHECK: "reduction.index"() {axis = "i"} : () -> !reduction.lazy<"i", vector<1xf32>>
// CHECK: "reduction.var"({{.*}}) {axis = "ij"} : (tensor<?x2xf32>) -> !reduction.lazy<"ij", vector<2xf32>>
// CHECK: "reduction.var"({{.*}}) {axis = "ji"} : (tensor<?x2xf32>) -> !reduction.lazy<"ij", vector<2xf32>>
func.func @indices_and_pairs(%a: tensor<?x2xf32>, %b: tensor<?x2xf32>) -> (tensor<?x2xf32>, tensor<?x1xf32>) {
  %i = "reduction.index"() {axis = "i"} : () -> !reduction.lazy<"i", vector<1xf32>>
  %u = "reduction.var"(%a) {axis = "ij"} : (tensor<?x2xf32>) -> !reduction.lazy<"ij", vector<2xf32>>
  %v = "reduction.var"(%b) {axis = "ji"} : (tensor<?x2xf32>) -> !reduction.lazy<"ij", vector<2xf32>>
  %w = "reduction.add"(%u, %v) : (!reduction.lazy<"ij", vector<2xf32>>, !reduction.lazy<"ij", vector<2xf32>>) -> !reduction.lazy<"ij", vector<2xf32>>
  %r = "reduction.reduce"(%w) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<2xf32>>) -> tensor<?x2xf32>
  %s = "reduction.reduce"(%i) {axis = "i", kind = "max"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r, %s : tensor<?x2xf32>, tensor<?x1xf32>
}

// CHECK-LABEL: @pairs_of_a_kernel
// CHECK: "reduction.load_pair"({{.*}}) : (memref<?x1xf32>, index, index) -> vector<1xf32>
// CHECK: "reduction.index_value"({{.*}}) : (index) -> vector<1xf32>
func.func @pairs_of_a_kernel(%a: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x1xf32>, index, index) -> vector<1xf32>
    %1 = "reduction.index_value"(%j) : (index) -> vector<1xf32>
    %2 = arith.mulf %0, %1 : vector<1xf32>
    "reduction.accumulate"(%2, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// Two series of three and two elements, and gamma: the value, its derivative by all six numbers, and the Hessian times
// a vector.
// CHECK-LABEL: @soft_dtw
// CHECK: "reduction.soft_dtw"({{.*}}) -> !reduction.lazy<"ij", vector<1xf32>>
// CHECK: "reduction.soft_dtw_gradient"({{.*}}) -> !reduction.lazy<"ij", vector<6xf32>>
// CHECK: "reduction.soft_dtw_hessian"({{.*}}) -> !reduction.lazy<"ij", vector<6xf32>>
func.func @soft_dtw(%xs: tensor<?x3xf32>, %ys: tensor<?x2xf32>, %gammas: tensor<1x1xf32>) -> (tensor<?x1xf32>, tensor<?x6xf32>) {
  %x = "reduction.var"(%xs) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%ys) {axis = "j"} : (tensor<?x2xf32>) -> !reduction.lazy<"j", vector<2xf32>>
  %gamma = "reduction.var"(%gammas) {axis = ""} : (tensor<1x1xf32>) -> !reduction.lazy<"", vector<1xf32>>
  %v = "reduction.soft_dtw"(%x, %y, %gamma) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<2xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %g = "reduction.soft_dtw_gradient"(%x, %y, %gamma) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<2xf32>>, !reduction.lazy<"", vector<1xf32>>) -> !reduction.lazy<"ij", vector<6xf32>>
  %h = "reduction.soft_dtw_hessian"(%x, %y, %gamma, %g) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<2xf32>>, !reduction.lazy<"", vector<1xf32>>, !reduction.lazy<"ij", vector<6xf32>>) -> !reduction.lazy<"ij", vector<6xf32>>
  %r = "reduction.reduce"(%v) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  %s = "reduction.reduce"(%h) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<6xf32>>) -> tensor<?x6xf32>
  return %r, %s : tensor<?x1xf32>, tensor<?x6xf32>
}

// CHECK-LABEL: @soft_dtw_of_a_kernel
// CHECK: "reduction.soft_dtw_rows"({{.*}}) {order = 2 : i64} : (vector<3xf32>, vector<2xf32>, vector<1xf32>, vector<6xf32>) -> vector<6xf32>
func.func @soft_dtw_of_a_kernel(%x: vector<3xf32>, %y: vector<2xf32>, %gamma: vector<1xf32>, %u: vector<6xf32>) {
  %0 = "reduction.soft_dtw_rows"(%x, %y, %gamma, %u) {order = 2 : i64} : (vector<3xf32>, vector<2xf32>, vector<1xf32>, vector<6xf32>) -> vector<6xf32>
  return
}

// CHECK-LABEL: @table
// CHECK: "reduction.tabulate"({{.*}}) {axis = "ij"} : (!reduction.lazy<"i", vector<2xf32>>) -> tensor<?x2xf32>
func.func @table(%a: tensor<?x2xf32>) -> tensor<?x2xf32> {
  %u = "reduction.var"(%a) {axis = "i"} : (tensor<?x2xf32>) -> !reduction.lazy<"i", vector<2xf32>>
  %r = "reduction.tabulate"(%u) {axis = "ij"} : (!reduction.lazy<"i", vector<2xf32>>) -> tensor<?x2xf32>
  return %r : tensor<?x2xf32>
}

// CHECK-LABEL: @table_of_a_kernel
// CHECK: "reduction.store_pair"({{.*}}) : (vector<1xf32>, memref<?x1xf32>, index, index) -> ()
func.func @table_of_a_kernel(%a: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%a, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.store_pair"(%0, %out, %i, %j) : (vector<1xf32>, memref<?x1xf32>, index, index) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}
