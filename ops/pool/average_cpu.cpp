// Average pooling of every kind, and its gradients.
#include "ops/resize/resample.h"

namespace mb::MB_ISA {

MB_KERNEL("avg_pool2d", Device::kCpu, bind_resample)
MB_KERNEL("adaptive_avg_pool2d", Device::kCpu, bind_resample)

}  // namespace mb::MB_ISA
