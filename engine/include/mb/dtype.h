// Element types: the same names as megbrain_py/dtypes.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mb {

enum class DType : std::uint8_t { kFloat32, kFloat64, kInt32, kInt64, kUint8, kBool };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kUint8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

inline constexpr std::array<std::string_view, 6> kDTypeNames{"float32", "float64", "int32",
                                                             "int64",   "uint8",   "bool"};

constexpr std::string_view name_of(DType dtype) { return kDTypeNames[std::size_t(dtype)]; }
DType dtype_from_name(std::string_view name);  // throws Error for an unknown name

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kFloat64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kInt64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kUint8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};

}  // namespace mb
