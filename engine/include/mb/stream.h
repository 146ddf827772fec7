// The order of work on a device. The CPU runs launches as they come.
#pragma once

namespace mb {

class Stream {};

}  // namespace mb
