/* DLTensor of DLPack 1.x (https://github.com/dmlc/dlpack, Apache-2.0), for programs that do not include dlpack.h.
 * The layout is frozen by DLPack. */
#ifndef DLPACK_DLPACK_H_
#ifndef PLZ_DLTENSOR
#define PLZ_DLTENSOR

typedef enum { kDLCPU = 1 } DLDeviceType;

typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;

typedef enum { kDLInt = 0U, kDLUInt = 1U, kDLFloat = 2U } DLDataTypeCode;

typedef struct {
  uint8_t code; /* DLDataTypeCode */
  uint8_t bits;
  uint16_t lanes; /* 1 */
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; null where rows follow one another */
  uint64_t byte_offset;
} DLTensor;

#endif
#endif
