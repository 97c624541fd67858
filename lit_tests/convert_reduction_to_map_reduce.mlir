// RUN: pylazy-opt %s --pass-pipeline='convert-reduction-to-map-reduce' | filecheck %s
// RUN: pylazy-opt %s --pass-pipeline='convert-reduction-to-map-reduce{target=sm_90}' | filecheck %s --check-prefix=NVIDIA

// Buffers are inputs, then results, with their names and axes; the body computes on inner vectors.
// CHECK-LABEL: func.func @sum_of_squared_distances(
// CHECK-SAME: [[XS:%[a-z0-9]+]]: memref<?x3xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"}
// CHECK-SAME: [[YS:%[a-z0-9]+]]: memref<?x3xf32> {reduction.axis = "j", reduction.name = "input1", reduction.role = "input"}
// CHECK-SAME: [[OUT:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}
// CHECK-SAME: ) {
// CHECK-NEXT: "reduction.map_reduce"() ({
// CHECK-NEXT: ^bb0([[I:%[a-z0-9]+]]: index, [[J:%[a-z0-9]+]]: index):
// CHECK-NEXT: [[Y:%.+]] = "reduction.load"([[YS]], [[J]])
// CHECK-NEXT: [[X:%.+]] = "reduction.load"([[XS]], [[I]])
// CHECK: [[D:%.+]] = arith.subf [[X]], [[Y]] {{.*}}vector<3xf32>
// CHECK-NEXT: [[S:%.+]] = arith.mulf [[D]], [[D]]
// CHECK-NEXT: [[R:%.+]] = "reduction.inner_reduce"([[S]]) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
// CHECK-NEXT: "reduction.accumulate"([[R]], [[OUT]]) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>}
// CHECK-NEXT: "reduction.yield"
// CHECK-NEXT: }) {columns = "j", rows = "i"}
// CHECK-NEXT: return
func.func @sum_of_squared_distances(%x_rows: tensor<?x3xf32> {reduction.name = "x"}, %y_rows: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
  %d = "reduction.sqdist"(%x, %y) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r = "reduction.reduce"(%d) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r : tensor<?x1xf32>
}

// Over i, the rows are those of j: the first index of the body is the row.
// CHECK-LABEL: func.func @over_rows(
// CHECK-SAME: [[XS:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "i"
// CHECK-SAME: [[YS:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "j"
// CHECK-SAME: memref<?x1xf32> {reduction.axis = "j", reduction.name = "output0"
// CHECK: ^bb0([[ROW:%[a-z0-9]+]]: index, [[COLUMN:%[a-z0-9]+]]: index):
// CHECK-NEXT: "reduction.load"([[YS]], [[ROW]])
// CHECK-NEXT: "reduction.load"([[XS]], [[COLUMN]])
// CHECK: {columns = "i", rows = "j"}
func.func @over_rows(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %m = "reduction.mul"(%x, %y) : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r = "reduction.reduce"(%m) {axis = "i", kind = "max"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r : tensor<?x1xf32>
}

// A parameter is loaded without an index; where an inner dimension of 1 meets a longer one, it is repeated.
// CHECK-LABEL: func.func @parameter_and_number(
// CHECK-SAME: [[XS:%[a-z0-9]+]]: memref<?x3xf64> {reduction.axis = "i"
// CHECK-SAME: [[PS:%[a-z0-9]+]]: memref<1x1xf64> {reduction.axis = ""
// CHECK: ^bb0([[I:%[a-z0-9]+]]: index
// CHECK-NEXT: [[TWO:%.+]] = arith.constant dense<2.000000e+00> : vector<1xf64>
// CHECK-NEXT: [[P:%.+]] = "reduction.load"([[PS]]) : (memref<1x1xf64>) -> vector<1xf64>
// CHECK-NEXT: [[Q:%.+]] = arith.addf [[P]], [[TWO]]
// CHECK-NEXT: [[X:%.+]] = "reduction.load"([[XS]], [[I]])
// CHECK-NEXT: [[WIDE:%.+]] = vector.broadcast [[Q]] : vector<1xf64> to vector<3xf64>
// CHECK: arith.mulf [[X]], [[WIDE]]
func.func @parameter_and_number(%x_rows: tensor<?x3xf64>, %p_row: tensor<1x1xf64>) -> tensor<?x3xf64> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf64>) -> !reduction.lazy<"i", vector<3xf64>>
  %p = "reduction.var"(%p_row) {axis = ""} : (tensor<1x1xf64>) -> !reduction.lazy<"", vector<1xf64>>
  %two = "reduction.constant"() {value = 2.0 : f64} : () -> !reduction.lazy<"", vector<1xf64>>
  %q = "reduction.add"(%p, %two) : (!reduction.lazy<"", vector<1xf64>>, !reduction.lazy<"", vector<1xf64>>) -> !reduction.lazy<"", vector<1xf64>>
  %m = "reduction.mul"(%x, %q) : (!reduction.lazy<"i", vector<3xf64>>, !reduction.lazy<"", vector<1xf64>>) -> !reduction.lazy<"i", vector<3xf64>>
  %r = "reduction.reduce"(%m) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf64>>) -> tensor<?x3xf64>
  return %r : tensor<?x3xf64>
}

// Powers of an integer and a half need no power function, also where a broadcast stands between.
// CHECK-LABEL: func.func @powers(
// CHECK: [[X:%.+]] = "reduction.load"
// CHECK-DAG: [[ROOT:%.+]] = math.sqrt [[X]]
// CHECK-DAG: [[SQUARE:%.+]] = arith.mulf [[X]], [[X]]
// CHECK: arith.mulf [[SQUARE]], [[ROOT]]
// CHECK-DAG: [[INVERSE:%.+]] = arith.divf {{%.+}}, [[X]]
// CHECK-DAG: [[RSQRT:%.+]] = math.rsqrt [[X]]
// CHECK: arith.mulf [[INVERSE]], [[RSQRT]]
// CHECK-NOT: math.powf
// CHECK: "reduction.yield"
// CHECK: func.func @other_powers
// CHECK: math.powf
func.func @powers(%y_rows: tensor<?x2xf64>) -> (tensor<?x2xf64>, tensor<?x2xf64>) {
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x2xf64>) -> !reduction.lazy<"j", vector<2xf64>>
  %a = "reduction.constant"() {value = 2.5 : f64} : () -> !reduction.lazy<"", vector<1xf64>>
  %b = "reduction.constant"() {value = -1.5 : f64} : () -> !reduction.lazy<"", vector<1xf64>>
  %p = "reduction.pow"(%y, %a) : (!reduction.lazy<"j", vector<2xf64>>, !reduction.lazy<"", vector<1xf64>>) -> !reduction.lazy<"j", vector<2xf64>>
  %q = "reduction.pow"(%y, %b) : (!reduction.lazy<"j", vector<2xf64>>, !reduction.lazy<"", vector<1xf64>>) -> !reduction.lazy<"j", vector<2xf64>>
  %r0 = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"j", vector<2xf64>>) -> tensor<?x2xf64>
  %r1 = "reduction.reduce"(%q) {axis = "j", kind = "sum"} : (!reduction.lazy<"j", vector<2xf64>>) -> tensor<?x2xf64>
  return %r0, %r1 : tensor<?x2xf64>, tensor<?x2xf64>
}
func.func @other_powers(%y_rows: tensor<?x2xf64>) -> tensor<?x2xf64> {
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x2xf64>) -> !reduction.lazy<"j", vector<2xf64>>
  %a = "reduction.constant"() {value = 4.5 : f64} : () -> !reduction.lazy<"", vector<1xf64>>
  %p = "reduction.pow"(%y, %a) : (!reduction.lazy<"j", vector<2xf64>>, !reduction.lazy<"", vector<1xf64>>) -> !reduction.lazy<"j", vector<2xf64>>
  %r = "reduction.reduce"(%p) {axis = "j", kind = "sum"} : (!reduction.lazy<"j", vector<2xf64>>) -> tensor<?x2xf64>
  return %r : tensor<?x2xf64>
}

// Positions and values are the two destinations of one kind of accumulation.
// CHECK-LABEL: func.func @positions_and_values(
// CHECK-SAME: [[ARGMIN:%[a-z0-9]+]]: memref<?x1xi64> {reduction.axis = "i", reduction.name = "output0"
// CHECK-SAME: [[ARGKMAX:%[a-z0-9]+]]: memref<?x4xi64> {reduction.axis = "i", reduction.name = "output1"
// CHECK-SAME: [[KMAX:%[a-z0-9]+]]: memref<?x4xf32> {reduction.axis = "i", reduction.name = "output2"
// CHECK: "reduction.accumulate"({{%.+}}, [[ARGMIN]]) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 0, 1>}
// CHECK: "reduction.accumulate"({{%.+}}, [[ARGKMAX]]) {k = 4 : i64, kind = "kmax", operandSegmentSizes = array<i32: 1, 0, 0, 1>}
// CHECK: "reduction.accumulate"({{%.+}}, [[KMAX]]) {k = 4 : i64, kind = "kmax", operandSegmentSizes = array<i32: 1, 0, 1, 0>}
func.func @positions_and_values(%y_rows: tensor<?x1xf32>) -> (tensor<?x1xi64>, tensor<?x4xi64>, tensor<?x4xf32>) {
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x1xf32>) -> !reduction.lazy<"j", vector<1xf32>>
  %r0 = "reduction.reduce"(%y) {axis = "j", kind = "argmin"} : (!reduction.lazy<"j", vector<1xf32>>) -> tensor<?x1xi64>
  %r1 = "reduction.reduce"(%y) {axis = "j", kind = "argkmax", k = 4} : (!reduction.lazy<"j", vector<1xf32>>) -> tensor<?x4xi64>
  %r2 = "reduction.reduce"(%y) {axis = "j", kind = "kmax", k = 4} : (!reduction.lazy<"j", vector<1xf32>>) -> tensor<?x4xf32>
  return %r0, %r1, %r2 : tensor<?x1xi64>, tensor<?x4xi64>, tensor<?x4xf32>
}

// CHECK-LABEL: func.func @weight(
// CHECK-SAME: [[OUT:%[a-z0-9]+]]: memref<?x2xf32> {reduction.axis = "i", reduction.name = "output0"
// CHECK: [[X:%.+]] = "reduction.load"({{%.+}}) : (memref<?x1xf32>, index)
// CHECK: [[Y:%.+]] = "reduction.load"({{%.+}}) : (memref<?x2xf32>, index)
// CHECK: "reduction.accumulate"([[X]], [[Y]], [[OUT]]) {kind = "logsumexp", operandSegmentSizes = array<i32: 1, 1, 1, 0>}
func.func @weight(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x2xf32>) -> tensor<?x2xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %y = "reduction.var"(%y_rows) {axis = "j"} : (tensor<?x2xf32>) -> !reduction.lazy<"j", vector<2xf32>>
  %r = "reduction.reduce"(%x, %y) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"i", vector<1xf32>>, !reduction.lazy<"j", vector<2xf32>>) -> tensor<?x2xf32>
  return %r : tensor<?x2xf32>
}

// A result that only feeds a later reduction is scratch, after the outputs; one row in all has no row axis.
// CHECK-LABEL: func.func @norm_of_sums(
// CHECK-SAME: [[XS:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "i", reduction.name = "input0", reduction.role = "input"}
// CHECK-SAME: [[OUT:%[a-z0-9]+]]: memref<1x1xf32> {reduction.axis = "", reduction.name = "output0", reduction.role = "output"}
// CHECK-SAME: [[SUMS:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "i", reduction.name = "scratch0", reduction.role = "scratch"}
// CHECK: "reduction.accumulate"({{%.+}}, [[SUMS]]) {kind = "sum"
// CHECK: }) {columns = "j", rows = "i"}
// CHECK: ^bb0({{%.+}}: index, [[I:%[a-z0-9]+]]: index):
// CHECK: [[S:%.+]] = "reduction.load"([[SUMS]], [[I]])
// CHECK: [[SQUARE:%.+]] = arith.mulf [[S]], [[S]]
// CHECK: "reduction.accumulate"([[SQUARE]], [[OUT]])
// CHECK: }) {columns = "i", rows = ""}
func.func @norm_of_sums(%x_rows: tensor<?x1xf32>) -> tensor<1x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r0 = "reduction.reduce"(%x) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %s = "reduction.var"(%r0) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %q = "reduction.square"(%s) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r1 = "reduction.reduce"(%q) {axis = "i", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<1x1xf32>
  return %r1 : tensor<1x1xf32>
}

// Two equal gradients are one reduction after `cse`; both results are written.
// CHECK-LABEL: func.func @one_reduction_twice(
// CHECK-SAME: [[FIRST:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0"
// CHECK-SAME: [[SECOND:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output1"
// CHECK: "reduction.accumulate"({{%.+}}, [[FIRST]])
// CHECK: "reduction.accumulate"({{%.+}}, [[SECOND]])
func.func @one_reduction_twice(%x_rows: tensor<?x1xf32>) -> (tensor<?x1xf32>, tensor<?x1xf32>) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %r = "reduction.reduce"(%x) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r, %r : tensor<?x1xf32>, tensor<?x1xf32>
}

// What a formula shares is computed once; what an axis or an index says is an extract or a concatenation.
// CHECK-LABEL: func.func @shared_and_cut(
// CHECK: [[X:%.+]] = "reduction.load"
// CHECK-NOT: "reduction.load"
// CHECK: [[TAIL:%.+]] = vector.extract_strided_slice [[X]] {offsets = [1], sizes = [2], strides = [1]}
// CHECK: "reduction.concat_rows"([[X]], [[TAIL]]) : (vector<3xf32>, vector<2xf32>) -> vector<5xf32>
func.func @shared_and_cut(%x_rows: tensor<?x3xf32>) -> tensor<?x5xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %e = "reduction.extract"(%x) {start = 1, size = 2} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  %c = "reduction.concat"(%x, %e) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<2xf32>>) -> !reduction.lazy<"i", vector<5xf32>>
  %r = "reduction.reduce"(%c) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<5xf32>>) -> tensor<?x5xf32>
  return %r : tensor<?x5xf32>
}

// Singular points are decided here: rsqrt(0) = 0.
// CHECK-LABEL: func.func @rsqrt_of_zero(
// CHECK: [[X:%.+]] = "reduction.load"
// CHECK: [[INVERSE:%.+]] = math.rsqrt [[X]]
// CHECK: [[IS_ZERO:%.+]] = arith.cmpf oeq, [[X]]
// CHECK: arith.select [[IS_ZERO]], {{%.+}}, [[INVERSE]]
func.func @rsqrt_of_zero(%x_rows: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %e = "reduction.rsqrt"(%x) : (!reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  %r = "reduction.reduce"(%e) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %r : tensor<?x1xf32>
}

// A function without a reduction is none of its business.
// CHECK-LABEL: func.func @no_reduction(
// CHECK-SAME: tensor<?x3xf32>
// CHECK: arith.addf
// CHECK-NEXT: return
func.func @no_reduction(%x: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %0 = arith.addf %x, %x : tensor<?x3xf32>
  return %0 : tensor<?x3xf32>
}

// Over ranges, a table follows the results for each axis whose rows are kept; a reduction to one row goes over no pairs.
// CHECK-LABEL: func.func @ranged(
// CHECK-SAME: memref<1x1xf32> {reduction.axis = "", reduction.name = "output1", reduction.role = "output"}
// CHECK-SAME: [[I:%[a-z0-9]+]]: memref<?x1xi64> {reduction.axis = "i", reduction.name = "ranges_i", reduction.role = "table"}
// CHECK-SAME: [[J:%[a-z0-9]+]]: memref<?x1xi64> {reduction.axis = "j", reduction.name = "ranges_j", reduction.role = "table"}
// CHECK-SAME: reduction.name = "scratch0"
// CHECK-NOT: attributes
// CHECK: "reduction.map_reduce"([[J]]) ({
// CHECK: {columns = "i", rows = "j"}
// CHECK: "reduction.map_reduce"([[I]]) ({
// CHECK: {columns = "j", rows = "i"}
// CHECK: "reduction.map_reduce"() ({
// CHECK: {columns = "i", rows = ""}
func.func @ranged(%x_rows: tensor<?x1xf32>) -> (tensor<?x1xf32>, tensor<1x1xf32>) attributes {reduction.ranged} {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %a = "reduction.reduce"(%x) {axis = "i", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %b = "reduction.reduce"(%x) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  %rows = "reduction.var"(%b) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %c = "reduction.reduce"(%rows) {axis = "i", kind = "sum"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<1x1xf32>
  return %a, %c : tensor<?x1xf32>, tensor<1x1xf32>
}

// How sums are added up is said on.
// CHECK-LABEL: func.func @wide_sum(
// CHECK: "reduction.accumulate"({{.+}}) {accumulator = f64, kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>, scheme = "kahan"}
func.func @wide_sum(%x_rows: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %r = "reduction.reduce"(%x) {accumulator = f64, axis = "j", kind = "sum", scheme = "kahan"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return %r : tensor<?x3xf32>
}

// A dense array is read at both indices, the slow one first; over i the row of the kernel is j. Indices are values.
// CHECK-LABEL: func.func @pairs(
// CHECK-SAME: [[A:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "ij", reduction.name = "input0", reduction.role = "input"}
// CHECK-SAME: [[B:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "ij", reduction.name = "input1", reduction.role = "input"}
// CHECK: ^bb0([[J:%[a-z0-9]+]]: index, [[I:%[a-z0-9]+]]: index):
// CHECK-DAG: "reduction.index_value"([[I]]) : (index) -> vector<1xf32>
// CHECK-DAG: "reduction.load_pair"([[A]], [[I]], [[J]])
// CHECK-DAG: "reduction.load_pair"([[B]], [[J]], [[I]])
// CHECK: {columns = "i", rows = "j"}
func.func @pairs(%a: tensor<?x1xf32>, %b: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %u = "reduction.var"(%a) {axis = "ij"} : (tensor<?x1xf32>) -> !reduction.lazy<"ij", vector<1xf32>>
  %v = "reduction.var"(%b) {axis = "ji"} : (tensor<?x1xf32>) -> !reduction.lazy<"ij", vector<1xf32>>
  %i = "reduction.index"() {axis = "i"} : () -> !reduction.lazy<"i", vector<1xf32>>
  %w = "reduction.mul"(%u, %v) : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %m = "reduction.mul"(%w, %i) : (!reduction.lazy<"ij", vector<1xf32>>, !reduction.lazy<"i", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
  %r = "reduction.reduce"(%m) {axis = "i", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
  return %r : tensor<?x1xf32>
}

// A table of all pairs is a sweep that keeps nothing: its slow index is the row, so that neighbours are columns.
// CHECK-LABEL: func.func @table(
// CHECK-SAME: [[OUT:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "ij", reduction.name = "output0", reduction.role = "output"}
// CHECK: ^bb0([[J:%[a-z0-9]+]]: index, [[I:%[a-z0-9]+]]: index):
// CHECK-NEXT: [[X:%.+]] = "reduction.load"({{%[a-z0-9]+}}, [[I]])
// CHECK-NEXT: "reduction.store_pair"([[X]], [[OUT]], [[J]], [[I]])
// CHECK: {columns = "i", rows = "j"}
// On a GPU its fast index is the row: neighbouring threads store side by side.
// NVIDIA-LABEL: func.func @table(
// NVIDIA: ^bb0([[I:%[a-z0-9]+]]: index, [[J:%[a-z0-9]+]]: index):
// NVIDIA: "reduction.store_pair"({{%[a-z0-9]+}}, {{%[a-z0-9]+}}, [[J]], [[I]])
// NVIDIA: {columns = "j", rows = "i"}
func.func @table(%x: tensor<?x1xf32>) -> tensor<?x1xf32> {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
  %1 = "reduction.tabulate"(%0) {axis = "ji"} : (!reduction.lazy<"i", vector<1xf32>>) -> tensor<?x1xf32>
  return %1 : tensor<?x1xf32>
}
