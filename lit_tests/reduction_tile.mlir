// RUN: pylazy-opt %s --pass-pipeline='reduction-tile{target=x86-64}' | filecheck %s --check-prefixes=CHECK,SSE
// RUN: pylazy-opt %s --pass-pipeline='reduction-tile{target=x86-64-v3}' | filecheck %s --check-prefixes=CHECK,AVX2
// RUN: pylazy-opt %s --pass-pipeline='reduction-tile{target=x86-64-v4}' | filecheck %s --check-prefixes=CHECK,AVX512
// RUN: pylazy-opt %s --pass-pipeline='reduction-tile{target=aarch64}' | filecheck %s --check-prefixes=CHECK,NEON
// RUN: pylazy-opt %s --pass-pipeline='reduction-tile{target=sm_90}' | filecheck %s --check-prefix=GPU

// As many lanes as a register has, or two of them where registers are few; all other sizes are there to be read and changed.
// CHECK-LABEL: func.func @single(
// CHECK: "reduction.accumulate"
// CHECK: column_chunk = {{[0-9]+}} : i64
// CHECK-SAME: column_step = {{[0-9]+}} : i64, columns = "j", cost = {{[0-9.e+-]+}} : f64
// CHECK-SAME: inner_step = {{[0-9]+}} : i64
// SSE-SAME: lanes = 8 : i64
// AVX2-SAME: lanes = 16 : i64
// AVX512-SAME: lanes = 16 : i64
// NEON-SAME: lanes = 4 : i64
// CHECK-SAME: register_limit = {{[0-9]+}} : i64, row_vectors = {{[0-9]+}} : i64, rows = "i", shared_rows = 1 : i64, unroll_limit = {{[0-9]+}} : i64

// A thread has its rows, a block its columns in workgroup memory; lanes are a matter of CPUs.
// GPU-LABEL: func.func @single(
// GPU: block_threads = {{[0-9]+}} : i64
// GPU-SAME: column_step = {{[0-9]+}} : i64
// GPU-SAME: rows_per_thread = {{[0-9]+}} : i64
// GPU-SAME: tile_columns = {{[0-9]+}} : i64
// GPU-NOT: lanes
// GPU: return
func.func @single(%ys: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%y, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// CHECK-LABEL: func.func @double(
// SSE: lanes = 4 : i64
// AVX2: lanes = 8 : i64
// AVX512: lanes = 8 : i64
// NEON: lanes = 2 : i64
func.func @double(%ys: memref<?x1xf64>, %out: memref<?x1xf64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf64>, index) -> vector<1xf64>
    "reduction.accumulate"(%y, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf64>, memref<?x1xf64>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// A map has no columns to share a load among.
// CHECK-LABEL: func.func @map(
// CHECK: column_step = 1 : i64
// CHECK-SAME: row_vectors = 1 : i64
func.func @map(%ys: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map"() ({
  ^bb0(%j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.store"(%y, %out, %j) : (vector<1xf32>, memref<?x1xf32>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "j"} : () -> ()
  return
}

// What is there already is kept: a pass decides what is legal, and a person what is tried.
// CHECK-LABEL: func.func @kept(
// CHECK: column_chunk = 7 : i64
// CHECK-SAME: column_step = 3 : i64
// CHECK-SAME: lanes = 1 : i64
// CHECK-SAME: row_vectors = 5 : i64
// GPU-LABEL: func.func @kept(
// GPU: block_threads = 32 : i64
// GPU-SAME: column_step = 3 : i64
func.func @kept(%ys: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%y, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {block_threads = 32, column_chunk = 7, column_step = 3, columns = "j", lanes = 1, row_vectors = 5, rows = "i"} : () -> ()
  return
}

// Rows are in lanes, unless they would leave many idle: then columns are, and all rows share a chunk of them; where an
// axis of one row is all there is, nobody shares. Columns that are few are one chunk.
// CHECK-LABEL: func.func @few_rows(
// CHECK: columns = "j", {{.*}}lane_axis = "columns", {{.*}}row_vectors = 1 : i64, rows = "i", shared_rows = 32 : i64
// CHECK: column_chunk = 0 : i64, {{.*}}columns = "i", {{.*}}lane_axis = "rows", {{.*}}rows = "j"
// CHECK: columns = "j", {{.*}}lane_axis = "columns", {{.*}}row_vectors = 1 : i64, rows = "", shared_rows = 1 : i64
func.func @few_rows(%ys: memref<?x1xf32>, %a: memref<?x1xf32>, %b: memref<?x1xf32>, %c: memref<1x1xf32>) attributes {reduction.few_rows = "i"} {
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

// The tiles of a table are rows, few or not.
// CHECK-LABEL: func.func @few_rows_of_a_table(
// CHECK: lane_axis = "rows"
func.func @few_rows_of_a_table(%ys: memref<?x1xf32>, %a: memref<?x1xf32>, %table: memref<?x1xi64>) attributes {reduction.few_rows = "i"} {
  "reduction.map_reduce"(%table) ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.accumulate"(%y, %a) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : (memref<?x1xi64>) -> ()
  return
}

// Neighbours of a dense array are columns here, so they go in lanes; over i they are rows.
// CHECK-LABEL: func.func @pairs(
// CHECK: lane_axis = "columns"
// CHECK: lane_axis = "rows"
func.func @pairs(%a: memref<?x1xf32>, %out: memref<?x1xf32>, %other: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x1xf32>, index, index) -> vector<1xf32>
    "reduction.accumulate"(%0, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%j: index, %i: index):
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x1xf32>, index, index) -> vector<1xf32>
    "reduction.accumulate"(%0, %other) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "i", rows = "j"} : () -> ()
  return
}

// A block holds few copies of long functions: they overlap by themselves, and compile slowly.
// CHECK-LABEL: func.func @short_function(
// AVX2: column_step = 2 : i64
// CHECK-LABEL: func.func @long_function(
// SSE: column_step = 1 : i64
// SSE-SAME: row_vectors = 1 : i64
// AVX2: column_step = 1 : i64
// AVX2-SAME: row_vectors = 1 : i64
// AVX512: column_step = 1 : i64
// AVX512-SAME: row_vectors = 1 : i64
// NEON: column_step = 1 : i64
// NEON-SAME: row_vectors = 1 : i64
// GPU-LABEL: func.func @long_function(
// GPU: block_threads
func.func @short_function(%ys: memref<?x1xf32>, %out: memref<?x1xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %e = math.exp %y : vector<1xf32>
    "reduction.accumulate"(%e, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

func.func @long_function(%ys: memref<?x3xf32>, %out: memref<?x3xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    %t = math.tan %y : vector<3xf32>
    "reduction.accumulate"(%t, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<3xf32>, memref<?x3xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}
