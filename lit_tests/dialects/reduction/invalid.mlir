// RUN: pylazy-opt %s --split-input-file --verify-diagnostics

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.exp' op takes and gives !reduction.lazy values}}
  %1 = "reduction.exp"(%x) : (tensor<?x3xf32>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.exp' op takes and gives !reduction.lazy values}}
  %1 = "reduction.exp"(%0) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"k", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.exp' op has 2 operands, expected 1}}
  %1 = "reduction.exp"(%0, %0) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.exp' op has result !reduction.lazy<"ij", vector<3xf32>>, expected !reduction.lazy<"i", vector<3xf32>>}}
  %1 = "reduction.exp"(%0) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"ij", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.extract' op has no integer attribute `size`}}
  %1 = "reduction.extract"(%0) {start = 0 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.extract' op has operands of inner dimensions [3], which do not fit together}}
  %1 = "reduction.extract"(%0) {size = 3 : i64, start = 1 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.extract"(%0) {size = 2 : i64, start = 1 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  // expected-error@below {{'reduction.add' op has operands of inner dimensions [3, 2], which do not fit together}}
  %2 = "reduction.add"(%0, %1) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<2xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.broadcast' op has operands of inner dimensions [3], which do not fit together}}
  %1 = "reduction.broadcast"(%0) {size = 3 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  %1 = "reduction.constant"() {value = 1.0 : f64} : () -> !reduction.lazy<"", vector<1xf64>>
  // expected-error@below {{'reduction.add' op mixes element types}}
  %2 = "reduction.add"(%0, %1) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"", vector<1xf64>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{unregistered operation 'reduction.frobnicate'}}
  %1 = "reduction.frobnicate"(%0) : (!reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.var' op has axis "k", expected "i", "j", "ij", "ji" or ""}}
  %1 = "reduction.var"(%x) {axis = "k"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?xf32>) {
  // expected-error@below {{'reduction.var' op views tensor<?xf32>, expected a rank-2 tensor}}
  %1 = "reduction.var"(%x) {axis = "i"} : (tensor<?xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x?xf32>) {
  // expected-error@below {{'reduction.var' op views tensor<?x?xf32>, expected a static row length}}
  %1 = "reduction.var"(%x) {axis = "i"} : (tensor<?x?xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.var' op has result !reduction.lazy<"i", vector<3xf32>>, expected !reduction.lazy<"j", vector<3xf32>>}}
  %1 = "reduction.var"(%x) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.constant' op has no float attribute `value`}}
  %1 = "reduction.constant"() {value = 1 : i64} : () -> !reduction.lazy<"", vector<1xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.constant' op has result !reduction.lazy<"i", vector<3xf32>>, expected !reduction.lazy<"", vector<1xf32>>}}
  %1 = "reduction.constant"() {value = 1.0 : f32} : () -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op has 3 operands, expected a formula and perhaps a weight}}
  %1 = "reduction.reduce"(%0, %0, %0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op reduces something that is no !reduction.lazy value}}
  %1 = "reduction.reduce"(%x) {axis = "j", kind = "sum"} : (tensor<?x3xf32>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op has kind "median", expected one of argkmax}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "median"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op has axis "", expected "i" or "j"}}
  %1 = "reduction.reduce"(%0) {axis = "", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "kmin" has k = 0}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "kmin"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "sum" has k = 2}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum", k = 2 : i64} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "sum" takes no weight}}
  %1 = "reduction.reduce"(%0, %0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "softmax" needs a weight}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "softmax"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "logsumexp" reduces inner dimension 3, expected 1}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "logsumexp"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "max" takes no accumulator}}
  %1 = "reduction.reduce"(%0) {accumulator = f64, axis = "j", kind = "max"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op adds up f32 in f32, expected f32 in f64}}
  %1 = "reduction.reduce"(%0) {accumulator = f32, axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op of kind "prod" has no scheme "kahan"}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "prod", scheme = "kahan"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op has result f32, expected a tensor}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> f32
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op has result tensor<?x2xf32>, expected rows of 3 x f32}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x2xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.reduce' op has result tensor<1x3xf32>, expected a row for each index of the other axis}}
  %1 = "reduction.reduce"(%0) {axis = "j", kind = "sum"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<1x3xf32>
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.load' op reads rows of memref<?x3xf32> as vector<2xf32>}}
    %2 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<2xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.store' op writes vector<3xf32> into rows of memref<?x1xf32>}}
    "reduction.store"(%0, %p, %i) : (vector<3xf32>, memref<?x1xf32>, index) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.inner_reduce' op has kind "middle", expected one of add}}
    %2 = "reduction.inner_reduce"(%0) {kind = "middle"} : (vector<3xf32>) -> vector<1xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.inner_reduce' op reduces vector<3xf32> to vector<3xf32>}}
    %2 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<3xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.concat_rows' op joins vector<3xf32> and vector<1xf32> to vector<3xf32>}}
    %2 = "reduction.concat_rows"(%0, %1) : (vector<3xf32>, vector<1xf32>) -> vector<3xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.accumulate' op has kind "argmin", expected one of kmax}}
    "reduction.accumulate"(%1, %p) {kind = "argmin", operandSegmentSizes = array<i32: 1, 0, 1, 0>} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.accumulate' op of kind "sum" has no indices}}
    "reduction.accumulate"(%1, %n) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 0, 1>} : (vector<1xf32>, memref<?x1xi64>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.accumulate' op has no buffer for its result}}
    "reduction.accumulate"(%1) {kind = "sum", operandSegmentSizes = array<i32: 1, 0, 0, 0>} : (vector<1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.accumulate' op of kind "sum" takes no weight}}
    "reduction.accumulate"(%1, %1, %p) {kind = "sum", operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (vector<1xf32>, vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>, %n: memref<?x1xi64>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x3xf32>, index) -> vector<3xf32>
    %1 = "reduction.inner_reduce"(%0) {kind = "add"} : (vector<3xf32>) -> vector<1xf32>
    // expected-error@below {{'reduction.accumulate' op of kind "min" has no scheme "direct"}}
    "reduction.accumulate"(%1, %p) {kind = "min", operandSegmentSizes = array<i32: 1, 0, 1, 0>, scheme = "direct"} : (vector<1xf32>, memref<?x1xf32>) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.map_reduce' op has rows "i" and columns "i", expected two axes of "i", "j", or no rows}}
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    "reduction.yield"() : () -> ()
  }) {columns = "i", rows = "i"} : () -> ()
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.map_reduce' op has a body that does not take two indices (row, column)}}
  "reduction.map_reduce"() ({
  ^bb0(%i: index):
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.map' op has rows "k", expected "i", "j" or ""}}
  "reduction.map"() ({
  ^bb0(%i: index):
    "reduction.yield"() : () -> ()
  }) {rows = "k"} : () -> ()
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.map' op has a body that does not take one index}}
  "reduction.map"() ({
  ^bb0(%i: f32):
    "reduction.yield"() : () -> ()
  }) {rows = "i"} : () -> ()
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.contract' op has operands of inner dimensions [3, 3], which do not fit together}}
  %1 = "reduction.contract"(%0, %0) {sizes = [3, 2], left = [0, 1], right = [0], kept = [1]} : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<2xf32>>
  return
}

// -----

// A label of one operand alone would be a sum of that operand.
func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.contract' op has operands of inner dimensions [3, 3], which do not fit together}}
  %1 = "reduction.contract"(%0, %0) {sizes = [3, 3], left = [0], right = [1], kept = [0]} : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<3xf32>>
  return
}

// -----

func.func @f(%x: memref<?x6xf32>, %y: memref<?x3xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    %0 = "reduction.load"(%x, %i) : (memref<?x6xf32>, index) -> vector<6xf32>
    %1 = "reduction.load"(%y, %j) : (memref<?x3xf32>, index) -> vector<3xf32>
    // expected-error@below {{'reduction.contract_rows' op contracts vector<6xf32> and vector<3xf32> to vector<3xf32>, which its labels do not say}}
    %2 = "reduction.contract_rows"(%0, %1) {sizes = [2, 3], left = [0, 1], right = [1], kept = [0]} : (vector<6xf32>, vector<3xf32>) -> vector<3xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.positions' op counts in vector<3xi64>, expected floats}}
  %0 = "reduction.positions"() : () -> vector<3xi64>
  return
}

// -----

func.func @f(%x: memref<?x3xf32>, %p: memref<?x1xf32>) {
  // expected-error@below {{'reduction.map_reduce' op has a table of memref<?x3xf32>, expected memref<?x1xi64>}}
  "reduction.map_reduce"(%x) ({
  ^bb0(%i: index, %j: index):
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : (memref<?x3xf32>) -> ()
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.index' op has axis "ij", expected "i" or "j"}}
  %0 = "reduction.index"() {axis = "ij"} : () -> !reduction.lazy<"ij", vector<1xf32>>
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.index' op has result !reduction.lazy<"j", vector<1xf32>>, expected one float that varies with its axis}}
  %0 = "reduction.index"() {axis = "i"} : () -> !reduction.lazy<"j", vector<1xf32>>
  return
}

// -----

func.func @f() {
  // expected-error@below {{'reduction.index' op has result !reduction.lazy<"i", vector<1xi64>>, expected one float that varies with its axis}}
  %0 = "reduction.index"() {axis = "i"} : () -> !reduction.lazy<"i", vector<1xi64>>
  return
}

// -----

func.func @f(%a: memref<?x2xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    // expected-error@below {{'reduction.load_pair' op reads pairs of memref<?x2xf32> as vector<3xf32>}}
    %0 = "reduction.load_pair"(%a, %i, %j) : (memref<?x2xf32>, index, index) -> vector<3xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

func.func @f() {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    // expected-error@below {{'reduction.index_value' op gives vector<2xf32>, expected one float}}
    %0 = "reduction.index_value"(%i) : (index) -> vector<2xf32>
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}

// -----

// Gamma is one number.
func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.soft_dtw' op has operands of inner dimensions [3, 3, 3], which do not fit together}}
  %1 = "reduction.soft_dtw"(%0, %0, %0) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"i", vector<3xf32>>) -> !reduction.lazy<"i", vector<1xf32>>
  return
}

// -----

func.func @f(%x: vector<3xf32>, %gamma: vector<1xf32>) {
  // expected-error@below {{'reduction.soft_dtw_rows' op of order 2 has operands and result of dimensions [3, 3, 1, 7]}}
  %0 = "reduction.soft_dtw_rows"(%x, %x, %gamma) {order = 2 : i64} : (vector<3xf32>, vector<3xf32>, vector<1xf32>) -> vector<7xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.tabulate' op has axis "i" and operand !reduction.lazy<"i", vector<3xf32>>, expected "ij" or "ji" and a formula}}
  %1 = "reduction.tabulate"(%0) {axis = "i"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x3xf32>
  return
}

// -----

func.func @f(%x: tensor<?x3xf32>) {
  %0 = "reduction.var"(%x) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
  // expected-error@below {{'reduction.tabulate' op has result tensor<?x2xf32>, expected tensor<?x3xf32>}}
  %1 = "reduction.tabulate"(%0) {axis = "ij"} : (!reduction.lazy<"i", vector<3xf32>>) -> tensor<?x2xf32>
  return
}

// -----

func.func @f(%a: memref<?x2xf32>, %v: vector<3xf32>) {
  "reduction.map_reduce"() ({
  ^bb0(%i: index, %j: index):
    // expected-error@below {{'reduction.store_pair' op writes vector<3xf32> into pairs of memref<?x2xf32>}}
    "reduction.store_pair"(%v, %a, %i, %j) : (vector<3xf32>, memref<?x2xf32>, index, index) -> ()
    "reduction.yield"() : () -> ()
  }) {columns = "j", rows = "i"} : () -> ()
  return
}
