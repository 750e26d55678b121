// What a socket has to tell beside its stream: when bytes came and went, that a buffer is free again, what a
// router said. The first comes with what is read, all else through the error queue (recvmsg(2),
// MSG_ERRQUEUE).
#pragma once

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>

#include <cstdint>

#include "stack/base/time.h"
#include "stack/mem/block.h"
#include "stack/net/address.h"

namespace ustack {

/// Flags of SO_TIMESTAMPING beside those of <linux/net_tstamp.h>.
namespace time_stamping {
/// SOF_TIMESTAMPING_OPT_ID_TCP and SOF_TIMESTAMPING_OPT_RX_FILTER, which not every header has.
inline constexpr uint32_t kIdFromUnsent = 1 << 16, kRxFilter = 1 << 17;
/// What can be told of a message that is sent; no card tells its own times.
inline constexpr uint32_t kDepartures =
    SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK;
}  // namespace time_stamping

/// SO_TIMESTAMP, SO_TIMESTAMPNS and SO_TIMESTAMPING (socket(7); Linux,
/// Documentation/networking/timestamping.rst).
struct TimeStamping {
  /// SOF_TIMESTAMPING_*.
  uint32_t flags = 0;
  /// SO_TIMESTAMP or SO_TIMESTAMPNS; the latter.
  bool on_receive = false;
  bool nanoseconds = false;
  /// By SO_*_NEW.
  bool new_format = false;

  bool wants_arrivals() const { return on_receive || (flags & SOF_TIMESTAMPING_RX_SOFTWARE) != 0; }
};

/// An entry of the error queue (ip(7), IP_RECVERR).
struct Report {
  sock_extended_err what{};
  /// is_icmp(): who has sent that, and to whom the packet went that it is about.
  IpAddress offender{};
  SocketAddress about{};
  /// SO_EE_ORIGIN_TIMESTAMPING: when.
  Instant at{};
  /// What recvmsg(2) yields as data: of an ICMP error the quoted packet's transport header and what follows.
  Slice payload{};
  /// The payload is the statistics of SOF_TIMESTAMPING_OPT_STATS.
  bool statistics = false;

  bool is_icmp() const { return what.ee_origin == SO_EE_ORIGIN_ICMP || what.ee_origin == SO_EE_ORIGIN_ICMP6; }
};

struct IcmpError;

/// What the queue tells of an ICMP error (ip_icmp_error) about a packet that went to `port`, of which
/// `payload` is quoted. Without memory it has no payload, not even an empty one.
Report icmp_report(BlockPool& blocks, int error, const IcmpError& icmp, uint16_t port, Bytes payload);

}  // namespace ustack
