// Address space is reserved once and made usable on demand, so growing never moves a tensor.
#include "mb/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "mb/error.h"
#include "round_up.h"

namespace mb {
namespace {

constexpr std::size_t kMostReserved = std::size_t{1} << 40;
constexpr std::size_t kLeastReserved = std::size_t{1} << 30;

void* map(std::size_t bytes, int protection) {
  void* block =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return block == MAP_FAILED ? nullptr : block;
}

// What the machine could still give; more would end this process without a word.
std::size_t available_bytes() {
  std::ifstream lines("/proc/meminfo");
  std::size_t kib = 0;
  for (std::string word; lines >> word;) {
    if (word == "MemAvailable:" && lines >> kib) return kib * 1024;
  }
  return std::numeric_limits<std::size_t>::max();  // not known
}

void prefault(char* begin, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(begin, bytes, MADV_HUGEPAGE);  // advice: refused by some kernels, harmless
#endif
#ifdef MADV_POPULATE_WRITE
  if (madvise(begin, bytes, MADV_POPULATE_WRITE) == 0) return;
  require(errno != ENOMEM, "the machine has no memory for ", bytes, " bytes of scratch");
#endif
  const long page = sysconf(_SC_PAGESIZE);
  for (std::size_t at = 0; at < bytes; at += std::size_t(page)) begin[at] = 0;
}

}  // namespace

Arena::Arena() {
  for (reserved_ = kMostReserved; reserved_ >= kLeastReserved; reserved_ /= 2) {
    base_ = static_cast<char*>(map(reserved_, PROT_NONE));  // address space limits may refuse
    if (base_ != nullptr) return;
  }
  fail("no address space for the scratch arena: ", std::strerror(errno));
}

Arena::~Arena() { munmap(base_, reserved_); }

void Arena::reserve(std::size_t bytes) {
  if (bytes <= size_) return;
  require(bytes <= reserved_, "the plan needs ", bytes, " bytes of scratch; this process may use ",
          reserved_);
  const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
  const std::size_t begin = round_up(size_, page);
  const std::size_t end = round_up(bytes, page);
  if (end > begin) {
    require(end - begin <= available_bytes(), "the plan needs ", bytes,
            " bytes of scratch; the machine has ", available_bytes(), " left");
    require(mprotect(base_ + begin, end - begin, PROT_READ | PROT_WRITE) == 0,
            "the scratch arena cannot grow to ", bytes, " bytes: ", std::strerror(errno));
    prefault(base_ + begin, end - begin);
  }
  size_ = bytes;
}

void Arena::shrink(std::size_t bytes) noexcept {
  if (bytes >= size_) return;
  const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
  const std::size_t begin = round_up(bytes, page);
  const std::size_t end = round_up(size_, page);
  if (end > begin) {  // mapped anew: neither its pages nor its right to any are kept
    mmap(base_ + begin, end - begin, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  size_ = bytes;
}

}  // namespace mb
