// The scratch memory of a device: one block, shared by all executables, that grows and never moves.
#pragma once

#include <cstddef>

namespace mb {

class Arena {
 public:
  Arena();

  // Makes at least `bytes` usable; addresses handed out before stay valid. Prefaulted.
  void reserve(std::size_t bytes);

  // Gives the memory after the first `bytes` back to the system.
  void shrink(std::size_t bytes) noexcept;

  char* base() const { return base_; }
  std::size_t size() const { return size_; }  // bytes that are usable

  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

 private:
  char* base_ = nullptr;
  std::size_t reserved_ = 0;
  std::size_t size_ = 0;
};

}  // namespace mb
