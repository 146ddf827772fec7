// How many threads a thread of Python gets that has not chosen for itself.
#pragma once

namespace mb {

void set_default_num_threads(int count);  // MB_NUM_THREADS; without it all usable CPUs

}  // namespace mb
