// Element types from their names.
#include "mb/dtype.h"

#include <algorithm>

#include "mb/error.h"

namespace mb {

DType dtype_from_name(std::string_view name) {
  const auto found = std::find(kDTypeNames.begin(), kDTypeNames.end(), name);
  if (found == kDTypeNames.end()) fail("unknown element type ", name);
  return DType(found - kDTypeNames.begin());
}

}  // namespace mb
