// Convolution and its two gradients, by oneDNN.
//
// Activations stay plain (NHWC, or NCHW when the layout pass is off). Weights are copied into the
// blocked format that the primitive prefers, and weight gradients back from it, inside the launch:
// weights change in every step, and the copy costs a hundredth of the convolution.
#include "mb/onednn.h"

namespace mb::MB_ISA {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

memory::dims dims_of(const Tensor& tensor) {
  return {tensor.dims.begin(), tensor.dims.begin() + tensor.rank};
}

memory::desc activation(const Tensor& tensor) {
  return onednn_desc(dims_of(tensor),
                     tensor.layout == Layout::kChannelsLast ? Tag::nhwc : Tag::nchw);
}

// The attributes of all three operators, in oneDNN's terms.
struct Geometry {
  memory::dims stride, dilation, before, after;
  memory::dims weights;
  bool grouped;

  Geometry(const Call& call, const Tensor& w) {
    const auto& s = call.attrs.integers("stride");
    const auto& d = call.attrs.integers("dilation");
    const auto& p = call.attrs.integers("padding");  // top, bottom, left, right
    const std::int64_t groups = call.attrs.integer("groups");
    stride = {s[0], s[1]};
    dilation = {d[0] - 1, d[1] - 1};  // oneDNN counts the holes
    before = {p[0], p[2]};
    after = {p[1], p[3]};
    grouped = groups > 1;
    weights = dims_of(w);
    if (grouped) {
      weights[0] /= groups;
      weights.insert(weights.begin(), groups);
    }
  }

  memory::desc plain_weights() const {
    return onednn_desc(weights, grouped ? Tag::goihw : Tag::oihw);
  }
  memory::desc any_weights() const { return onednn_desc(weights, Tag::any); }
};

using Forward = dnnl::convolution_forward;
using BackwardData = dnnl::convolution_backward_data;
using BackwardWeights = dnnl::convolution_backward_weights;
constexpr auto kDirect = dnnl::algorithm::convolution_direct;

Forward::primitive_desc forward_desc(const Geometry& g, const memory::desc& x,
                                     const memory::desc& bias, const memory::desc& y,
                                     const dnnl::primitive_attr& attr) {
  return {onednn_engine(),
          dnnl::prop_kind::forward_training,
          kDirect,
          x,
          g.any_weights(),
          bias,
          y,
          g.stride,
          g.dilation,
          g.before,
          g.after,
          attr};
}

// The backward primitives want to see a forward one with the same geometry.
Forward::primitive_desc hint(const Geometry& g, const memory::desc& x, const memory::desc& y) {
  return forward_desc(g, x, memory::desc(), y, onednn_attr());
}

OneDnnProgram build_forward(const Call& call) {
  OneDnnProgram program(call.workspace.pointer);
  const Tensor &x = call.in(0), &w = call.in(1), &y = call.out();
  if (y.count() == 0) return program;
  const Geometry g(call, w);
  const bool biased = call.inputs.size() > 2;
  dnnl::primitive_attr attr = onednn_attr();
  if (call.attrs.has("activation")) {  // infer permits only relu
    dnnl::post_ops after;
    after.append_eltwise(dnnl::algorithm::eltwise_relu, 0.f, 0.f);
    attr.set_post_ops(after);
  }
  const memory::desc bias = biased ? onednn_desc(dims_of(call.in(2)), Tag::x) : memory::desc();
  const auto desc = forward_desc(g, activation(x), bias, activation(y), attr);
  const memory weights =
      program.reordered(program.at(g.plain_weights(), w.pointer), desc.weights_desc());
  std::vector<std::pair<int, memory>> arguments = {
      {DNNL_ARG_SRC, program.at(desc.src_desc(), x.pointer)},
      {DNNL_ARG_WEIGHTS, weights},
      {DNNL_ARG_DST, program.at(desc.dst_desc(), y.pointer)}};
  if (biased) arguments.emplace_back(DNNL_ARG_BIAS, program.at(bias, call.in(2).pointer));
  program.add(desc, Forward(desc), std::move(arguments));
  return program;
}

OneDnnProgram build_backward_data(const Call& call) {
  OneDnnProgram program(call.workspace.pointer);
  const Tensor &dy = call.in(0), &w = call.in(1), &dx = call.out();
  if (dx.count() == 0) return program;
  const Geometry g(call, w);
  const memory::desc x_desc = activation(dx), y_desc = activation(dy);
  const BackwardData::primitive_desc desc(onednn_engine(), kDirect, x_desc, g.any_weights(), y_desc,
                                          g.stride, g.dilation, g.before, g.after,
                                          hint(g, x_desc, y_desc), onednn_attr());
  const memory weights =
      program.reordered(program.at(g.plain_weights(), w.pointer), desc.weights_desc());
  program.add(desc, BackwardData(desc),
              {{DNNL_ARG_DIFF_DST, program.at(y_desc, dy.pointer)},
               {DNNL_ARG_WEIGHTS, weights},
               {DNNL_ARG_DIFF_SRC, program.at(x_desc, dx.pointer)}});
  return program;
}

OneDnnProgram build_backward_weights(const Call& call) {
  OneDnnProgram program(call.workspace.pointer);
  const Tensor &x = call.in(0), &dy = call.in(1), &dw = call.out();
  if (x.count() == 0) return program;
  const Geometry g(call, dw);
  const memory::desc x_desc = activation(x), y_desc = activation(dy);
  const BackwardWeights::primitive_desc desc(onednn_engine(), kDirect, x_desc, g.any_weights(),
                                             y_desc, g.stride, g.dilation, g.before, g.after,
                                             hint(g, x_desc, y_desc), onednn_attr());
  const memory plain = program.at(g.plain_weights(), dw.pointer);
  const bool direct = desc.diff_weights_desc() == plain.get_desc();
  const memory made = direct ? plain : program.take(desc.diff_weights_desc());
  program.add(desc, BackwardWeights(desc),
              {{DNNL_ARG_SRC, program.at(x_desc, x.pointer)},
               {DNNL_ARG_DIFF_DST, program.at(y_desc, dy.pointer)},
               {DNNL_ARG_DIFF_WEIGHTS, made}});
  if (!direct) program.reorder(made, plain);
  return program;
}

Launch bind_backward_weights(const Call& call) {
  if (call.in(0).count() > 0) return bind_onednn<build_backward_weights>(call);
  const Tensor dw = call.out();  // no image: nothing depends on the weights
  return [dw](Stream&) { std::memset(dw.pointer, 0, dw.bytes()); };
}

}  // namespace

MB_KERNEL("conv2d", Device::kCpu, bind_onednn<build_forward>, workspace_onednn<build_forward>)
MB_KERNEL("conv2d_backward_data", Device::kCpu, bind_onednn<build_backward_data>,
          workspace_onednn<build_backward_data>)
MB_KERNEL("conv2d_backward_weights", Device::kCpu, bind_backward_weights,
          workspace_onednn<build_backward_weights>)

}  // namespace mb::MB_ISA
