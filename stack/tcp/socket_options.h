// What setsockopt(2) can choose about a TCP socket, apart from what the sender and the receiver keep
// themselves.
#pragma once

#include <cstdint>

#include "stack/base/time.h"
#include "stack/settings.h"
#include "stack/socket/option_values.h"
#include "stack/socket/report.h"
#include "stack/tcp/fast_open.h"
#include "stack/tcp/plain_options.h"

namespace ustack::tcp {

/// What concerns packets of IPv6 only (ipv6(7)).
struct Ipv6Options {
  /// IPV6_V6ONLY: IPv4 is nothing to this socket.
  bool v6_only = false;
  /// IPV6_UNICAST_HOPS; negative: net.ipv6.conf.all.hop_limit.
  int16_t hop_limit = -1;
  /// IPV6_TCLASS.
  uint8_t traffic_class = 0;
  /// IPV6_MINHOPCOUNT.
  uint8_t least_hops = 0;
  PmtuDiscovery pmtu_discovery = PmtuDiscovery::want;
  bool receive_errors = false;
  /// IPV6_AUTOFLOWLABEL.
  bool flow_label = true;
};

/// Inherited by accepted connections. Defaults as a fresh socket of Linux has them. Copied as a whole.
struct SocketOptions {
  // SOL_SOCKET
  bool reuse_address = false;
  bool reuse_port = false;
  bool keepalive = false;
  bool out_of_band_inline = false;
  bool linger = false;
  bool broadcast = false;
  /// SO_DONTROUTE: only to hosts on the link, not through a gateway.
  bool dont_route = false;
  int32_t linger_seconds = 0;
  /// SO_SNDBUF as Linux counts it: true size.
  uint32_t send_limit = 16384;
  bool send_limit_locked = false;
  /// Zero: none.
  Duration receive_timeout{0};
  Duration send_timeout{0};
  BoundDevice device = BoundDevice::any;
  TimeStamping times{};
  /// SO_ZEROCOPY.
  bool zero_copy = false;

  // IPPROTO_TCP
  /// TCP_MAXSEG; 0: not set.
  uint16_t max_segment = 0;
  /// Zero: the sysctl's.
  Duration keepalive_idle{0};
  Duration keepalive_interval{0};
  uint32_t keepalive_count = 0;
  /// TCP_SYNCNT; 0: tcp_syn_retries.
  uint8_t syn_retries = 0;
  /// TCP_LINGER2; zero: tcp_fin_timeout; negative: FIN-WAIT-2 is left at once.
  Duration fin_wait_2{0};
  /// TCP_DEFER_ACCEPT as the number of SYN-ACK time-outs that it is worth; 0: off.
  uint8_t defer_accept = 0;
  /// TCP_WINDOW_CLAMP; 0: none.
  uint32_t window_clamp = 0;
  /// TCP_SAVE_SYN: accepted connections can be asked for the headers of their SYN.
  bool save_syn = false;
  /// TCP_FASTOPEN: connections by Fast Open whose handshake may be under way at once; 0: none.
  uint32_t fast_open_queue = 0;
  /// TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE.
  bool fast_open_connect = false;
  bool fast_open_no_cookie = false;
  /// TCP_FASTOPEN_KEY; none: the host's.
  FastOpenKeys fast_open_keys{};
  /// TCP_USER_TIMEOUT; zero: none.
  Duration user_timeout{0};

  // IPPROTO_IP
  /// IP_TTL; 0: net.ipv4.ip_default_ttl.
  uint8_t ttl = 0;
  uint8_t tos = 0;
  PmtuDiscovery pmtu_discovery = PmtuDiscovery::want;
  bool bind_address_no_port = false;
  bool receive_errors = false;

  Ipv6Options ipv6{};

  /// All that are a number and no more.
  PlainOptions plain{};

  /// What is exchanged within the host (`local`), or over the link, is for this socket.
  bool reaches(bool local) const {
    return device == BoundDevice::any || (device == BoundDevice::loopback) == local;
  }
};

}  // namespace ustack::tcp
