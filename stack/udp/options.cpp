// setsockopt and getsockopt of a UDP socket, with the checks, bounds and errnos of Linux. What is not here is
// refused, so that no option is accepted and ignored.
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "stack/host.h"
#include "stack/udp/endpoint.h"

namespace ustack::udp {

namespace {

/// linux/in6.h, which netinet/in.h excludes.
constexpr int kFlowInfoSend = 33;
constexpr int kBufferLock = 72, kIpProtocol = 52, kReceiveMark = 75, kReceivePriority = 82;

template <typename T>
Status assign(T& field, const Result<T>& value) {
  if (value.ok()) field = *value;
  return value.status();
}

}  // namespace

Status Endpoint::set_time_stamping(uint32_t flags, bool new_format) {
  // Only arrivals are told.
  constexpr uint32_t kKnown = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
                              SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE |
                              SOF_TIMESTAMPING_SYS_HARDWARE | SOF_TIMESTAMPING_OPT_CMSG |
                              SOF_TIMESTAMPING_OPT_TSONLY | time_stamping::kRxFilter;
  if ((flags & ~kKnown) != 0) return Error{EINVAL};
  times_.flags = flags;
  times_.new_format = new_format;
  return {};
}

Status Endpoint::set_option(int level, int name, Bytes value) {
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_RCVTIMEO:
        return assign(receive_timeout_, read_timeout(value));
      case SO_SNDTIMEO:
        return assign(send_timeout_, read_timeout(value));
      case SO_BINDTODEVICE:
        return assign(device_, read_device(protocol_.network(), value));
      case SO_LINGER: {
        linger l;
        if (value.size() < sizeof l) return Error{EINVAL};
        std::memcpy(&l, value.data(), sizeof l);
        linger_ = l.l_onoff != 0;
        if (linger_) linger_seconds_ = l.l_linger < 0 ? INT_MAX : l.l_linger;
        return {};
      }
      default:
        break;
    }
  }
  if (level == IPPROTO_IP && name == IP_OPTIONS) return value.empty() ? Status() : Status(Error{EINVAL});
  const Result<int> number = read_number(level, value);
  return number.ok() ? set_number(level, name, *number, value.size()) : number.status();
}

Status Endpoint::set_number(int level, int name, int value, size_t bytes) {
  const Settings& settings = protocol_.settings();
  if (level == SOL_SOCKET) {
    auto stamp = [&](bool nanoseconds, bool new_format) {
      times_.on_receive = value != 0;
      times_.nanoseconds = value != 0 && nanoseconds;
      if (value != 0) times_.new_format = new_format;
    };
    switch (name) {
      case SO_REUSEADDR:
        reuse_address_ = value != 0;
        return {};
      case SO_REUSEPORT:
        reuse_port_ = value != 0;
        return {};
      case SO_BROADCAST:
        broadcast_ = value != 0;
        return {};
      case SO_KEEPALIVE:
        keepalive_ = value != 0;
        return {};
      case SO_DONTROUTE:
        dont_route_ = value != 0;
        return {};
      case SO_OOBINLINE:
        out_of_band_inline_ = value != 0;
        return {};
      case SO_RCVBUF:
      case SO_RCVBUFFORCE:
        receive_limit_ =
            buffer_limit(value, name == SO_RCVBUF ? settings.rmem_max : INT_MAX, kLeastReceiveBuffer);
        receive_limit_locked_ = true;
        return {};
      case SO_SNDBUF:
      case SO_SNDBUFFORCE:
        send_limit_ = buffer_limit(value, name == SO_SNDBUF ? settings.wmem_max : INT_MAX, kLeastSendBuffer);
        send_limit_locked_ = true;
        return {};
      case kBufferLock:
        if ((value & ~3) != 0) return Error{EINVAL};
        send_limit_locked_ = (value & 1) != 0;
        receive_limit_locked_ = (value & 2) != 0;
        return {};
      case SO_TIMESTAMP_OLD:
        stamp(false, false);
        return {};
      case SO_TIMESTAMPNS_OLD:
        stamp(true, false);
        return {};
      case SO_TIMESTAMP_NEW:
        stamp(false, true);
        return {};
      case SO_TIMESTAMPNS_NEW:
        stamp(true, true);
        return {};
      case SO_TIMESTAMPING_OLD:
      case SO_TIMESTAMPING_NEW:
        return set_time_stamping(static_cast<uint32_t>(value), name == SO_TIMESTAMPING_NEW);
      case SO_NO_CHECK:
        no_checksum_ = value != 0;
        return {};
      case SO_RCVLOWAT:
        low_water_ = value < 0 ? INT_MAX : std::max(value, 1);
        return {};
      case SO_PEEK_OFF:
        return Error{EOPNOTSUPP};
      case SO_RXQ_OVFL:
      case SO_WIFI_STATUS:
      case kReceiveMark:
      case kReceivePriority:
        // Ancillary data that is never made.
        return value == 0 ? Status() : Error{EOPNOTSUPP};
      default:
        return plain_.set(level, name, value, bytes);
    }
  }
  if (level == IPPROTO_IP) {
    switch (name) {
      case IP_TOS:
        tos_ = static_cast<uint8_t>(value);
        return {};
      case IP_TTL:
        if (bytes < 1 || (value != -1 && (value < 1 || value > 255))) return Error{EINVAL};
        ttl_ = static_cast<int16_t>(value);
        return {};
      case IP_MTU_DISCOVER:
        if (value < 0 || value > 5) return Error{EINVAL};
        pmtu_discovery_ = static_cast<PmtuDiscovery>(value);
        return {};
      case IP_RECVERR:
        receive_errors_ = value != 0;
        return {};
      case IP_RECVOPTS:
      case IP_RETOPTS:
      case IP_CHECKSUM:
      case IP_PASSSEC:
        // Ancillary data that is never made.
        return value == 0 ? Status() : Error{EOPNOTSUPP};
      default:
        return plain_.set(level, name, value, bytes);
    }
  }
  if (level == IPPROTO_IPV6) return set_ipv6_number(name, value);
  // UDP_CORK, UDP_SEGMENT, UDP_GRO, ...: as a Linux without them.
  return Error{ENOPROTOOPT};
}

/// Of ipv6(7): values that shim's DualStack has found good, but for IPV6_MTU.
Status Endpoint::set_ipv6_number(int name, int value) {
  switch (name) {
    case IPV6_V6ONLY:
      ipv6_.v6_only = value != 0;
      return {};
    case IPV6_UNICAST_HOPS:
      ipv6_.hop_limit = static_cast<int16_t>(value);
      return {};
    case IPV6_TCLASS:
      ipv6_.traffic_class = static_cast<uint8_t>(value);
      return {};
    case IPV6_MTU_DISCOVER:
      ipv6_.pmtu_discovery = static_cast<PmtuDiscovery>(value);
      return {};
    case IPV6_RECVERR:
      ipv6_.receive_errors = value != 0;
      return {};
    case IPV6_AUTOFLOWLABEL:
      ipv6_.flow_label = value != 0;
      return {};
    case IPV6_DONTFRAG:
      dont_fragment_ = value != 0;
      return {};
    case IPV6_MTU:
      if (value != 0 && value < static_cast<int>(Ipv6Header::kLeastMtu)) return Error{EINVAL};
      fragment_mtu_ = static_cast<uint32_t>(value);
      return {};
    case IPV6_RECVRTHDR:
    case IPV6_RECVHOPOPTS:
    case IPV6_RECVDSTOPTS:
    case IPV6_RECVPATHMTU:
    case IPV6_RECVFRAGSIZE:
    case IPV6_2292PKTINFO:
    case kFlowInfoSend:
      // Ancillary data that is never made, labels of the program's own.
      return value == 0 ? Status() : Error{EOPNOTSUPP};
    default:
      return Error{ENOPROTOOPT};
  }
}

Result<int> Endpoint::number(int level, int name) {
  auto stamp = [&](bool nanoseconds, bool new_format) {
    return times_.on_receive && times_.new_format == new_format && times_.nanoseconds == nanoseconds ? 1 : 0;
  };
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_TYPE:
        return int{SOCK_DGRAM};
      case SO_PROTOCOL:
        return int{IPPROTO_UDP};
      case SO_DOMAIN:
        return int{family_ == Family::ipv4 ? AF_INET : AF_INET6};
      case SO_ACCEPTCONN:
        return 0;
      case SO_ERROR:
        return std::exchange(error_, 0);
      case SO_REUSEADDR:
        return reuse_address_ ? 1 : 0;
      case SO_REUSEPORT:
        return reuse_port_ ? 1 : 0;
      case SO_BROADCAST:
        return broadcast_ ? 1 : 0;
      case SO_KEEPALIVE:
        return keepalive_ ? 1 : 0;
      case SO_DONTROUTE:
        return dont_route_ ? 1 : 0;
      case SO_OOBINLINE:
        return out_of_band_inline_ ? 1 : 0;
      case SO_RCVBUF:
        return static_cast<int>(receive_limit_);
      case SO_SNDBUF:
        return static_cast<int>(send_limit_);
      case kBufferLock:
        return (send_limit_locked_ ? 1 : 0) | (receive_limit_locked_ ? 2 : 0);
      case SO_RCVLOWAT:
        return low_water_;
      case SO_SNDLOWAT:
        return 1;
      case SO_TIMESTAMP_OLD:
        return stamp(false, false);
      case SO_TIMESTAMPNS_OLD:
        return stamp(true, false);
      case SO_TIMESTAMP_NEW:
        return stamp(false, true);
      case SO_TIMESTAMPNS_NEW:
        return stamp(true, true);
      case SO_NO_CHECK:
        return no_checksum_ ? 1 : 0;
      case SO_PEEK_OFF:
        return -1;
      default:
        return plain_.get(level, name);
    }
  }
  if (level == IPPROTO_IP) {
    switch (name) {
      case IP_TOS:
        return int{tos_};
      case IP_TTL:
        return ttl_ > 0 ? int{ttl_} : int{protocol_.settings().ip_default_ttl};
      case IP_MTU_DISCOVER:
        return static_cast<int>(pmtu_discovery_);
      case IP_RECVERR:
        return receive_errors_ ? 1 : 0;
      case IP_MTU:
        return path_mtu();
      case kIpProtocol:
        return int{local_.port};
      default:
        return plain_.get(level, name);
    }
  }
  if (level == IPPROTO_IPV6) return ipv6_number(name);
  return Error{ENOPROTOOPT};
}

Result<int> Endpoint::ipv6_number(int name) {
  switch (name) {
    case IPV6_V6ONLY:
      return ipv6_.v6_only ? 1 : 0;
    case IPV6_UNICAST_HOPS:
      return ipv6_.hop_limit >= 0 ? int{ipv6_.hop_limit} : int{protocol_.settings().ipv6_hop_limit};
    case IPV6_TCLASS:
      return int{ipv6_.traffic_class};
    case IPV6_MTU_DISCOVER:
      return static_cast<int>(ipv6_.pmtu_discovery);
    case IPV6_RECVERR:
      return ipv6_.receive_errors ? 1 : 0;
    case IPV6_AUTOFLOWLABEL:
      return ipv6_.flow_label ? 1 : 0;
    case IPV6_DONTFRAG:
      return dont_fragment_ ? 1 : 0;
    case IPV6_MTU:
      return remote_.address.is_v6() ? path_mtu() : Error{ENOTCONN};
    default:
      return Error{ENOPROTOOPT};
  }
}

/// ENOTCONN.
Result<int> Endpoint::path_mtu() {
  if (!connected()) return Error{ENOTCONN};
  Result<Route> route = protocol_.network().find_route(local_.address, remote_.address);
  if (!route.ok()) return Error{ENOTCONN};
  return static_cast<int>(route->mtu());
}

Result<size_t> Endpoint::get_option(int level, int name, MutableBytes out) {
  if (level != SOL_SOCKET && level != IPPROTO_UDP && level != IPPROTO_IP &&
      (level != IPPROTO_IPV6 || family_ != Family::ipv6))
    return Error{EOPNOTSUPP};
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_RCVTIMEO:
        return write_timeout(receive_timeout_, out);
      case SO_SNDTIMEO:
        return write_timeout(send_timeout_, out);
      case SO_BINDTODEVICE:
        return write_device(protocol_.network(), device_, out);
      case SO_LINGER: {
        linger l{linger_ ? 1 : 0, linger_seconds_};
        return copy_out(&l, sizeof l, out);
      }
      case SO_PEERNAME: {
        sockaddr_in peer{};
        if (!connected()) return Error{ENOTCONN};
        if (out.size() > sizeof peer) return Error{EINVAL};
        peer.sin_family = AF_INET;
        store_be16(reinterpret_cast<std::byte*>(&peer.sin_port), remote_.port);
        std::memcpy(&peer.sin_addr, remote_.address.data(), sizeof peer.sin_addr);
        return copy_out(&peer, sizeof peer, out);
      }
      case SO_COOKIE:
        if (out.size() < sizeof cookie_) return Error{EINVAL};
        if (cookie_ == 0) cookie_ = ++protocol_.last_cookie;
        return copy_out(&cookie_, sizeof cookie_, out);
      case SO_MEMINFO: {
        // SK_MEMINFO_RMEM_ALLOC, RCVBUF, WMEM_ALLOC, SNDBUF, FWD_ALLOC, WMEM_QUEUED, OPTMEM, BACKLOG, DROPS.
        const uint32_t memory[9] = {queue_bytes_, receive_limit_, 0, send_limit_};
        return copy_out(memory, sizeof memory, out);
      }
      case SO_TIMESTAMPING_OLD:
      case SO_TIMESTAMPING_NEW: {
        const bool told = name == SO_TIMESTAMPING_OLD || times_.new_format;
        const uint32_t flags[2] = {told ? times_.flags : 0, 0};
        return copy_out(flags, sizeof flags, out);
      }
      default:
        break;
    }
  }
  if (level == IPPROTO_IP && (name == IP_OPTIONS || name == IP_PKTOPTIONS)) return size_t{0};
  Result<int> told = number(level, name);
  if (!told.ok()) return told.error();
  return write_number(level, *told, out);
}

}  // namespace ustack::udp
