// The binary family's kernels, for a file that has defined kDevice and bind_typed<In, F>(call):
// included inside its namespace, at its foot.

namespace {

template <typename F>
Launch bind_binary(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_typed<float, F>(call);
    case DType::kInt32:
      return bind_typed<std::int32_t, F>(call);
    case DType::kInt64:
      return bind_typed<std::int64_t, F>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

// Equality has a meaning for every element type.
template <typename F>
Launch bind_equality(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kUint8:
      return bind_typed<std::uint8_t, F>(call);
    case DType::kBool:
      return bind_typed<bool, F>(call);
    default:
      return bind_binary<F>(call);
  }
}

}  // namespace

MB_KERNEL("add", kDevice, bind_binary<Add>)
MB_KERNEL("sub", kDevice, bind_binary<Sub>)
MB_KERNEL("mul", kDevice, bind_binary<Mul>)
MB_KERNEL("maximum", kDevice, bind_binary<Maximum>)
MB_KERNEL("minimum", kDevice, bind_binary<Minimum>)
MB_KERNEL("less", kDevice, bind_binary<Less>)
MB_KERNEL("less_equal", kDevice, bind_binary<LessEqual>)
MB_KERNEL("greater", kDevice, bind_binary<Greater>)
MB_KERNEL("greater_equal", kDevice, bind_binary<GreaterEqual>)
MB_KERNEL("equal", kDevice, bind_equality<Equal>)
MB_KERNEL("not_equal", kDevice, bind_equality<NotEqual>)
MB_KERNEL("logical_and", kDevice, bind_typed<bool, LogicalAnd>)
MB_KERNEL("logical_or", kDevice, bind_typed<bool, LogicalOr>)
MB_KERNEL("div", kDevice, bind_typed<float, Div>)
MB_KERNEL("pow", kDevice, bind_typed<float, Pow>)
