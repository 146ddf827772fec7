// A copy by a thread of its own after some time: what asynchronous instructions are tested with
// (tests/asynchronous.py). It starts a thread for each run, which no kernel for use should do.
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <thread>
#include <utility>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

struct Work {
  std::thread thread;
  std::exception_ptr error;

  void join_and_rethrow() {
    if (thread.joinable()) thread.join();
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
};

// Attributes: seconds until the copy is made; fails: "", "start", or "work" (instead of the copy);
// staged: the copy goes through the workspace, where it is at once.
StartAndWait bind_copy_later(const Call& call) {
  const Tensor from = call.in(0), to = call.out(), stage = call.workspace;
  const bool staged = call.attrs.flag("staged");
  const std::chrono::duration<double> delay(call.attrs.real("seconds"));
  const std::string fails = call.attrs.text("fails");
  const auto work = std::make_shared<Work>();
  StartAndWait halves;
  halves.start = [=](Stream&) {
    require(fails != "start", "cannot be started");
    work->thread = std::thread([=] {
      if (staged) std::memcpy(stage.pointer, from.pointer, to.bytes());
      std::this_thread::sleep_for(delay);
      if (fails == "work") {
        work->error = std::make_exception_ptr(Error("the work has failed"));
      } else {
        std::memcpy(to.pointer, staged ? stage.pointer : from.pointer, to.bytes());
      }
    });
  };
  halves.wait = [=](Stream&) { work->join_and_rethrow(); };
  return halves;
}

std::size_t workspace_copy_later(const Call& call) {
  return call.attrs.flag("staged") ? call.out().bytes() : 0;
}

}  // namespace

MB_KERNEL("copy_later", Device::kCpu, bind_copy_later, workspace_copy_later)

}  // namespace mb::MB_ISA
