// RUN: pylazy-opt %s --pass-pipeline='reduction-hoist' | filecheck %s

// What a column alone decides is stored once a column: |y|^2 by a `map` that runs first, over scratch of its own.
// CHECK-LABEL: func.func @of_a_column(
// CHECK-SAME: [[YS:%[a-z0-9]+]]: memref<?x3xf32> {reduction.axis = "j"
// CHECK-SAME: [[STORED:%[a-z0-9]+]]: memref<?x1xf32> {reduction.axis = "j", reduction.name = "hoisted3", reduction.role = "scratch"})
// CHECK-NEXT: "reduction.map"() ({
// CHECK-NEXT: ^bb0([[COLUMN:%[a-z0-9]+]]: index):
// CHECK-NEXT: [[Y:%.+]] = "reduction.load"([[YS]], [[COLUMN]])
// CHECK-NEXT: [[SQUARES:%.+]] = arith.mulf [[Y]], [[Y]]
// CHECK-NEXT: [[S:%.+]] = "reduction.inner_reduce"([[SQUARES]])
// CHECK-NEXT: "reduction.store"([[S]], [[STORED]], [[COLUMN]])
// CHECK-NEXT: "reduction.yield"
// CHECK-NEXT: }) {rows = "j"}
// CHECK-NEXT: "reduction.map_reduce"() ({
// CHECK-NEXT: ^bb0({{%[a-z0-9]+}}: index, [[J:%[a-z0-9]+]]: index):
// CHECK-NOT: inner_reduce
// CHECK: [[LOADED:%.+]] = "reduction.load"([[STORED]], [[J]])
// CHECK: arith.mulf {{%.+}}, [[LOADED]]
func.func @of_a_column(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %ys: memref<?x3xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %squares = arith.mulf %y, %y : vector<3xf32>
    %s = "reduction.inner_reduce"(%squares) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    %m = arith.mulf %x, %s : vector<1xf32>
    "reduction.accumulate"(%m, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// Also where nothing but the accumulation follows, and over the other axis.
// CHECK-LABEL: func.func @accumulated_at_once(
// CHECK: math.exp
// CHECK: "reduction.store"
// CHECK: }) {rows = "i"}
// CHECK: ^bb0({{%[a-z0-9]+}}: index, [[COLUMN:%[a-z0-9]+]]: index):
// CHECK-NEXT: [[LOADED:%.+]] = "reduction.load"({{%.+}}, [[COLUMN]])
// CHECK-NEXT: "reduction.accumulate"([[LOADED]],
// CHECK: {columns = "i", rows = "j"}
func.func @accumulated_at_once(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "j", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%j: index, %i: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.exp %x : vector<1xf32>
    "reduction.accumulate"(%e, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "i", rows = "j"} : () -> ()
  return
}

// Loads and moves cost as much as what would replace them.
// CHECK-LABEL: func.func @moves_stay(
// CHECK-NEXT: "reduction.map_reduce"
// CHECK: "reduction.load"
// CHECK: vector.broadcast
// CHECK: vector.extract_strided_slice
// CHECK: "reduction.concat_rows"
// CHECK-NOT: "reduction.store"
// CHECK: return
func.func @moves_stay(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x5xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %wide = vector.broadcast %y : vector<1xf32> to vector<3xf32>
    %part = vector.extract_strided_slice %wide {offsets = [1], sizes = [2], strides = [1]} : vector<3xf32> to vector<2xf32>
    %joined = "reduction.concat_rows"(%wide, %part) : (vector<3xf32>, vector<2xf32>) -> vector<5xf32>
    "reduction.accumulate"(%joined, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<5xf32>, memref<?x5xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// A comparison is cheaper than the memory for its result; what is selected by it is computed in the sweep.
// CHECK-LABEL: func.func @comparisons_stay(
// CHECK-NEXT: "reduction.map_reduce"
// CHECK: arith.cmpf olt
// CHECK: arith.select
// CHECK: return
func.func @comparisons_stay(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %zero = arith.constant dense<0.0> : vector<1xf32>
    %negative = arith.cmpf olt, %y, %zero : vector<1xf32>
    %s = arith.select %negative, %x, %zero : vector<1xi1>, vector<1xf32>
    "reduction.accumulate"(%s, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// What the row decides is outside of the loop over columns already; so are parameters.
// CHECK-LABEL: func.func @of_a_row(
// CHECK-NEXT: "reduction.map_reduce"
// CHECK: math.exp
// CHECK: math.sqrt
// CHECK: return
func.func @of_a_row(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %p: memref<1x1xf32> {reduction.axis = "", reduction.name = "p", reduction.role = "input"},
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %parameter = "reduction.load"(%p) : (memref<1x1xf32>) -> vector<1xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.exp %x : vector<1xf32>
    %root = math.sqrt %parameter : vector<1xf32>
    %a = arith.mulf %e, %root : vector<1xf32>
    %m = arith.mulf %a, %y : vector<1xf32>
    "reduction.accumulate"(%m, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// A long vector of the row does not fit registers: it is stored as well.
// CHECK-LABEL: func.func @long_vector_of_a_row(
// CHECK-SAME: [[STORED:%[a-z0-9]+]]: memref<?x100xf32> {reduction.axis = "i", reduction.name = "hoisted3", reduction.role = "scratch"})
// CHECK-NEXT: "reduction.map"
// CHECK: [[E:%.+]] = math.exp
// CHECK-NEXT: "reduction.store"([[E]], [[STORED]],
// CHECK: }) {rows = "i"}
// CHECK: ^bb0([[I:%[a-z0-9]+]]: index,
// CHECK: "reduction.load"([[STORED]], [[I]])
// CHECK-NOT: math.exp
// CHECK: return
func.func @long_vector_of_a_row(
    %xs: memref<?x100xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %ys: memref<?x100xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x100xf32>, index) -> vector<100xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x100xf32>, index) -> vector<100xf32>
    %e = math.exp %x : vector<100xf32>
    %m = arith.mulf %e, %y : vector<100xf32>
    %s = "reduction.inner_reduce"(%m) {kind = "add"} : (vector<100xf32>) -> vector<1xf32>
    "reduction.accumulate"(%s, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// The index of a column is made where it is used; what is computed from it moves, and counts the rows of the map.
// CHECK-LABEL: func.func @index_of_column(
// CHECK: "reduction.map"() ({
// CHECK-NEXT: ^bb0([[ROW:%[a-z0-9]+]]: index):
// CHECK-NEXT: [[NUMBER:%.+]] = "reduction.index_value"([[ROW]])
// CHECK-NEXT: [[ROOT:%.+]] = math.sqrt [[NUMBER]]
// CHECK-NEXT: "reduction.store"([[ROOT]],
// CHECK: "reduction.map_reduce"() ({
// CHECK-NEXT: ^bb0([[I:%[a-z0-9]+]]: index, [[J:%[a-z0-9]+]]: index):
// CHECK-DAG: "reduction.load_pair"({{%[a-z0-9]+}}, [[I]], [[J]])
// CHECK-DAG: "reduction.index_value"([[J]])
func.func @index_of_column(
    %a: memref<?x1xf32> {reduction.axis = "ij", reduction.name = "a", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x1xf32>, index, index) -> vector<1xf32>
    %1 = "reduction.index_value"(%j) : (index) -> vector<1xf32>
    %2 = math.sqrt %1 : vector<1xf32>
    %3 = arith.mulf %0, %2 : vector<1xf32>
    %4 = arith.addf %3, %1 : vector<1xf32>
    "reduction.accumulate"(%4, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// Few rows use a column a few times: its values are computed again, not written and read.
// CHECK-LABEL: func.func @of_few_rows(
// CHECK-NOT: "reduction.map"()
// CHECK: math.exp
// CHECK: return
func.func @of_few_rows(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"})
    attributes {reduction.few_rows = "i"} {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.exp %y : vector<1xf32>
    "reduction.accumulate"(%e, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// Without rows it is used once.
// CHECK-LABEL: func.func @of_no_rows(
// CHECK-NOT: "reduction.map"()
// CHECK: math.exp
// CHECK: return
func.func @of_no_rows(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.exp %y : vector<1xf32>
    "reduction.accumulate"(%e, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = ""} : () -> ()
  return
}
