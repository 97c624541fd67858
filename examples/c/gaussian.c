/* A Gaussian product from C, without Python:
 *
 *   pylazy compile gaussian.toml --emit header,static -o kernels.plzb
 *   cc -O2 gaussian.c -I. -L. -lkernels -lm -o gaussian && ./gaussian
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

static DLTensor matrix(float *data, int64_t *shape) {
  DLTensor tensor = {data, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, shape, NULL, 0};
  return tensor;
}

int main(void) {
  enum { M = 700, N = 900, D = 3 };
  static float x[M * D], y[N * D], b[N], a[M];
  float width = 0.5f;
  for (int k = 0; k < M * D; ++k) x[k] = (float)(k * 37 % 101) / 101;
  for (int k = 0; k < N * D; ++k) y[k] = (float)(k * 53 % 103) / 103;
  for (int k = 0; k < N; ++k) b[k] = (float)(k % 7) - 3;

  int64_t x_shape[] = {M, D}, y_shape[] = {N, D}, b_shape[] = {N, 1}, a_shape[] = {M, 1}, one[] = {1};
  DLTensor x_tensor = matrix(x, x_shape), y_tensor = matrix(y, y_shape), b_tensor = matrix(b, b_shape);
  DLTensor a_tensor = matrix(a, a_shape), width_tensor = matrix(&width, one);
  width_tensor.ndim = 1;

  const size_t bytes = plz_gaussian_scratch_bytes(M, N);
  void *scratch = malloc(bytes > 0 ? bytes : 1);
  if (plz_gaussian(&x_tensor, &y_tensor, &width_tensor, &b_tensor, &a_tensor, scratch, bytes) != PLZ_OK) {
    fprintf(stderr, "%s\n", plz_last_error());
    return 1;
  }
  double worst = 0;
  for (int i = 0; i < M; ++i) {
    double sum = 0, size = 0;
    for (int j = 0; j < N; ++j) {
      double squared = 0;
      for (int d = 0; d < D; ++d) squared += pow((double)x[i * D + d] - y[j * D + d], 2);
      sum += exp(-squared / width) * b[j];
      size += exp(-squared / width) * fabs(b[j]);
    }
    worst = fmax(worst, fabs(a[i] - sum) / size);
  }
  printf("largest relative error %.1e\n", worst);

  /* What does not fit is refused, with a message. */
  y_shape[1] = 2;
  if (plz_gaussian(&x_tensor, &y_tensor, &width_tensor, &b_tensor, &a_tensor, scratch, bytes) == PLZ_OK) return 1;
  printf("refused: %s\n", plz_last_error());
  free(scratch);
  return worst < 1e-5 ? 0 : 1;
}
