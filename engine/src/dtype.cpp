// Names of element types.
#include "mb/dtype.h"

#include <array>
#include <utility>

#include "mb/error.h"

namespace mb {
namespace {
constexpr std::array<std::pair<std::string_view, DType>, 6> kNames{{
    {"float32", DType::kFloat32},
    {"float64", DType::kFloat64},
    {"int32", DType::kInt32},
    {"int64", DType::kInt64},
    {"uint8", DType::kUint8},
    {"bool", DType::kBool},
}};
}  // namespace

DType dtype_from_name(std::string_view name) {
  for (const auto& [known, dtype] : kNames) {
    if (known == name) return dtype;
  }
  fail("unknown element type ", name);
}

std::string_view name_of(DType dtype) { return kNames[std::size_t(dtype)].first; }

}  // namespace mb
