// Ephemeral ports (RFC 6056).
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/random.h"
#include "stack/base/result.h"
#include "stack/base/siphash.h"
#include "stack/net/address.h"
#include "stack/settings.h"

namespace ustack::tcp {

/// Chooses ports by the double-hash algorithm (RFC 6056, 3.3.4: algorithm 3's keyed offset per destination,
/// with the counter hashed too), so that ports of one destination go up and those of others tell nothing
/// about them.
class PortSelector {
 public:
  /// Draws the secrets and the counters' starts.
  explicit PortSelector(RandomSource& random);

  /// A port of Settings::ip_local_port_range for which is_free(port) is true; each is tried once. `remote` is
  /// unspecified for bind(2) to port 0. `range`: IP_LOCAL_PORT_RANGE, whose ends count where they are within
  /// the host's range. EADDRNOTAVAIL: all are taken (bind(2) makes EADDRINUSE of it).
  template <typename IsFree>
  Result<uint16_t> select(const Settings& settings, const IpAddress& local, const SocketAddress& remote,
                          IsFree&& is_free, int32_t range = 0) {
    Walk walk = begin(settings, local, remote, range);
    for (uint32_t i = 0; i < walk.count; ++i) {
      uint16_t port = walk.port(i);
      if (!is_free(port)) continue;
      table_[walk.slot] = static_cast<uint16_t>((walk.counter + i + 1) % walk.count);
      return port;
    }
    return Error{EADDRNOTAVAIL};
  }

 private:
  struct Walk {
    uint32_t first, count;  // the range
    uint32_t offset;        // keyed by addresses and remote port
    uint32_t counter;
    uint32_t slot;
    uint16_t port(uint32_t i) const { return static_cast<uint16_t>(first + (offset + counter + i) % count); }
  };
  Walk begin(const Settings& settings, const IpAddress& local, const SocketAddress& remote,
             int32_t range) const;

  SipKey offset_secret_;
  SipKey slot_secret_;
  std::array<uint16_t, 256> table_;
};

}  // namespace ustack::tcp
