// RUN: pylazy-opt %s --pass-pipeline='reduction-vectorize' | filecheck %s

// What varies with the row has a lane for each of eight rows; all else has one, and is repeated where the two meet.
// CHECK-LABEL: func.func @rows_in_lanes(
// CHECK: [[X:%.+]] = "reduction.load"({{%.+}}) : (memref<?x3xf32>, index) -> vector<3x8xf32>
// CHECK-NEXT: [[Y:%.+]] = "reduction.load"({{%.+}}) : (memref<?x3xf32>, index) -> vector<3x1xf32>
// CHECK-NEXT: [[P:%.+]] = "reduction.load"({{%.+}}) : (memref<1x3xf32>) -> vector<3x1xf32>
// CHECK-NEXT: [[Q:%.+]] = arith.mulf [[Y]], [[P]] : vector<3x1xf32>
// CHECK-NEXT: [[WIDE:%.+]] = vector.broadcast [[Q]] : vector<3x1xf32> to vector<3x8xf32>
// CHECK-NEXT: [[D:%.+]] = arith.subf [[X]], [[WIDE]] fastmath<contract> : vector<3x8xf32>
// CHECK-NEXT: [[S:%.+]] = "reduction.inner_reduce"([[D]]) {kind = "add"} : (vector<3x8xf32>) -> vector<1x8xf32>
// CHECK-NEXT: "reduction.accumulate"([[S]], {{%.+}}) {{.*}} : (vector<1x8xf32>, memref<?x1xf32>) -> ()
// CHECK-NEXT: "reduction.yield"
// CHECK-NEXT: }) {columns = "j", lanes = 8 : i64, rows = "i"}
func.func @rows_in_lanes(%xs: memref<?x3xf32>, %ys: memref<?x3xf32>, %p: memref<1x3xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %parameter = "reduction.load"(%p) : (memref<1x3xf32>) -> vector<3xf32>
    %q = arith.mulf %y, %parameter : vector<3xf32>
    %d = arith.subf %x, %q fastmath<contract> : vector<3xf32>
    %s = "reduction.inner_reduce"(%d) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    "reduction.accumulate"(%s, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lanes = 8, rows = "i"} : () -> ()
  return
}

// Constants have one lane; one that an earlier pass moved out of the body comes back, with its unequal elements.
// CHECK-LABEL: func.func @constants(
// CHECK: ^bb0
// CHECK: [[X:%.+]] = "reduction.load"({{.*}} -> vector<2x4xf64>
// CHECK: [[PAIR:%.+]] = arith.constant dense<{{\[\[}}1.000000e+00], [2.000000e+00]]> : vector<2x1xf64>
// CHECK: [[WIDE_PAIR:%.+]] = vector.broadcast [[PAIR]] : vector<2x1xf64> to vector<2x4xf64>
// CHECK: [[M:%.+]] = arith.mulf [[X]], [[WIDE_PAIR]]
// CHECK: [[HALF:%.+]] = arith.constant dense<5.000000e-01> : vector<2x1xf64>
// CHECK: [[WIDE_HALF:%.+]] = vector.broadcast [[HALF]] : vector<2x1xf64> to vector<2x4xf64>
// CHECK: arith.addf [[M]], [[WIDE_HALF]]
func.func @constants(%xs: memref<?x2xf64>, %out: memref<?x2xf64>) {
  %pair = arith.constant dense<[1.0, 2.0]> : vector<2xf64>
  "reduction.map"() ({
  ^bb0(%i: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x2xf64>, index) -> vector<2xf64>
    %m = arith.mulf %x, %pair : vector<2xf64>
    %half = arith.constant dense<0.5> : vector<2xf64>
    %a = arith.addf %m, %half : vector<2xf64>
    "reduction.store"(%a, %out, %i) : (vector<2xf64>, memref<?x2xf64>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {lanes = 4, rows = "i"} : () -> ()
  return
}

// Comparisons have lanes, inner broadcasts keep them, and an accumulation takes what it is given: one lane where the
// formula does not vary with the row.
// CHECK-LABEL: func.func @shapes(
// CHECK: [[IS:%.+]] = arith.cmpf olt, {{.*}} : vector<1x8xf32>
// CHECK: [[S:%.+]] = arith.select [[IS]], {{.*}} : vector<1x8xi1>, vector<1x8xf32>
// CHECK: [[WIDE:%.+]] = vector.broadcast [[S]] : vector<1x8xf32> to vector<3x8xf32>
// CHECK: "reduction.accumulate"([[WIDE]], {{.*}} : (vector<3x8xf32>, memref<?x3xf32>) -> ()
// CHECK: "reduction.accumulate"({{.*}} : (vector<1x1xf32>, memref<?x1xf32>) -> ()
func.func @shapes(%xs: memref<?x1xf32>, %ys: memref<?x1xf32>, %a: memref<?x3xf32>, %b: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %is = arith.cmpf olt, %x, %y : vector<1xf32>
    %s = arith.select %is, %x, %y : vector<1xi1>, vector<1xf32>
    %wide = vector.broadcast %s : vector<1xf32> to vector<3xf32>
    "reduction.accumulate"(%wide, %a) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<3xf32>, memref<?x3xf32>) -> ()
    "reduction.accumulate"(%y, %b) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lanes = 8, rows = "i"} : () -> ()
  return
}

// One lane, or none asked for: left alone.
// CHECK-LABEL: func.func @one_lane(
// CHECK: -> vector<3xf32>
// CHECK: lanes = 1
// CHECK: -> vector<3xf32>
// CHECK: {rows = "i"}
func.func @one_lane(%xs: memref<?x3xf32>, %out: memref<?x3xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    "reduction.accumulate"(%x, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<3xf32>, memref<?x3xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lanes = 1, rows = "i"} : () -> ()
  "reduction.map"() ({
  ^bb0(%i: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    "reduction.store"(%x, %out, %i) : (vector<3xf32>, memref<?x3xf32>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i"} : () -> ()
  return
}

// With columns in lanes it is the other way round.
// CHECK-LABEL: func.func @columns_in_lanes(
// CHECK: [[X:%.+]] = "reduction.load"({{%.+}}) : (memref<?x1xf32>, index) -> vector<1x1xf32>
// CHECK-NEXT: [[Y:%.+]] = "reduction.load"({{%.+}}) : (memref<?x1xf32>, index) -> vector<1x8xf32>
// CHECK-NEXT: [[WIDE:%.+]] = vector.broadcast [[X]] : vector<1x1xf32> to vector<1x8xf32>
// CHECK-NEXT: arith.mulf [[WIDE]], [[Y]] : vector<1x8xf32>
func.func @columns_in_lanes(%xs: memref<?x1xf32>, %ys: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %m = arith.mulf %x, %y : vector<1xf32>
    "reduction.accumulate"(%m, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lane_axis = "columns", lanes = 8, rows = "i"} : () -> ()
  return
}

// A table stays the operand of its kernel.
// CHECK-LABEL: func.func @ranged(
// CHECK-SAME: [[TABLE:%[a-z0-9]+]]: memref<?x1xi64>
// CHECK: "reduction.map_reduce"([[TABLE]]) ({
// CHECK: vector<1x8xf32>
func.func @ranged(%xs: memref<?x1xf32>, %out: memref<?x1xf32>, %table: memref<?x1xi64>) {
  "reduction.map_reduce"(%table) ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lanes = 8, rows = "i"} : (memref<?x1xi64>) -> ()
  return
}

// A pair varies along the lanes whichever index runs along them; an index does if it is that one.
// CHECK-LABEL: func.func @pairs(
// CHECK: "reduction.load_pair"({{.*}}) : (memref<?x1xf32>, index, index) -> vector<1x4xf32>
// CHECK: "reduction.index_value"({{.*}}) : (index) -> vector<1x1xf32>
// CHECK: "reduction.index_value"({{.*}}) : (index) -> vector<1x4xf32>
func.func @pairs(%a: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x1xf32>, index, index) -> vector<1xf32>
    %1 = "reduction.index_value"(%i) : (index) -> vector<1xf32>
    %2 = "reduction.index_value"(%j) : (index) -> vector<1xf32>
    %3 = arith.mulf %0, %1 : vector<1xf32>
    %4 = arith.mulf %3, %2 : vector<1xf32>
    "reduction.accumulate"(%4, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i", lanes = 4 : i64, lane_axis = "columns"} : () -> ()
  return
}
