// Nearest and bilinear resizing, and their adjoints.
#include "ops/resize/resample.h"

namespace mb::MB_ISA {

MB_KERNEL("resize", Device::kCpu, bind_resample)

}  // namespace mb::MB_ISA
