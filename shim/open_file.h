// Open file descriptions: what descriptors refer to (open(2)), shared by dup and fork. They live in the arena.
#pragma once

#include <atomic>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/socket/socket.h"

namespace ustack::shim {

/// One open file description of ours. Counted by the descriptors of all processes that refer to it and by
/// calls under way. Lock: the host's.
class OpenFile {
 public:
  enum class Kind : uint8_t { socket, epoll };

  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  Kind kind() const { return kind_; }
  /// O_NONBLOCK and O_ASYNC (fcntl(2), F_SETFL): they belong to the description, not to the descriptor.
  int status_flags = 0;
  /// Bits of ready:: true now.
  virtual uint32_t readiness() = 0;
  virtual WaitQueue& waiters() = 0;

  void reference() { ++references_; }
  /// Drops a reference; the last one closes the file and frees it.
  void release();

 protected:
  explicit OpenFile(Kind kind) : kind_(kind) {}
  virtual ~OpenFile() = default;
  /// The last reference is gone.
  virtual void close() = 0;

 private:
  Kind kind_;
  uint32_t references_ = 1;
};

}  // namespace ustack::shim
