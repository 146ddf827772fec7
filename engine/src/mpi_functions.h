// The part of the standard MPI ABI (MPI 5.0, chapter 20) that the engine calls, declared by itself:
// a build needs no MPI, and every library with this ABI serves. tests/mpi_abi_check.cpp compares it
// with the header of MPICH's wheel.
#pragma once

#include <cstdint>

namespace mb::mpi {

struct OpaqueComm;
struct OpaqueGroup;
struct OpaqueRequest;
struct OpaqueDatatype;
struct OpaqueOp;
struct OpaqueErrhandler;
using Comm = OpaqueComm*;
using Group = OpaqueGroup*;
using Request = OpaqueRequest*;
using Datatype = OpaqueDatatype*;
using Op = OpaqueOp*;
using Errhandler = OpaqueErrhandler*;
using Count = std::int64_t;

struct Status {
  int source, tag, error;
  int reserved[5];
};

// Handles are small integers in pointers; these are no constant expressions.
template <typename Handle>
Handle handle(std::uintptr_t value) {
  return reinterpret_cast<Handle>(value);  // NOLINT: the ABI says so
}

inline constexpr std::uintptr_t kCommNull = 0x100;
inline constexpr std::uintptr_t kCommWorld = 0x101;
inline constexpr std::uintptr_t kSum = 0x21;
inline constexpr std::uintptr_t kMin = 0x22;
inline constexpr std::uintptr_t kMax = 0x23;
inline constexpr std::uintptr_t kErrorsReturn = 0x143;
inline constexpr std::uintptr_t kRequestNull = 0x180;
inline constexpr std::uintptr_t kFloat = 0x210;
inline constexpr std::uintptr_t kDouble = 0x214;
inline constexpr std::uintptr_t kUint8 = 0x241;
inline constexpr std::uintptr_t kInt32 = 0x250;
inline constexpr std::uintptr_t kInt64 = 0x258;
inline constexpr std::uintptr_t kInPlace = 1;
inline constexpr int kSuccess = 0;
inline constexpr int kAnySource = -1;
inline constexpr int kThreadMultiple = 4096;
inline constexpr int kMaxErrorString = 512;

// MPI_X is called X here.
#define MB_MPI_FUNCTIONS(F)                                                             \
  F(Init_thread, int*, char***, int, int*)                                              \
  F(Query_thread, int*)                                                                 \
  F(Initialized, int*)                                                                  \
  F(Finalized, int*)                                                                    \
  F(Finalize, void)                                                                     \
  F(Abort, Comm, int)                                                                   \
  F(Error_string, int, char*, int*)                                                     \
  F(Comm_rank, Comm, int*)                                                              \
  F(Comm_size, Comm, int*)                                                              \
  F(Comm_dup, Comm, Comm*)                                                              \
  F(Comm_set_errhandler, Comm, Errhandler)                                              \
  F(Comm_group, Comm, Group*)                                                           \
  F(Group_incl, Group, int, const int*, Group*)                                         \
  F(Group_free, Group*)                                                                 \
  F(Comm_create_group, Comm, Group, int, Comm*)                                         \
  F(Test, Request*, int*, Status*)                                                      \
  F(Iallreduce_c, const void*, void*, Count, Datatype, Op, Comm, Request*)              \
  F(Iallgather_c, const void*, Count, Datatype, void*, Count, Datatype, Comm, Request*) \
  F(Ibcast_c, void*, Count, Datatype, int, Comm, Request*)                              \
  F(Ireduce_scatter_block_c, const void*, void*, Count, Datatype, Op, Comm, Request*)   \
  F(Isend, const void*, int, Datatype, int, int, Comm, Request*)                        \
  F(Iprobe, int, int, Comm, int*, Status*)                                              \
  F(Recv, void*, int, Datatype, int, int, Comm, Status*)

}  // namespace mb::mpi
