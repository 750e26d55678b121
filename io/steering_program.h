// What tells a link's queues the shard of each packet (stack/net/steering.h), as a program that the kernel
// runs.
#pragma once

#include <linux/bpf.h>
#include <linux/filter.h>

#include <array>
#include <cstdint>
#include <span>

#include "io/descriptor.h"
#include "io/link.h"
#include "stack/base/result.h"
#include "stack/net/steering.h"

namespace ustack::io {

/// Returns the shard of a TCP segment, whole and without IPv6's extension headers, and 0 for all else: what
/// then comes to another shard than its own is handed over there.
class SteeringProgram {
 public:
  explicit SteeringProgram(const Steering& steering);

  /// For PACKET_FANOUT_CBPF.
  std::span<const sock_filter> classic() const { return {code_.data(), count_}; }
  /// The same as an extended one, loaded (bpf(2), BPF_PROG_TYPE_SOCKET_FILTER). EPERM without CAP_BPF where
  /// the kernel lets only those, ENOSYS, ...
  Result<Descriptor> load() const;

 private:
  static constexpr size_t kMost = 96;
  void add(uint16_t code, uint32_t k, uint8_t jump_true = 0, uint8_t jump_false = 0);
  /// Adds up `factor` times the exclusive or of `words` at that offset from the IP header; `first`: sets it.
  void add_address(uint32_t offset, uint32_t words, uint32_t factor, bool first);

  std::array<sock_filter, kMost> code_;
  size_t count_ = 0;
};

/// Has what comes by `link` come to its shard's queue: a TAP or TUN that is the program's and not the
/// sender's to steer (TUNSETSTEERINGEBPF), or a packet link. A link that can't stays as it is.
Status steer(Link& link, const Steering& steering);
/// A TAP or TUN follows its senders again, as one that was never steered.
void stop_steering(Link& link);

}  // namespace ustack::io
