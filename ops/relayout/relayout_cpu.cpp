// Layout changes and plain copies.
#include "mb/kernel.h"
#include "mb/relayout.h"

namespace mb::MB_ISA {
namespace {

Launch bind_relayout(const Call& call) {
  const Tensor from = call.in(0), to = call.out();
  return [=](Stream&) { relayout(from, to); };
}

}  // namespace

MB_KERNEL("relayout", Device::kCpu, bind_relayout)
MB_KERNEL("copy", Device::kCpu, bind_relayout)

}  // namespace mb::MB_ISA
