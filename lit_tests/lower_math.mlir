// RUN: pylazy-opt %s --pass-pipeline='lower-math{target=x86-64-v4}' | filecheck %s
// RUN: pylazy-opt %s --pass-pipeline='lower-math{target=sm_90+accurate}' | filecheck %s --check-prefixes=GPU,ACCURATE
// RUN: pylazy-opt %s --pass-pipeline='lower-math{target=sm_90}' | filecheck %s --check-prefixes=GPU,DEFAULT
// RUN: pylazy-opt %s --pass-pipeline='lower-math{target=sm_90+fast}' | filecheck %s --check-prefixes=GPU,FAST

// The constants stand once, at the start; the table of powers fills two registers.
// CHECK-LABEL: func.func @exp_by_table
// CHECK-COUNT-1: arith.constant dense<1.44269502> : vector<16xf32>
// CHECK: %[[N:.*]] = llvm.call_intrinsic "llvm.x86.avx512.mask.rndscale.ps.512"
// CHECK: arith.andi
// CHECK: llvm.call_intrinsic "llvm.x86.avx512.vpermi2var.ps.512"
// CHECK: llvm.call_intrinsic "llvm.x86.avx512.mask.scalef.ps.512"
// CHECK-NOT: math.exp
func.func @exp_by_table(%x: vector<16xf32>) -> vector<16xf32> {
  %0 = math.exp %x : vector<16xf32>
  return %0 : vector<16xf32>
}

// A vector of two registers is cut, and joined again.
// CHECK-LABEL: func.func @exp_of_two_registers
// CHECK: llvm.shufflevector
// CHECK: mask.scalef.pd.512
// CHECK: llvm.shufflevector
// CHECK: mask.scalef.pd.512
// CHECK: %[[JOINED:.*]] = llvm.shufflevector {{.*}} : vector<8xf64>
// CHECK-NEXT: return %[[JOINED]]
func.func @exp_of_two_registers(%x: vector<16xf64>) -> vector<16xf64> {
  %0 = math.exp %x : vector<16xf64>
  return %0 : vector<16xf64>
}

// Scalars need no intrinsic.
// CHECK-LABEL: func.func @exp_of_scalar
// CHECK-NOT: llvm.call_intrinsic
// CHECK: math.fma
// CHECK: arith.bitcast
// CHECK: return
func.func @exp_of_scalar(%x: f32) -> f32 {
  %0 = math.exp %x : f32
  return %0 : f32
}

// Large angles are reduced under a branch, lane by lane.
// CHECK-LABEL: func.func @sin
// CHECK: %[[ANY:.*]] = vector.reduction <or>
// CHECK: scf.if %[[ANY]]
// CHECK: scf.for
// CHECK: vector.extract
// CHECK: i128
// CHECK: vector.insert
// CHECK-NOT: math.sin
// CHECK: return
func.func @sin(%x: vector<16xf32>) -> vector<16xf32> {
  %0 = math.sin %x : vector<16xf32>
  return %0 : vector<16xf32>
}

// A function that no formula has is computed in f64 for f32 too.
// CHECK-LABEL: func.func @log10
// CHECK: arith.extf {{.*}} vector<16xf32> to vector<16xf64>
// CHECK-NOT: math.log10
// CHECK: arith.truncf
func.func @log10(%x: vector<16xf32>) -> vector<16xf32> {
  %0 = math.log10 %x : vector<16xf32>
  return %0 : vector<16xf32>
}

// Powers of f32 come from logarithms in two parts; of what is known to be above 0, no sign is looked at.
// CHECK-LABEL: func.func @power(
// CHECK-NOT: f64
// CHECK-NOT: math.powf
// CHECK: arith.xori
// CHECK: return
// CHECK-LABEL: func.func @power_above_0
// CHECK-NOT: arith.xori
// CHECK: return
func.func @power(%x: vector<16xf32>, %y: vector<16xf32>) -> vector<16xf32> {
  %0 = math.powf %x, %y : vector<16xf32>
  return %0 : vector<16xf32>
}
func.func @power_above_0(%x: vector<16xf32>, %y: vector<16xf32>) -> vector<16xf32> {
  %one = arith.constant dense<1.0> : vector<16xf32>
  %0 = math.fma %x, %x, %one : vector<16xf32>
  %1 = math.powf %0, %y : vector<16xf32>
  return %1 : vector<16xf32>
}

// CHECK-LABEL: func.func @integer_power
// CHECK: %[[SQUARE:.*]] = arith.mulf %arg0, %arg0
// CHECK: %[[CUBE:.*]] = arith.mulf %arg0, %[[SQUARE]]
// CHECK: return %[[CUBE]]
func.func @integer_power(%x: f64) -> f64 {
  %three = arith.constant 3 : i32
  %0 = math.fpowi %x, %three : f64, i32
  return %0 : f64
}

// A negation before an exponential goes into its constants.
// CHECK-LABEL: func.func @exp_of_negation
// CHECK: arith.constant dense<-1.44269502> : vector<16xf32>
// CHECK: arith.mulf %arg0
// CHECK: mask.rndscale
func.func @exp_of_negation(%x: vector<16xf32>) -> vector<16xf32> {
  %0 = arith.negf %x : vector<16xf32>
  %1 = math.exp %0 : vector<16xf32>
  return %1 : vector<16xf32>
}

// Square roots come from an estimate of 14 bits; 0 and infinity are their own roots.
// CHECK-LABEL: func.func @sqrt_f32
// CHECK: llvm.call_intrinsic "llvm.x86.avx512.rsqrt14.ps.512"
// CHECK: llvm.call_intrinsic "llvm.usub.sat.v32i16"
// CHECK: %[[SPECIAL:.*]] = llvm.call_intrinsic "llvm.x86.avx512.fpclass.ps.512"
// CHECK: arith.select %[[SPECIAL]], %arg0,
// CHECK-NOT: math.sqrt
// CHECK: return
func.func @sqrt_f32(%x: vector<16xf32>) -> vector<16xf32> {
  %0 = math.sqrt %x : vector<16xf32>
  return %0 : vector<16xf32>
}

// In f64, numbers that need the instruction take it under a branch.
// CHECK-LABEL: func.func @sqrt_f64
// CHECK: rsqrt14.pd.512
// CHECK: %[[ANY:.*]] = vector.reduction <or>
// CHECK: scf.if %[[ANY]]
// CHECK-NEXT: math.sqrt %arg0
func.func @sqrt_f64(%x: vector<8xf64>) -> vector<8xf64> {
  %0 = math.sqrt %x : vector<8xf64>
  return %0 : vector<8xf64>
}

// What the target has stays.
// CHECK-LABEL: func.func @kept
// CHECK: math.sqrt
// CHECK-NEXT: math.floor
// CHECK-NEXT: math.fma
// CHECK-NEXT: return
func.func @kept(%x: f32) -> f32 {
  %0 = math.sqrt %x : f32
  %1 = math.floor %0 : f32
  %2 = math.fma %1, %1, %x : f32
  return %2 : f32
}

// A GPU has instructions for some functions, which a mode may use or not; there is none for quotients of f64.
// GPU-LABEL: func.func @by_math_mode
// ACCURATE: math.fma
// ACCURATE-NOT: approx
// DEFAULT: llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f"
// DEFAULT: llvm.call_intrinsic "llvm.nvvm.sqrt.approx.f"
// DEFAULT: arith.divf %{{.*}}, %{{.*}} : f32
// FAST: llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f"
// FAST: llvm.call_intrinsic "llvm.nvvm.sqrt.approx.f"
// FAST: llvm.call_intrinsic "llvm.nvvm.div.approx.f"
// FAST: llvm.call_intrinsic "llvm.nvvm.lg2.approx.f"
// GPU: arith.divf %{{.*}}, %{{.*}} : f64
func.func @by_math_mode(%x: f32, %y: f32, %z: f64) -> (f32, f64) {
  %0 = math.exp2 %x : f32
  %1 = math.sqrt %0 : f32
  %2 = arith.divf %1, %y : f32
  %3 = math.log2 %2 : f32
  %4 = arith.divf %z, %z : f64
  return %3, %4 : f32, f64
}
