// RUN: pylazy-opt %s --pass-pipeline='convert-reduction-to-scf' --split-input-file | filecheck %s

// A kernel is a phase, and another one that merges the states of its splits; one state lies in scratch for each split.
// CHECK: reduction.buffers = [{axis = "i", dim = 2 : i64, element = f32, name = "x", per_split = false, role = "input"}
// CHECK-SAME: {axis = "j", dim = 2 : i64, element = f32, name = "y", per_split = false, role = "input"}
// CHECK-SAME: {axis = "i", dim = 1 : i64, element = f32, name = "output0", per_split = false, role = "output"}
// CHECK-SAME: {axis = "i", dim = 1 : i64, element = f32, name = "{{[a-z0-9_]+}}", per_split = true, role = "scratch"}]
// CHECK-LABEL: func.func @sum_0(
// CHECK-SAME: [[POINTERS:%[a-z0-9]+]]: !llvm.ptr, [[EXTENTS:%[a-z0-9]+]]: !llvm.ptr, [[FIRST:%[a-z0-9]+]]: i64, [[LAST:%[a-z0-9]+]]: i64)
// CHECK-SAME: columns = "j", cost = 2.500000e+00 : f64, max_columns_per_split = 1073741824 : i64, merges = false, rows = "i", rows_per_tile = 4 : i64, splittable = true
// CHECK: [[ROWS:%.+]] = llvm.load [[EXTENTS]] {{.*}} -> i64
// CHECK: [[COLUMNS:%.+]] = llvm.load {{.*}} -> i64
// CHECK: [[PER_SPLIT:%.+]] = llvm.load {{.*}} -> i64
// CHECK: [[SPLITS:%.+]] = llvm.load {{.*}} -> i64
// A tile is four rows and one split.
// CHECK: scf.for [[TILE:%[a-z0-9]+]] = [[FIRST]] to [[LAST]]
// CHECK: [[ROW_TILE:%.+]] = arith.divui [[TILE]], [[SPLITS]]
// CHECK: [[SPLIT:%.+]] = arith.remui [[TILE]], [[SPLITS]]
// CHECK: [[FIRST_ROW:%.+]] = arith.muli [[ROW_TILE]], {{%c4_.+}} : i64
// CHECK: [[BEGIN:%.+]] = arith.muli [[SPLIT]], [[PER_SPLIT]]
// CHECK: [[BEHIND:%.+]] = arith.addi [[BEGIN]], [[PER_SPLIT]]
// CHECK: [[END:%.+]] = arith.minsi [[BEHIND]], [[COLUMNS]]
// No lane reads after the last row.
// CHECK: [[LAST_ROW:%.+]] = arith.subi [[ROWS]],
// CHECK: scf.for [[LANE:%[a-z0-9]+]] =
// CHECK: [[ROW:%.+]] = arith.addi [[FIRST_ROW]], [[LANE]]
// CHECK: arith.minsi [[ROW]], [[LAST_ROW]]
// Chunks of sixteen columns, each with a sum of its own; blocks of two columns, then what remains.
// CHECK: [[SUM:%.+]] = scf.for [[CHUNK:%[a-z0-9]+]] = [[BEGIN]] to [[END]] step %c16_{{.+}} iter_args([[OUTER:%[a-z0-9]+]] =
// CHECK: [[BLOCKS:%.+]] = scf.for {{.+}} step %c2_{{.+}} iter_args({{.+}} -> (vector<4xf32>)
// CHECK: [[REST:%.+]] = scf.for {{.+}} step %c1_{{.+}} iter_args({{.+}} = [[BLOCKS]]) -> (vector<4xf32>)
// CHECK: [[NEXT:%.+]] = arith.addf [[OUTER]], [[REST]]
// CHECK: scf.yield [[NEXT]] : vector<4xf32>
// A single split writes the result, several write states.
// CHECK: [[WHOLE:%.+]] = arith.cmpi eq, [[SPLITS]],
// CHECK: scf.if [[WHOLE]] {
// CHECK: [[LEFT:%.+]] = arith.subi [[ROWS]], [[FIRST_ROW]]
// CHECK: arith.minsi [[LEFT]], {{%c4_.+}}
// CHECK: } else {
// CHECK: arith.muli [[SPLIT]], [[ROWS]]
// CHECK-LABEL: func.func @sum_0_merge(
// CHECK-SAME: columns = "j", cost = 2.500000e+00 : f64, max_columns_per_split = 0 : i64, merges = true, rows = "i", rows_per_tile = 4 : i64, splittable = false
// CHECK: scf.for
// CHECK: scf.for {{.+}} iter_args([[STATE:%[a-z0-9]+]] = {{.+}} -> (vector<4xf32>)
// CHECK: arith.addf [[STATE]],
// CHECK-NOT: func.func @sum(
func.func @sum(
    %xs: memref<?x2xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %ys: memref<?x2xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x2xf32>, index) -> vector<2x4xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x2xf32>, index) -> vector<2x1xf32>
    %wide = vector.broadcast %y : vector<2x1xf32> to vector<2x4xf32>
    %m = arith.mulf %x, %wide : vector<2x4xf32>
    %s = "reduction.inner_reduce"(%m) {kind = "add"} : (vector<2x4xf32>) -> vector<1x4xf32>
    "reduction.accumulate"(%s, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_chunk = 16, column_step = 2, columns = "j", cost = 2.5, lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// CHECK-LABEL: func.func @not_splittable_0(
// CHECK-SAME: max_columns_per_split = 0 : i64, merges = false, rows = "i", rows_per_tile = 8 : i64, splittable = false
// CHECK-NOT: arith.divui
// CHECK-NOT: func.func
// CHECK: return
func.func @not_splittable(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    "reduction.accumulate"(%x, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_chunk = 16, column_step = 1, columns = "j", lane_axis = "rows", lanes = 4, row_vectors = 2, rows = "i", splittable = false} : () -> ()
  return
}

// -----

// A map runs first, over the rows that it stores; then the kernel that reads them. Scratch of a map is not per split.
// CHECK: name = "hoisted", per_split = false, role = "scratch"
// CHECK-LABEL: func.func @map_first_0(
// CHECK-SAME: columns = "", {{.*}}merges = false, rows = "j", rows_per_tile = 4 : i64, splittable = false
// CHECK: math.exp {{.+}} : vector<4xf32>
// CHECK-LABEL: func.func @map_first_1(
// CHECK-SAME: columns = "j", {{.*}}rows = "i", rows_per_tile = 4 : i64, splittable = true
// CHECK-NOT: math.exp
// CHECK-LABEL: func.func @map_first_1_merge(
func.func @map_first(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"},
    %stored: memref<?x1xf32> {reduction.axis = "j", reduction.name = "hoisted", reduction.role = "scratch"}) {
  "reduction.map"() ({
  ^bb0(%j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    %e = math.exp %y : vector<1x4xf32>
    "reduction.store"(%e, %stored, %j) : (vector<1x4xf32>, memref<?x1xf32>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "j"} : () -> ()
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %e = "reduction.load"(%stored, %j) : (memref<?x1xf32>, index) -> vector<1x1xf32>
    "reduction.accumulate"(%e, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// The state of a minimum with its position: both, the position as a 64-bit number of the whole axis. In lanes it has 32
// bits, so a split must not be longer than they count.
// CHECK: {axis = "i", dim = 1 : i64, element = f32, name = "{{[a-z0-9_]+}}", per_split = true, role = "scratch"}
// CHECK-SAME: {axis = "i", dim = 1 : i64, element = i64, name = "{{[a-z0-9_]+}}", per_split = true, role = "scratch"}
// CHECK-LABEL: func.func @argmin_0(
// CHECK-SAME: max_columns_per_split = 1073741824 : i64
// CHECK: scf.for {{.+}} -> (vector<4xf32>, vector<4xi32>)
// CHECK: arith.extsi {{.+}} : i32 to i64
// CHECK-LABEL: func.func @argmin_0_merge(
// CHECK: scf.for {{.+}} -> (vector<4xf32>, vector<4xi64>)
func.func @argmin(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %out: memref<?x1xi64> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    "reduction.accumulate"(%x, %out) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1x4xf32>, memref<?x1xi64>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// Lanes of 64 bits count everything.
// CHECK-LABEL: func.func @argmax_of_double_0(
// CHECK-SAME: max_columns_per_split = 0 : i64, merges = false
// CHECK: scf.for {{.+}} -> (vector<2xf64>, vector<2xi64>)
func.func @argmax_of_double(
    %xs: memref<?x1xf64> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %out: memref<?x1xi64> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf64>, index) -> vector<1x2xf64>
    "reduction.accumulate"(%x, %out) {kind = "max", operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1x2xf64>, memref<?x1xi64>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", lane_axis = "rows", lanes = 2, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// A weighted logsumexp keeps the maximum, the shift and three sums; k smallest of two components keep k entries each.
// CHECK: dim = 5 : i64, element = f32, name = "{{[a-z0-9_]+}}", per_split = true
// CHECK-SAME: dim = 8 : i64, element = f32, name = "{{[a-z0-9_]+}}", per_split = true
// CHECK-SAME: dim = 8 : i64, element = i64, name = "{{[a-z0-9_]+}}", per_split = true
// CHECK-LABEL: func.func @states_0(
// CHECK: math.exp {{.+}} : vector<4xf32>
// CHECK: math.log {{.+}} : vector<4xf32>
// CHECK-LABEL: func.func @states_0_merge(
func.func @states(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %ys: memref<?x3xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %a: memref<?x3xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"},
    %b: memref<?x8xf32> {reduction.axis = "i", reduction.name = "output1", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x3xf32>, index) -> vector<3x1xf32>
    %two = vector.broadcast %x : vector<1x4xf32> to vector<2x4xf32>
    "reduction.accumulate"(%x, %y, %a) {kind = "logsumexp", operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (vector<1x4xf32>, vector<3x1xf32>, memref<?x3xf32>) -> ()
    "reduction.accumulate"(%two, %b) {k = 4, kind = "kmin", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<2x4xf32>, memref<?x8xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// A long inner dimension is a loop of eight elements a turn, and straight code for the rest; no value is ever a vector
// of it.
// CHECK-LABEL: func.func @long_inner_dimension_0(
// CHECK-NOT: vector<103x
// CHECK: scf.for {{.+}} to %c96_{{.+}} step %c8_{{.+}} -> (vector<4xf32>)
// CHECK-COUNT-8: arith.mulf
// CHECK: scf.yield
// CHECK-COUNT-7: arith.mulf
// CHECK: arith.addf
// CHECK-NOT: arith.mulf
// CHECK-LABEL: func.func @long_inner_dimension_0_merge(
func.func @long_inner_dimension(
    %xs: memref<?x103xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x103xf32>, index) -> vector<103x4xf32>
    %m = arith.mulf %x, %x : vector<103x4xf32>
    %s = "reduction.inner_reduce"(%m) {kind = "add"} : (vector<103x4xf32>) -> vector<1x4xf32>
    "reduction.accumulate"(%s, %out) {kind = "max", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", inner_step = 8, lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i", unroll_limit = 16} : () -> ()
  return
}

// -----

// Other functions stay.
// CHECK-LABEL: func.func @no_kernel(
// CHECK-NEXT: return
func.func @no_kernel(%x: memref<?x1xf32>) {
  return
}

// -----

// Columns in lanes: one row a tile, blocks of two vectors, single vectors, and a last one in which idle lanes let
// nothing in. At the end the states of the four lanes are merged.
// CHECK-LABEL: func.func @columns_in_lanes_0(
// CHECK-SAME: rows_per_tile = 1 : i64, splittable = true
// CHECK: scf.for {{.+}} -> (vector<4xf32>)
// CHECK: [[BLOCKS:%.+]] = scf.for {{.+}} -> (vector<4xf32>)
// CHECK: [[VECTORS:%.+]] = scf.for {{.+}} iter_args({{.+}} = [[BLOCKS]]) -> (vector<4xf32>)
// CHECK: scf.if {{.+}} -> (vector<4xf32>)
// CHECK: [[VALID:%.+]] = arith.cmpi slt, {{.+}} : vector<4xi64>
// CHECK: [[MASKED:%.+]] = arith.select [[VALID]], {{.+}} : vector<4xi1>, vector<4xf32>
// CHECK: arith.addf [[VECTORS]], [[MASKED]]
// CHECK: } else {
// CHECK-NEXT: scf.yield [[VECTORS]]
// CHECK: scf.for {{.+}} -> (f32)
// CHECK-LABEL: func.func @columns_in_lanes_0_merge(
func.func @columns_in_lanes(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    "reduction.accumulate"(%y, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 2, columns = "j", lane_axis = "columns", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// With a table: the table's words say which rows a tile has, and which intervals of columns; nothing is split.
// CHECK: {axis = "i", dim = 1 : i64, element = i64, name = "ranges_i", per_split = false, role = "table"}
// CHECK-LABEL: func.func @ranged_0(
// CHECK-SAME: max_columns_per_split = 0 : i64, merges = false, rows = "i", rows_per_tile = 8 : i64, splittable = false, tile_table = 2 : i64
// CHECK: scf.for [[TILE:%[a-z0-9]+]] =
// CHECK: arith.muli [[TILE]], {{%c4_.+}} : i64
// CHECK: [[FIRST_ROW:%.+]] = llvm.load
// CHECK: [[LAST_ROW:%.+]] = llvm.load
// CHECK: [[FIRST_WORD:%.+]] = llvm.load
// CHECK: [[LAST_WORD:%.+]] = llvm.load
// CHECK: scf.for [[ROW:%[a-z0-9]+]] = [[FIRST_ROW]] to [[LAST_ROW]] step %c8_
// CHECK: [[SUM:%.+]]:2 = scf.for [[WORD:%[a-z0-9]+]] = [[FIRST_WORD]] to [[LAST_WORD]] step %c2_{{.+}} -> (vector<4xf32>, vector<4xf32>)
// CHECK: [[FIRST_COLUMN:%.+]] = llvm.load
// CHECK: [[LAST_COLUMN:%.+]] = llvm.load
// CHECK: scf.for {{.+}} = [[FIRST_COLUMN]] to [[LAST_COLUMN]]
// CHECK-NOT: func.func
// CHECK: return
func.func @ranged(
    %xs: memref<?x1xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"},
    %table: memref<?x1xi64> {reduction.axis = "i", reduction.name = "ranges_i", reduction.role = "table"}) {
  "reduction.map_reduce"(%table) ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    "reduction.accumulate"(%x, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lanes = 4, row_vectors = 2, rows = "i"} : (memref<?x1xi64>) -> ()
  return
}

// -----

// The mean over a table divides by the columns of its tile; positions in narrow lanes limit the columns.
// CHECK-LABEL: func.func @ranged_mean_0(
// CHECK-SAME: max_columns_per_split = 1073741824 : i64
// CHECK: [[COUNT:%.+]] = scf.for {{.+}} step %c2_{{.+}} -> (i64)
// CHECK: arith.uitofp [[COUNT]] : i64 to f32
func.func @ranged_mean(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"},
    %where: memref<?x1xi64> {reduction.axis = "i", reduction.name = "output1", reduction.role = "output"},
    %table: memref<?x1xi64> {reduction.axis = "i", reduction.name = "ranges_i", reduction.role = "table"}) {
  "reduction.map_reduce"(%table) ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1x1xf32>
    "reduction.accumulate"(%y, %out) {kind = "mean", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x1xf32>, memref<?x1xf32>) -> ()
    "reduction.accumulate"(%y, %where) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1x1xf32>, memref<?x1xi64>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", lanes = 1, row_vectors = 1, rows = "i"} : (memref<?x1xi64>) -> ()
  return
}

// -----

// One running sum: no chunk has a sum of its own, and no split or lane a part of the columns.
// CHECK-LABEL: func.func @direct_0(
// CHECK-SAME: splittable = false
// CHECK: scf.for {{.+}} iter_args([[OUTER:%[a-z0-9]+]] = {{.+}} -> (vector<4xf32>)
// CHECK: [[SUM:%.+]] = scf.for {{.+}} iter_args([[STATE:%[a-z0-9]+]] = [[OUTER]]) -> (vector<4xf32>)
// CHECK: arith.addf [[STATE]],
// CHECK: scf.yield [[SUM]] : vector<4xf32>
// CHECK-NOT: _merge(
func.func @direct(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1x1xf32>
    "reduction.accumulate"(%y, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>, scheme = "direct"} : (vector<1x1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// A compensated sum in double precision: two numbers a lane, of which the second takes the errors of all additions.
// CHECK: axis = "i", dim = 2 : i64, element = f64, {{.+}}, per_split = true, role = "scratch"
// CHECK-LABEL: func.func @compensated_0(
// CHECK: scf.for {{.+}} -> (vector<4xf64>, vector<4xf64>)
// CHECK: scf.for {{.+}} iter_args([[TOTAL:%[a-z0-9]+]] = {{.+}}, [[CORRECTION:%[a-z0-9]+]] = {{.+}} -> (vector<4xf64>, vector<4xf64>)
// CHECK: [[VALUE:%.+]] = arith.extf {{.+}} : vector<4xf32> to vector<4xf64>
// CHECK: [[NEXT:%.+]] = arith.addf [[TOTAL]], [[VALUE]] : vector<4xf64>
// CHECK: [[OF_VALUE:%.+]] = arith.subf [[NEXT]], [[TOTAL]] :
// CHECK: [[OF_TOTAL:%.+]] = arith.subf [[NEXT]], [[OF_VALUE]] :
// CHECK: [[LOST:%.+]] = arith.subf [[TOTAL]], [[OF_TOTAL]] :
// CHECK: [[LEFT:%.+]] = arith.subf [[VALUE]], [[OF_VALUE]] :
// CHECK: [[ERROR:%.+]] = arith.addf [[LOST]], [[LEFT]] :
// CHECK: [[ERRORS:%.+]] = arith.addf [[CORRECTION]], [[ERROR]] :
// CHECK: scf.yield [[NEXT]], [[ERRORS]]
// CHECK: arith.truncf {{.+}} : f64 to f32
// CHECK-LABEL: func.func @compensated_0_merge(
// CHECK: arith.truncf {{.+}} : f64 to f32
func.func @compensated(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %y = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1x1xf32>
    "reduction.accumulate"(%y, %out) {accumulator = f64, kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>, scheme = "kahan"} : (vector<1x1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {column_step = 1, columns = "j", lane_axis = "rows", lanes = 4, row_vectors = 1, rows = "i"} : () -> ()
  return
}

// -----

// Rows that lie one after the other in memory are one load while all lanes are rows; the last tile loads them one by one.
// CHECK-LABEL: func.func @pairs_0(
// CHECK: [[FULL:%.+]] = arith.cmpi sle, {{.*}}, {{.*}} : i64
// CHECK: scf.if [[FULL]] -> (vector<4xf32>)
// CHECK: llvm.load {{.*}} -> vector<4xf32>
// CHECK: } else {
// CHECK-COUNT-4: llvm.load {{.*}} -> f32
// CHECK: vector.from_elements
func.func @pairs(
    %a: memref<?x1xf32> {reduction.axis = "ij", reduction.name = "a", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "j", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%j: index, %i: index):
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x1xf32>, index, index) -> vector<1x4xf32>
    "reduction.accumulate"(%0, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "i", rows = "j", lanes = 4 : i64, row_vectors = 1 : i64} : () -> ()
  return
}

// -----

// Two series are copied to the stack; two loops go over the cells of their table, of which two columns are kept.
// CHECK-LABEL: func.func @soft_dtw_0(
// CHECK: llvm.alloca
// CHECK: scf.for
// The cell before the first costs nothing, those beside it cannot be reached.
// CHECK: scf.for [[J:%[a-z0-9]+]] =
// CHECK: scf.for [[I:%[a-z0-9]+]] =
// CHECK: [[LEAST:%.+]] = arith.minimumf
// CHECK: [[SMALLEST:%.+]] = arith.minimumf [[LEAST]],
// CHECK-COUNT-3: arith.cmpf une
// CHECK: arith.subf [[SMALLEST]],
// CHECK-COUNT-3: math.exp
// CHECK: math.log
func.func @soft_dtw(
    %xs: memref<?x30xf32> {reduction.axis = "i", reduction.name = "x", reduction.role = "input"},
    %ys: memref<?x20xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "i", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %x = "reduction.load"(%xs, %i) : (memref<?x30xf32>, index) -> vector<30x4xf32>
    %y = "reduction.load"(%ys, %j) : (memref<?x20xf32>, index) -> vector<20x1xf32>
    %wide = vector.broadcast %y : vector<20x1xf32> to vector<20x4xf32>
    %gamma = arith.constant dense<5.000000e-01> : vector<1x4xf32>
    %0 = "reduction.soft_dtw_rows"(%x, %wide, %gamma) {order = 0 : i64} : (vector<30x4xf32>, vector<20x4xf32>, vector<1x4xf32>) -> vector<1x4xf32>
    "reduction.accumulate"(%0, %out) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1x4xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i", lanes = 4 : i64, row_vectors = 1 : i64} : () -> ()
  return
}

// -----

// Columns of a table are stored as vectors, the last ones that fill none one by one.
// CHECK-LABEL: func.func @table_0(
// CHECK: scf.for {{.*}} step %c4
// CHECK: llvm.store {{.*}} : vector<4xf32>
// CHECK: scf.if
// CHECK: scf.for
// CHECK: llvm.store {{.*}} : f32
func.func @table(
    %ys: memref<?x1xf32> {reduction.axis = "j", reduction.name = "y", reduction.role = "input"},
    %out: memref<?x1xf32> {reduction.axis = "ij", reduction.name = "output0", reduction.role = "output"}) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%ys, %j) : (memref<?x1xf32>, index) -> vector<1x4xf32>
    "reduction.store_pair"(%0, %out, %i, %j) : (vector<1x4xf32>, memref<?x1xf32>, index, index) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i", lanes = 4 : i64, lane_axis = "columns"} : () -> ()
  return
}
