// Compiled, never run, by tests/test_mpi.py: engine/src/mpi_functions.h against a real mpi_abi.h.
#include <mpi_abi.h>

#include <cstddef>
#include <type_traits>

#include "mpi_functions.h"

namespace {

using namespace mb::mpi;

// The header's type -> ours.
template <typename T>
struct Ours {
  using type = T;
};
template <>
struct Ours<MPI_Comm> {
  using type = Comm;
};
template <>
struct Ours<MPI_Group> {
  using type = Group;
};
template <>
struct Ours<MPI_Request> {
  using type = Request;
};
template <>
struct Ours<MPI_Datatype> {
  using type = Datatype;
};
template <>
struct Ours<MPI_Op> {
  using type = Op;
};
template <>
struct Ours<MPI_Errhandler> {
  using type = Errhandler;
};
template <>
struct Ours<MPI_Status> {
  using type = Status;
};
template <typename T>
struct Ours<T*> {
  using type = typename Ours<T>::type*;
};
template <typename... Args>
auto translated(int (*)(Args...)) -> int (*)(typename Ours<Args>::type...);

#define MB_SAME(name, ...)                                                               \
  static_assert(std::is_same_v<decltype(translated(&MPI_##name)), int (*)(__VA_ARGS__)>, \
                "MPI_" #name " has another type");
MB_MPI_FUNCTIONS(MB_SAME)
#undef MB_SAME

static_assert(sizeof(Status) == sizeof(MPI_Status));
static_assert(offsetof(Status, source) == offsetof(MPI_Status, MPI_SOURCE));
static_assert(std::is_same_v<Count, MPI_Count>);
static_assert(kSuccess == MPI_SUCCESS && kAnySource == MPI_ANY_SOURCE);
static_assert(kThreadMultiple == MPI_THREAD_MULTIPLE && kMaxErrorString >= MPI_MAX_ERROR_STRING);

}  // namespace

// Casts from integers are no constant expressions, but the optimiser knows them: what differs calls
// a function that does not exist, which the compiler reports.
[[gnu::error("a handle has another value")]] extern void differs();

namespace {
template <typename Handle>
inline __attribute__((always_inline)) void same(std::uintptr_t ours, Handle theirs) {
  if (reinterpret_cast<std::uintptr_t>(theirs) != ours) differs();
}

}  // namespace

void check_handles() {
  same(kCommNull, MPI_COMM_NULL);
  same(kCommWorld, MPI_COMM_WORLD);
  same(kSum, MPI_SUM);
  same(kMin, MPI_MIN);
  same(kMax, MPI_MAX);
  same(kErrorsReturn, MPI_ERRORS_RETURN);
  same(kRequestNull, MPI_REQUEST_NULL);
  same(kFloat, MPI_FLOAT);
  same(kDouble, MPI_DOUBLE);
  same(kUint8, MPI_UINT8_T);
  same(kInt32, MPI_INT32_T);
  same(kInt64, MPI_INT64_T);
  same(kInPlace, MPI_IN_PLACE);
}
