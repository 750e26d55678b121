// TCP_INFO: Linux's struct tcp_info, filled from a connection.
#pragma once

#include <cstddef>

#include "stack/base/bytes.h"
#include "stack/base/time.h"

namespace ustack::tcp {

class Endpoint;

/// Writes as much of struct tcp_info (linux/tcp.h) as fits, and returns how much. What we don't measure is 0.
size_t fill_tcp_info(Endpoint& endpoint, MutableBytes out, Instant now);

/// Room that fill_statistics() needs, in bytes.
inline constexpr size_t kStatisticsBytes = 320;
/// SOF_TIMESTAMPING_OPT_STATS: netlink attributes TCP_NLA_* (linux/tcp.h), as Linux's
/// tcp_get_timestamping_opt_stats; returns their bytes.
size_t fill_statistics(Endpoint& endpoint, MutableBytes out, Instant now);

}  // namespace ustack::tcp
