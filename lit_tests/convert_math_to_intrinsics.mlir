// RUN: pylazy-opt %s --pass-pipeline='convert-math-to-intrinsics{target=sm_90}' | filecheck %s

// CHECK-LABEL: gpu.func @scalars
// CHECK: %[[ROOT:.*]] = llvm.call_intrinsic "llvm.sqrt.f32"(%{{.*}}) : (f32) -> f32
// CHECK: llvm.call_intrinsic "llvm.fma.f32"(%[[ROOT]], %[[ROOT]], %{{.*}}) : (f32, f32, f32) -> f32
// CHECK: llvm.call_intrinsic "llvm.sqrt.f64"
// CHECK-NOT: math.
gpu.module @kernels {
  gpu.func @scalars(%x: f32, %y: f64, %out: memref<1xf32>, %out2: memref<1xf64>) kernel {
    %zero = arith.constant 0 : index
    %0 = math.sqrt %x : f32
    %1 = math.fma %0, %0, %x : f32
    %2 = math.sqrt %y : f64
    memref.store %1, %out[%zero] : memref<1xf32>
    memref.store %2, %out2[%zero] : memref<1xf64>
    gpu.return
  }
}

// What is no instruction of a GPU, and vectors, are left alone.
// CHECK-LABEL: func.func @others
// CHECK: math.exp %{{.*}} : f32
// CHECK: math.sqrt %{{.*}} : vector<4xf32>
func.func @others(%x: f32, %v: vector<4xf32>) -> (f32, vector<4xf32>) {
  %0 = math.exp %x : f32
  %1 = math.sqrt %v : vector<4xf32>
  return %0, %1 : f32, vector<4xf32>
}
