// RUN: pylazy-opt %s --split-input-file --pass-pipeline='reduction-fold-scales{target=sm_90}' | filecheck %s

// exp(-2 |x - y|^2) = exp2(-|s x - s y|^2) with s = sqrt(2 log2(e)).
// CHECK-LABEL: func.func @gaussian
// CHECK: %[[X:.*]] = "reduction.load"(%{{.*}}, %{{.*}}) {reduction.scale = 1.698{{[0-9]*}} : f64}
// CHECK: %[[Y:.*]] = "reduction.load"(%{{.*}}, %{{.*}}) {reduction.scale = 1.698{{[0-9]*}} : f64}
// CHECK: %[[D:.*]] = arith.subf %[[X]], %[[Y]]
// CHECK: %[[SQUARE:.*]] = arith.mulf %[[D]], %[[D]]
// CHECK: %[[Q:.*]] = "reduction.inner_reduce"(%[[SQUARE]])
// CHECK: %[[MINUS:.*]] = arith.negf %[[Q]]
// CHECK: math.exp2 %[[MINUS]]
// CHECK-NOT: math.exp %
func.func @gaussian(
    %x: memref<?x3xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %y: memref<?x3xf32> {reduction.name = "y", reduction.role = "input", reduction.axis = "j"},
    %out: memref<?x1xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "i"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %two = arith.constant dense<2.0> : vector<1xf32>
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.load"(%y, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %2 = arith.subf %0, %1 : vector<3xf32>
    %3 = arith.mulf %2, %2 : vector<3xf32>
    %4 = "reduction.inner_reduce"(%3) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    %5 = arith.mulf %4, %two : vector<1xf32>
    %6 = arith.negf %5 : vector<1xf32>
    %7 = math.exp %6 : vector<1xf32>
    "reduction.accumulate"(%7, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i", columns = "j"} : () -> ()
  return
}

// -----

// The difference is needed for its maximum, too: nothing changes.
// CHECK-LABEL: func.func @needed
// CHECK-NOT: reduction.scale
// CHECK: math.exp %
func.func @needed(
    %x: memref<?x3xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %y: memref<?x3xf32> {reduction.name = "y", reduction.role = "input", reduction.axis = "j"},
    %out: memref<?x1xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "i"},
    %most: memref<?x3xf32> {reduction.name = "output1", reduction.role = "output", reduction.axis = "i"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.load"(%y, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %2 = arith.subf %0, %1 : vector<3xf32>
    %3 = arith.mulf %2, %2 : vector<3xf32>
    %4 = "reduction.inner_reduce"(%3) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    %5 = arith.negf %4 : vector<1xf32>
    %6 = math.exp %5 : vector<1xf32>
    "reduction.accumulate"(%6, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.accumulate"(%2, %most) {kind = "max", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<3xf32>, memref<?x3xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i", columns = "j"} : () -> ()
  return
}

// -----

// A positive factor is no Gaussian.
// CHECK-LABEL: func.func @growing
// CHECK-NOT: reduction.scale
// CHECK: math.exp %
func.func @growing(
    %x: memref<?x3xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %y: memref<?x3xf32> {reduction.name = "y", reduction.role = "input", reduction.axis = "j"},
    %out: memref<?x1xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "i"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.load"(%y, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %2 = arith.subf %0, %1 : vector<3xf32>
    %3 = arith.mulf %2, %2 : vector<3xf32>
    %4 = "reduction.inner_reduce"(%3) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    %5 = math.exp %4 : vector<1xf32>
    "reduction.accumulate"(%5, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i", columns = "j"} : () -> ()
  return
}
