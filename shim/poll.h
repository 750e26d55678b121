// One wait on any number of descriptors, ours and the kernel's mixed: what poll, ppoll, select and pselect
// are made of. Ours are looked at by readiness() and waited for by their queues; the kernel's are looked at
// by one ppoll without a time-out and waited for through one descriptor that the driver watches beside the
// link.
#pragma once

#include <poll.h>

#include <csignal>
#include <cstdint>
#include <span>

#include "shim/claims.h"
#include "shim/driver.h"
#include "shim/open_file.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack::shim {

struct PollItem {
  int fd = -1;
  /// Asked for, of poll(2).
  uint16_t events = 0;
  /// What is true of `counts`; POLLNVAL for a descriptor that isn't open.
  uint16_t revents = 0;
  /// What ends the wait: of poll(2) `events` with POLLERR and POLLHUP, of select(2) less.
  uint16_t counts = 0;
};

/// Room for one call's items and what belongs to them: on the stack for the usual few, from the arena for
/// many. Without the host's lock.
class PollRoom {
 public:
  explicit PollRoom(size_t count);
  ~PollRoom();
  PollRoom(const PollRoom&) = delete;
  PollRoom& operator=(const PollRoom&) = delete;

  bool ok() const { return items_ != nullptr; }
  std::span<PollItem> items() { return {items_, count_}; }
  std::span<OpenFile*> files() { return {files_, count_}; }
  /// Writes them down, with the memory that they are in.
  void claim(Claims& claims) { claims.set_polled(files(), memory_, count_ * kBytesEach); }
  std::span<pollfd> kernel() { return {kernel_, count_}; }
  std::span<uint32_t> kernel_of() { return {kernel_of_, count_}; }

 private:
  static constexpr size_t kFew = Claims::kFew;
  static constexpr size_t kBytesEach =
      sizeof(PollItem) + sizeof(OpenFile*) + sizeof(pollfd) + sizeof(uint32_t);
  size_t count_;
  void* memory_ = nullptr;  // from the arena
  PollItem* items_ = nullptr;
  OpenFile** files_ = nullptr;
  pollfd* kernel_ = nullptr;
  uint32_t* kernel_of_ = nullptr;
  alignas(8) std::byte few_[kFew * kBytesEach];
};

/// Fills in the items' revents and yields how many have any, 0 when `deadline` has passed (Instant::min():
/// look, don't wait). EINTR, ENOMEM. In a Scope, without the host's lock. `mask` as in WaitRequest.
Result<int> poll_items(PollRoom& room, Instant deadline, const sigset_t* mask);

/// The driver reads the link only when somebody waits: a program that always finds something ready looks at
/// the link here now and then, so that what else has come is found too. Lock: held, dropped meanwhile.
void look_if_overdue(HostLock& lock);
/// The link has been looked at just now.
void note_look(HostLock& lock);

}  // namespace ustack::shim
