// How many ICMP errors may go out.
#pragma once

#include <cstdint>

#include "stack/net/address_table.h"
#include "stack/net/context.h"

namespace ustack {

/// Two token buckets as in icmp(7): one for all ICMP errors (net.ipv4.icmp_msgs_per_sec, with a burst of
/// icmp_msgs_burst), one for each destination (one per icmp_ratelimit milliseconds, with a burst of six; 0:
/// no limit). RFC 1812, 4.3.2.8. Lock: the host's.
class IcmpLimiter {
 public:
  /// Destinations whose bucket is remembered; the global bucket bounds what forgetting one allows.
  static constexpr uint32_t kMaxDestinations = 256;
  /// XRLIM_BURST_FACTOR.
  static constexpr int kDestinationBurst = 6;

  explicit IcmpLimiter(const HostContext& context)
      : context_(context), table_(context.arena, context.random) {}
  IcmpLimiter(const IcmpLimiter&) = delete;
  IcmpLimiter& operator=(const IcmpLimiter&) = delete;

  /// Takes a token from each bucket. False if one is empty, which is counted.
  bool allow(const IpAddress& destination);

  /// After a process was killed while it changed the host.
  void mend() { table_.mend(); }

 private:
  struct Bucket : AddressTableEntry {
    using AddressTableEntry::AddressTableEntry;
    Duration tokens{};  // time saved up
    Instant filled{};
  };
  bool allow_any();
  bool allow_destination(const IpAddress& destination);

  HostContext context_;
  AddressTable<Bucket> table_;
  bool started_ = false;
  int64_t credit_ = 0;
  Instant filled_{};
};

}  // namespace ustack
