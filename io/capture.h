// A pcapng file of what crossed the link (draft-ietf-opsawg-pcapng).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/descriptor.h"
#include "io/open_error.h"
#include "stack/mem/block.h"
#include "stack/net/frame.h"

namespace ustack::io {

/// Writes enhanced packet blocks with direction and nanosecond time. A partial checksum is completed in the
/// copy, so that the file shows what the link will make of the frame; superframes stay whole. Buffered in the
/// process's own memory; every flush writes whole blocks to an O_APPEND file, so that relatives may share it.
/// After fork the child starts with an empty buffer. Lock: the host's.
class Capture {
 public:
  /// Empties or makes the file and writes its head. The memory is mapped, not allocated. nullptr on failure.
  static std::optional<OpenError> open(const std::string& path, const LinkInfo& link, Capture** capture);
  /// flush() and unmap.
  static void close(Capture* capture);

  void received(const RxFrame& frame);
  void sent(TxFrame& frame, Instant now);
  /// Writes out what is buffered. Called by engines at every wait when something is buffered, and at exit.
  void flush();
  bool pending() const { return used_ > 0; }
  Descriptor& descriptor() { return fd_; }
  /// Frames that could not be written (disk full).
  uint64_t lost() const { return lost_; }

  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

 private:
  static constexpr size_t kBufferBytes = 256 * 1024;
  Capture(Descriptor fd, const LinkInfo& link);
  ~Capture() = default;
  std::byte* reserve(uint32_t frame_bytes, Instant at, bool outbound);
  void forget_if_forked();

  Descriptor fd_;
  uint64_t generation_;
  /// What turns the host's clock into the time of day, in nanoseconds.
  int64_t epoch_offset_;
  bool ethernet_;
  size_t used_ = 0;
  uint64_t lost_ = 0;
  std::byte buffer_[kBufferBytes];
};

}  // namespace ustack::io
