// RUN: pylazy-opt %s --pass-pipeline='reduction-fuse' | filecheck %s

// Two sums over the same pairs are one sweep; what the bodies share is left to `cse`.
// CHECK-LABEL: func.func @one_sweep(
// CHECK-SAME: [[XS:%[a-z0-9]+]]: memref<?x1xf32>, [[YS:%[a-z0-9]+]]: memref<?x1xf32>, [[A:%[a-z0-9]+]]: memref<?x1xf32>, [[B:%[a-z0-9]+]]: memref<?x1xf32>)
// CHECK-NEXT: "reduction.map_reduce"() ({
// CHECK-NEXT: ^bb0([[I:%[a-z0-9]+]]: index, [[J:%[a-z0-9]+]]: index):
// CHECK-NEXT: [[X:%.+]] = "reduction.load"([[XS]], [[I]])
// CHECK-NEXT: "reduction.accumulate"([[X]], [[A]]) {kind = "sum"
// CHECK-NEXT: [[Y:%.+]] = "reduction.load"([[YS]], [[J]])
// CHECK-NEXT: [[E:%.+]] = math.exp [[Y]]
// CHECK-NEXT: "reduction.accumulate"([[E]], [[B]]) {kind = "max"
// CHECK-NEXT: "reduction.yield"
// CHECK-NEXT: }) {columns = "j", rows = "i"}
// CHECK-NEXT: return
func.func @one_sweep(%xs: memref<?x1xf32>, %ys: memref<?x1xf32>, %a: memref<?x1xf32>, %b: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %a) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.exp %y : vector<1xf32>
    "reduction.accumulate"(%e, %b) {kind = "max", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// Other pairs stay apart: rows and columns exchanged, and a single row.
// CHECK-LABEL: func.func @other_axes(
// CHECK: {columns = "j", rows = "i"}
// CHECK: {columns = "i", rows = "j"}
// CHECK: {columns = "j", rows = ""}
func.func @other_axes(%ys: memref<?x1xf32>, %a: memref<?x1xf32>, %b: memref<?x1xf32>, %c: memref<1x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%y, %a) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%j: index, %i: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%y, %b) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "i", rows = "j"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%none: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%y, %c) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<1x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = ""} : () -> ()
  return
}

// The second reads what the first has written.
// CHECK-LABEL: func.func @reads_the_result(
// CHECK-SAME: [[A:%[a-z0-9]+]]: memref<?x1xf32>, [[B:%[a-z0-9]+]]: memref<?x1xf32>)
// CHECK: "reduction.accumulate"({{%.+}}, [[A]])
// CHECK-NEXT: "reduction.yield"
// CHECK: "reduction.load"([[A]],
// CHECK-NEXT: "reduction.accumulate"({{%.+}}, [[B]])
// CHECK-NEXT: "reduction.yield"
func.func @reads_the_result(%xs: memref<?x1xf32>, %a: memref<?x1xf32>, %b: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %a) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%a, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %b) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// The third has the pairs of the first, but reads what the second writes in between; the fourth reads nothing new.
// CHECK-LABEL: func.func @written_in_between(
// CHECK-SAME: [[XS:%[a-z0-9]+]]: memref<?x1xf32>, [[A:%[a-z0-9]+]]: memref<?x1xf32>, [[S:%[a-z0-9]+]]: memref<?x1xf32>, [[C:%[a-z0-9]+]]: memref<?x1xf32>, [[D:%[a-z0-9]+]]: memref<?x1xf32>)
// CHECK: "reduction.accumulate"({{%.+}}, [[A]])
// CHECK-NEXT: "reduction.yield"
// CHECK: "reduction.store"({{%.+}}, [[S]],
// CHECK-NEXT: "reduction.yield"
// CHECK: "reduction.load"([[S]],
// CHECK-NEXT: "reduction.accumulate"({{%.+}}, [[C]])
// CHECK-NEXT: "reduction.load"([[XS]],
// CHECK-NEXT: "reduction.accumulate"({{%.+}}, [[D]])
// CHECK-NEXT: "reduction.yield"
// CHECK-NOT: "reduction.map_reduce"
// CHECK: return
func.func @written_in_between(%xs: memref<?x1xf32>, %a: memref<?x1xf32>, %s: memref<?x1xf32>, %c: memref<?x1xf32>, %d: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %a) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map"() ({
  ^bb0(%i: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.store"(%x, %s, %i) : (vector<1xf32>, memref<?x1xf32>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%s, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %c) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%x, %d) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// The minimum and its position are one accumulation with two results, whichever was asked for first.
// CHECK-LABEL: func.func @value_and_position(
// CHECK-SAME: [[P:%[a-z0-9]+]]: memref<?x1xi64>, [[V:%[a-z0-9]+]]: memref<?x1xf32>)
// CHECK: "reduction.accumulate"({{%.+}}, [[V]], [[P]]) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 1, 1>}
// CHECK-NOT: "reduction.accumulate"
// CHECK: return
func.func @value_and_position(%ys: memref<?x1xf32>, %p: memref<?x1xi64>, %v: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.absf %y : vector<1xf32>
    "reduction.accumulate"(%e, %p) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1xf32>, memref<?x1xi64>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.absf %y : vector<1xf32>
    "reduction.accumulate"(%e, %v) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// Not joined: another value, another kind, another k.
// CHECK-LABEL: func.func @not_joined(
// CHECK-NOT: array<i32: 1, 0, 1, 1>
// CHECK: return
func.func @not_joined(%ys: memref<?x1xf32>, %p: memref<?x1xi64>, %v: memref<?x1xf32>, %w: memref<?x1xf32>, %p2: memref<?x2xi64>, %v3: memref<?x3xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.absf %y : vector<1xf32>
    "reduction.accumulate"(%y, %p) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1xf32>, memref<?x1xi64>) -> ()
    "reduction.accumulate"(%e, %v) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.accumulate"(%y, %w) {kind = "max", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.accumulate"(%y, %p2) {kind = "kmin", k = 2, operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1xf32>, memref<?x2xi64>) -> ()
    "reduction.accumulate"(%y, %v3) {kind = "kmin", k = 3, operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x3xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}
