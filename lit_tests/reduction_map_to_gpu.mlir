// RUN: pylazy-opt %s --split-input-file --pass-pipeline='reduction-map-to-gpu{target=sm_90},canonicalize,cse' | filecheck %s

// Two rows a thread, 128 threads apart; the columns of a split pass through workgroup memory between two barriers; the
// states of several splits are kept, and merged by a kernel of its own.
// CHECK-LABEL: gpu.module @sum_kernels
// CHECK: llvm.mlir.global internal @sum_0_workgroup() {addr_space = 3 : i32, alignment = 16 : i64, dso_local} : !llvm.array<512 x i8>
// CHECK: gpu.func @sum_0(%[[X:.*]]: !llvm.ptr<1> {llvm.noalias, llvm.readonly}, %[[Y:.*]]: !llvm.ptr<1> {llvm.noalias, llvm.readonly}, %[[OUT:.*]]: !llvm.ptr<1> {llvm.noalias}, %[[STATES:.*]]: !llvm.ptr<1> {llvm.noalias}, %[[X_STRIDE:.*]]: i64, %{{.*}}: i64, %[[OUT_STRIDE:.*]]: i64, %{{.*}}: i64, %[[ROWS:.*]]: i64, %[[COLUMNS:.*]]: i64, %[[PER_SPLIT:.*]]: i64, %[[SPLITS:.*]]: i64) kernel
// CHECK-SAME: nvvm.maxntid = array<i32: 128>
// CHECK-SAME: block_threads = 128
// CHECK-SAME: columns = "j"
// CHECK-SAME: merges = false
// CHECK-SAME: rows_per_block = 256
// CHECK-SAME: splittable = true
// CHECK-SAME: workgroup_bytes = 512
// CHECK: %[[TILE:.*]] = llvm.mlir.addressof @sum_0_workgroup
// CHECK: %[[BLOCK:.*]] = gpu.block_id z
// CHECK: %[[BATCH:.*]] = arith.index_castui %[[BLOCK]]
// CHECK: %[[X_OFFSET:.*]] = arith.muli %[[BATCH]], %[[X_STRIDE]]
// CHECK: llvm.getelementptr %[[X]][%[[X_OFFSET]]]
// CHECK: %[[OUT_OFFSET:.*]] = arith.muli %[[BATCH]], %[[OUT_STRIDE]]
// CHECK: llvm.getelementptr %[[OUT]][%[[OUT_OFFSET]]]
// CHECK: %[[LAST:.*]] = arith.subi %[[ROWS]]
// CHECK-COUNT-2: arith.minsi %{{.*}}, %[[LAST]]
// CHECK: %[[SPLIT:.*]] = gpu.block_id y
// CHECK: %[[START:.*]] = arith.muli %{{.*}}, %[[PER_SPLIT]]
// CHECK: %[[END:.*]] = arith.minsi %{{.*}}, %[[COLUMNS]]
// CHECK-COUNT-2: llvm.load %{{.*}} invariant
// CHECK: scf.for %[[FIRST:.*]] = %[[START]] to %[[END]] step %{{.*}} iter_args
// CHECK: gpu.barrier
// CHECK: scf.for
// CHECK: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// CHECK: gpu.barrier
// CHECK: scf.for
// CHECK-COUNT-2: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<3> -> f32
// CHECK: scf.for
// CHECK-COUNT-1: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<3> -> f32
// CHECK: %[[WHOLE:.*]] = arith.cmpi eq, %[[SPLITS]]
// CHECK: scf.if %[[WHOLE]]
// CHECK: %[[EXISTS:.*]] = arith.cmpi slt, %{{.*}}, %[[ROWS]]
// CHECK: scf.if %[[EXISTS]]
// CHECK: llvm.store %{{.*}} : f32, !llvm.ptr<1>
// CHECK: } else {
// CHECK: llvm.store %{{.*}} : f32, !llvm.ptr<1>
// CHECK: gpu.func @sum_0_merge
// CHECK-SAME: merges = true
// CHECK: scf.for %{{.*}} = %{{.*}} to %{{.*}} step %{{.*}} iter_args
// CHECK-COUNT-4: llvm.load
// CHECK: llvm.store %{{.*}} : f32, !llvm.ptr<1>
func.func @sum(
    %x: memref<?x1xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %y: memref<?x1xf32> {reduction.name = "y", reduction.role = "input", reduction.axis = "j"},
    %out: memref<?x1xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "i"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %1 = "reduction.load"(%y, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %2 = arith.mulf %0, %1 : vector<1xf32>
    "reduction.accumulate"(%2, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i", columns = "j", rows_per_thread = 2 : i64, column_step = 2 : i64, tile_columns = 32 : i64} : () -> ()
  return
}

// -----

// A result of 32 elements is computed 16 at a time, in a loop around the columns; no column, no tile, no barrier.
// CHECK-LABEL: gpu.module @long_kernels
// CHECK-NOT: llvm.mlir.global
// CHECK: gpu.func @long_0
// CHECK-DAG: %[[STEP:.*]] = arith.constant 16 : i64
// CHECK-DAG: %[[END:.*]] = arith.constant 32 : i64
// CHECK: scf.for %[[CHUNK:.*]] = %{{.*}} to %[[END]] step %[[STEP]]
// CHECK-NOT: gpu.barrier
// CHECK: scf.for
func.func @long(
    %x: memref<?x32xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %out: memref<?x32xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "i"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x32xf32>, index) -> vector<32xf32>
    "reduction.accumulate"(%0, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<32xf32>, memref<?x32xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i", columns = "j"} : () -> ()
  return
}

// -----

// A map is a thread for each row, and no loop.
// CHECK-LABEL: gpu.module @square_kernels
// CHECK: gpu.func @square_0
// CHECK-NOT: scf.for
// CHECK: scf.if
// CHECK: llvm.store
func.func @square(
    %x: memref<?x2xf64> {reduction.name = "x", reduction.role = "input", reduction.axis = "j"},
    %out: memref<?x2xf64> {reduction.name = "scratch0", reduction.role = "scratch", reduction.axis = "j"}) {
  "reduction.map"() ({
  ^bb0(%j: index):
    %0 = "reduction.load"(%x, %j) : (memref<?x2xf64>, index) -> vector<2xf64>
    %1 = arith.mulf %0, %0 : vector<2xf64>
    "reduction.store"(%1, %out, %j) : (vector<2xf64>, memref<?x2xf64>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "j"} : () -> ()
  return
}

// -----

// A table gives the rows of a block and the intervals of its columns; the splits share these intervals.
// CHECK-LABEL: gpu.module @ranged_kernels
// CHECK: gpu.func @ranged_0(%{{.*}}, %[[TABLE:[^:,]*]]: !llvm.ptr<1> {llvm.noalias, llvm.readonly}, %{{[^:]*}}: !llvm.ptr<1> {llvm.noalias}, %{{[^:]*}}: i64
// CHECK-SAME: splittable = true
// CHECK-SAME: tile_table = 3
// CHECK: %[[WORDS:.*]] = llvm.getelementptr %[[TABLE]]
// CHECK: %[[BLOCK:.*]] = gpu.block_id x
// CHECK: %[[FIRST_ROW:.*]] = llvm.load %{{.*}} invariant {alignment = 8 : i64} : !llvm.ptr<1> -> i64
// CHECK: %[[LAST_ROW:.*]] = llvm.load %{{.*}} invariant
// CHECK: %[[FIRST_WORD:.*]] = llvm.load %{{.*}} invariant
// CHECK: %[[LAST_WORD:.*]] = llvm.load %{{.*}} invariant
// CHECK: scf.for %{{.*}} = %[[FIRST_ROW]] to %[[LAST_ROW]]
// CHECK: arith.subi %[[LAST_WORD]], %[[FIRST_WORD]]
// CHECK-COUNT-2: arith.divui
// CHECK: %[[FIRST:.*]] = llvm.load %{{.*}} invariant {alignment = 8 : i64} : !llvm.ptr<1> -> i64
// CHECK: %[[LAST:.*]] = llvm.load %{{.*}} invariant
// CHECK: scf.for %{{.*}} = %[[FIRST]] to %[[LAST]]
// CHECK: gpu.barrier
// CHECK: arith.cmpi slt, %{{.*}}, %[[LAST_ROW]]
// CHECK: gpu.func @ranged_0_merge
func.func @ranged(
    %x: memref<?x1xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %y: memref<?x1xf32> {reduction.name = "y", reduction.role = "input", reduction.axis = "j"},
    %out: memref<?x1xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "i"},
    %table: memref<?x1xi64> {reduction.name = "ranges_i", reduction.role = "table", reduction.axis = "i"}) {
  "reduction.map_reduce"(%table) ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    %1 = "reduction.load"(%y, %j) : (memref<?x1xf32>, index) -> vector<1xf32>
    %2 = arith.mulf %0, %1 : vector<1xf32>
    "reduction.accumulate"(%2, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "i", columns = "j"} : (memref<?x1xi64>) -> ()
  return
}

// -----

// Values of pairs are stored in the sweep, by rows that exist: it may have splits, which nothing merges.
// CHECK-LABEL: gpu.module @pairs_kernels
// CHECK: gpu.func @pairs_0(%{{.*}}, %{{[^:,]*}}: !llvm.ptr<1> {llvm.noalias}, %{{[^:]*}}: i64
// CHECK-SAME: splittable = true
// CHECK: scf.if
// CHECK: llvm.store %{{.*}} : f32, !llvm.ptr<1>
// CHECK-NOT: pairs_0_merge
func.func @pairs(
    %x: memref<?x1xf32> {reduction.name = "x", reduction.role = "input", reduction.axis = "i"},
    %out: memref<?x1xf32> {reduction.name = "output0", reduction.role = "output", reduction.axis = "ij"}) {
  "reduction.map_reduce"() ({
  ^bb0(%j: index, %i: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x1xf32>, index) -> vector<1xf32>
    "reduction.store_pair"(%0, %out, %i, %j) : (vector<1xf32>, memref<?x1xf32>, index, index) -> ()
    "reduction.yield"() : () -> ()
  }) {rows = "j", columns = "i"} : () -> ()
  return
}
