// The one exception of the engine; Python sees it as EngineError.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace mb {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with the streamed parts as its text: `fail("conv2d: groups ", g, " ...")`.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

}  // namespace mb
