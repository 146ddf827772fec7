// Matrix products by oneDNN. Transposes are strides; batch axes broadcast inside the primitive.
#include <algorithm>
#include <cstring>

#include "mb/onednn.h"

namespace mb::MB_ISA {
namespace {

using dnnl::memory;
using Dim = memory::dim;

// A matrix operand with `batch` leading axes (missing ones have size 1).
struct Matrix {
  memory::dims dims, strides;

  Matrix(const Tensor& tensor, bool transposed, int batch) {
    dims.assign(std::size_t(batch - (tensor.rank - 2)), 1);
    dims.insert(dims.end(), tensor.dims.begin(), tensor.dims.begin() + tensor.rank);
    strides.assign(dims.size(), 1);
    for (std::size_t axis = dims.size() - 1; axis > 0; --axis) {
      strides[axis - 1] = strides[axis] * dims[axis];
    }
    if (transposed) {
      std::swap(dims.end()[-1], dims.end()[-2]);
      std::swap(strides.end()[-1], strides.end()[-2]);
    }
  }
  Matrix(Dim rows, Dim columns, Dim row_stride, Dim column_stride)
      : dims{rows, columns}, strides{row_stride, column_stride} {}

  Dim rows() const { return dims.end()[-2]; }
  Dim columns() const { return dims.end()[-1]; }
  Dim batch() const {
    Dim count = 1;
    for (std::size_t axis = 0; axis + 2 < dims.size(); ++axis) count *= dims[axis];
    return count;
  }

  // All batches as one tall matrix; rows must follow each other.
  Matrix tall() const { return {batch() * rows(), columns(), columns(), 1}; }

  memory::desc desc() const { return onednn_desc(dims, strides); }
};

// y = a @ b (+ bias), none of them empty.
OneDnnProgram product(void* workspace, Matrix a, const void* a_data, Matrix b, const void* b_data,
                      Matrix y, const void* y_data, const void* bias_data) {
  OneDnnProgram program(workspace);
  const bool a_in_rows = a.strides.back() == 1 && a.strides.end()[-2] == a.columns();
  if (y.dims.size() > 2 && b.batch() == 1 && a_in_rows) {  // one b for all: a larger a
    a = a.tall();
    y = y.tall();
    b = Matrix(b.rows(), b.columns(), b.strides.end()[-2], b.strides.end()[-1]);
  }
  memory::dims bias_dims(y.dims.size(), 1);
  bias_dims.back() = y.columns();
  const memory::desc bias = bias_data == nullptr
                                ? memory::desc()
                                : onednn_desc(bias_dims, memory::dims(bias_dims.size(), 1));
  const dnnl::matmul::primitive_desc desc(onednn_engine(), a.desc(), b.desc(), bias, y.desc(),
                                          onednn_attr());
  std::vector<std::pair<int, memory>> arguments = {{DNNL_ARG_SRC, program.at(a.desc(), a_data)},
                                                   {DNNL_ARG_WEIGHTS, program.at(b.desc(), b_data)},
                                                   {DNNL_ARG_DST, program.at(y.desc(), y_data)}};
  if (bias_data != nullptr) arguments.emplace_back(DNNL_ARG_BIAS, program.at(bias, bias_data));
  program.add(desc, dnnl::matmul(desc), std::move(arguments));
  return program;
}

OneDnnProgram build_matmul(const Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1), &y = call.out();
  if (y.count() == 0 || a.count() == 0) return OneDnnProgram(call.workspace.pointer);
  const int batch = y.rank - 2;
  return product(call.workspace.pointer, Matrix(a, call.attrs.flag("transpose_a"), batch),
                 a.pointer, Matrix(b, call.attrs.flag("transpose_b"), batch), b.pointer,
                 Matrix(y, false, batch), y.pointer, nullptr);
}

Launch bind_matmul(const Call& call) {
  if (call.in(0).count() > 0) return bind_onednn<build_matmul>(call);
  const Tensor y = call.out();  // a sum of nothing
  return [y](Stream&) { std::memset(y.pointer, 0, y.bytes()); };
}

OneDnnProgram build_linear(const Call& call) {
  const Tensor &x = call.in(0), &w = call.in(1), &y = call.out();
  if (y.count() == 0 || x.count() == 0) return OneDnnProgram(call.workspace.pointer);
  const Dim outputs = w.dim(0), inputs = w.dim(1), rows = x.count() / inputs;
  const bool biased = call.inputs.size() > 2;
  static float probe;  // while workspace is asked for, addresses are null but a bias counts
  const void* bias = biased ? call.in(2).pointer : nullptr;
  if (biased && bias == nullptr) bias = &probe;
  return product(call.workspace.pointer, Matrix(rows, inputs, inputs, 1), x.pointer,
                 Matrix(inputs, outputs, 1, inputs), w.pointer, Matrix(rows, outputs, outputs, 1),
                 y.pointer, bias);
}

Launch bind_linear(const Call& call) {
  if (call.in(0).count() > 0) return bind_onednn<build_linear>(call);
  const Tensor y = call.out();  // a sum of nothing, and the bias
  const Tensor bias = call.inputs.size() > 2 ? call.in(2) : Tensor{};
  return [=](Stream&) {
    if (bias.pointer == nullptr) {
      std::memset(y.pointer, 0, y.bytes());
      return;
    }
    char* to = static_cast<char*>(y.pointer);
    for (std::size_t at = 0; at < y.bytes(); at += bias.bytes()) {
      std::memcpy(to + at, bias.pointer, bias.bytes());
    }
  };
}

}  // namespace

MB_KERNEL("matmul", Device::kCpu, bind_matmul, workspace_onednn<build_matmul>)
MB_KERNEL("linear", Device::kCpu, bind_linear, workspace_onednn<build_linear>)

}  // namespace mb::MB_ISA
