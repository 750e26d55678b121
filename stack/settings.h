// Settings under the names that Linux gives them (ip-sysctl). One table row makes the field, its default and
// its bounds; a name that is not here is an error to whoever sets it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "stack/base/result.h"

namespace ustack {

// X(field, "linux.name", default, lowest, highest): whole numbers, in Linux's units.
#define USTACK_INTEGER_SETTINGS(X)                                                                    \
  X(ip_default_ttl, "net.ipv4.ip_default_ttl", 64, 1, 255)                                            \
  X(ipv6_hop_limit, "net.ipv6.conf.all.hop_limit", 64, 1, 255)                                        \
  X(ipfrag_time, "net.ipv4.ipfrag_time", 30, 1, 3600)                                                 \
  X(ip6frag_time, "net.ipv6.ip6frag_time", 60, 1, 3600)                                               \
  X(ipfrag_high_thresh, "net.ipv4.ipfrag_high_thresh", 4194304, 0, 1 << 30)                           \
  X(icmp_ratelimit, "net.ipv4.icmp_ratelimit", 1000, 0, 1 << 30)                                      \
  X(icmp_msgs_per_sec, "net.ipv4.icmp_msgs_per_sec", 1000, 0, 1 << 30)                                \
  X(icmp_msgs_burst, "net.ipv4.icmp_msgs_burst", 50, 0, 1 << 30)                                      \
  X(icmp_echo_ignore_all, "net.ipv4.icmp_echo_ignore_all", 0, 0, 1)                                   \
  X(route_min_pmtu, "net.ipv4.route.min_pmtu", 552, 68, 65535)                                        \
  X(route_mtu_expires, "net.ipv4.route.mtu_expires", 600, 1, 1 << 30)                                 \
  X(somaxconn, "net.core.somaxconn", 4096, 0, 65535)                                                  \
  X(rmem_max, "net.core.rmem_max", 4194304, 2304, 1 << 30)                                            \
  X(wmem_max, "net.core.wmem_max", 4194304, 4608, 1 << 30)                                            \
  X(tcp_syn_retries, "net.ipv4.tcp_syn_retries", 6, 1, 127)                                           \
  X(tcp_synack_retries, "net.ipv4.tcp_synack_retries", 5, 0, 255)                                     \
  X(tcp_retries1, "net.ipv4.tcp_retries1", 3, 0, 255)                                                 \
  X(tcp_retries2, "net.ipv4.tcp_retries2", 15, 0, 255)                                                \
  X(tcp_orphan_retries, "net.ipv4.tcp_orphan_retries", 0, 0, 255)                                     \
  X(tcp_fin_timeout, "net.ipv4.tcp_fin_timeout", 60, 1, 3600)                                         \
  X(tcp_keepalive_time, "net.ipv4.tcp_keepalive_time", 7200, 1, 32767)                                \
  X(tcp_keepalive_intvl, "net.ipv4.tcp_keepalive_intvl", 75, 1, 32767)                                \
  X(tcp_keepalive_probes, "net.ipv4.tcp_keepalive_probes", 9, 1, 127)                                 \
  X(tcp_max_syn_backlog, "net.ipv4.tcp_max_syn_backlog", 1024, 0, 1 << 20)                            \
  X(tcp_timestamps, "net.ipv4.tcp_timestamps", 1, 0, 2)                                               \
  X(tcp_sack, "net.ipv4.tcp_sack", 1, 0, 1)                                                           \
  X(tcp_dsack, "net.ipv4.tcp_dsack", 1, 0, 1)                                                         \
  X(tcp_comp_sack_nr, "net.ipv4.tcp_comp_sack_nr", 44, 0, 255)                                        \
  X(tcp_comp_sack_delay_ns, "net.ipv4.tcp_comp_sack_delay_ns", 1000000, 0, 0x7fffffff)                \
  X(tcp_rto_min_us, "net.ipv4.tcp_rto_min_us", 200000, 2000, 0x7fffffff)                              \
  X(tcp_rto_max_ms, "net.ipv4.tcp_rto_max_ms", 120000, 1000, 120000)                                  \
  X(tcp_recovery, "net.ipv4.tcp_recovery", 1, 0, 7)                                                   \
  X(tcp_early_retrans, "net.ipv4.tcp_early_retrans", 3, 0, 4)                                         \
  X(tcp_frto, "net.ipv4.tcp_frto", 2, 0, 2)                                                           \
  X(tcp_reordering, "net.ipv4.tcp_reordering", 3, 1, 300)                                             \
  X(tcp_max_reordering, "net.ipv4.tcp_max_reordering", 300, 1, 1 << 20)                               \
  X(tcp_min_rtt_wlen, "net.ipv4.tcp_min_rtt_wlen", 300, 0, 86400)                                     \
  X(tcp_ecn, "net.ipv4.tcp_ecn", 2, 0, 2)                                                             \
  X(tcp_ecn_fallback, "net.ipv4.tcp_ecn_fallback", 1, 0, 1)                                           \
  X(tcp_window_scaling, "net.ipv4.tcp_window_scaling", 1, 0, 1)                                       \
  X(tcp_abort_on_overflow, "net.ipv4.tcp_abort_on_overflow", 0, 0, 1)                                 \
  X(tcp_challenge_ack_limit, "net.ipv4.tcp_challenge_ack_limit", 0x7fffffff, 0, 0x7fffffff)           \
  X(tcp_invalid_ratelimit, "net.ipv4.tcp_invalid_ratelimit", 500, 0, 1 << 30)                         \
  X(tcp_syncookies, "net.ipv4.tcp_syncookies", 1, 0, 2)                                               \
  X(tcp_mtu_probing, "net.ipv4.tcp_mtu_probing", 0, 0, 2)                                             \
  X(tcp_base_mss, "net.ipv4.tcp_base_mss", 1024, 48, 65535)                                           \
  X(tcp_mtu_probe_floor, "net.ipv4.tcp_mtu_probe_floor", 48, 48, 65535)                               \
  X(tcp_min_snd_mss, "net.ipv4.tcp_min_snd_mss", 48, 48, 65535)                                       \
  X(tcp_probe_threshold, "net.ipv4.tcp_probe_threshold", 8, 1, 65535)                                 \
  X(tcp_probe_interval, "net.ipv4.tcp_probe_interval", 600, 0, 1 << 20)                               \
  X(tcp_max_orphans, "net.ipv4.tcp_max_orphans", 262144, 0, 0x7fffffff)                               \
  X(tcp_fastopen, "net.ipv4.tcp_fastopen", 1, 0, 0x7fffffff)                                          \
  X(tcp_fastopen_blackhole_timeout_sec, "net.ipv4.tcp_fastopen_blackhole_timeout_sec", 0, 0, 1 << 20) \
  X(tcp_awake, "net.ustack.tcp_awake", 1024, 0, 0x7fffffff)                                           \
  X(tcp_rest_ms, "net.ustack.tcp_rest_ms", 200, 1, 0x7fffffff)                                        \
  X(tcp_reset_limit, "net.ustack.tcp_reset_limit", 10000, 0, 0x7fffffff)                              \
  X(tcp_max_tw_buckets, "net.ipv4.tcp_max_tw_buckets", 262144, 0, 1 << 30)                            \
  X(tcp_tw_reuse, "net.ipv4.tcp_tw_reuse", 2, 0, 2)                                                   \
  X(tcp_rfc1337, "net.ipv4.tcp_rfc1337", 0, 0, 1)                                                     \
  X(tcp_moderate_rcvbuf, "net.ipv4.tcp_moderate_rcvbuf", 1, 0, 1)                                     \
  X(neigh_retrans_time_ms, "net.ipv4.neigh.default.retrans_time_ms", 1000, 1, 3600000)                \
  X(neigh_base_reachable_time_ms, "net.ipv4.neigh.default.base_reachable_time_ms", 30000, 1, 3600000) \
  X(neigh_mcast_solicit, "net.ipv4.neigh.default.mcast_solicit", 3, 1, 100)                           \
  X(neigh_ucast_solicit, "net.ipv4.neigh.default.ucast_solicit", 3, 0, 100)                           \
  X(neigh_unres_qlen_bytes, "net.ipv4.neigh.default.unres_qlen_bytes", 212992, 0, 1 << 30)            \
  X(neigh_gc_thresh3, "net.ipv4.neigh.default.gc_thresh3", 1024, 1, 1 << 20)

struct Settings {
#define USTACK_SETTING_FIELD(field, name, value, lowest, highest) int32_t field = value;
  USTACK_INTEGER_SETTINGS(USTACK_SETTING_FIELD)
#undef USTACK_SETTING_FIELD
  /// net.ipv4.tcp_rmem and tcp_wmem: smallest, initial and largest buffer, in bytes. As Linux since 6.16:
  /// with the 6 MB of before, 1 Gbit/s over 30 ms is the receiver's limit.
  std::array<int32_t, 3> tcp_rmem{4096, 131072, 33554432};
  std::array<int32_t, 3> tcp_wmem{4096, 16384, 4194304};
  /// net.ipv4.tcp_mem, in pages of 4096 bytes: what all sockets' queues may hold. Above the second is memory
  /// pressure, until it is less than the first; nothing goes beyond the third. None here; the library takes
  /// Linux's shares of the machine's memory.
  std::array<int32_t, 3> tcp_mem{0x7fffffff, 0x7fffffff, 0x7fffffff};
  /// net.ipv4.ip_local_port_range: first and last ephemeral port.
  std::array<int32_t, 2> ip_local_port_range{32768, 60999};
  /// net.ipv4.tcp_congestion_control: what a new socket starts with; a name of tcp::congestion_algorithms().
  std::string_view tcp_congestion_control = "cubic";
  /// net.ipv4.tcp_fastopen_key: one or two keys of 16 bytes as Linux writes them (RFC 7413's server secret);
  /// none: the host draws one.
  std::array<std::byte, 32> tcp_fastopen_key{};
  uint8_t tcp_fastopen_keys = 0;

  /// Sets one by its Linux name from text as in sysctl.conf ("4096 131072 6291456"). ENOENT: no such setting
  /// here; EINVAL: not a number, out of bounds, no such algorithm.
  Status set(std::string_view name, std::string_view value);
};

}  // namespace ustack
