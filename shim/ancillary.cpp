#include "shim/ancillary.h"

#include <linux/net_tstamp.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "io/clock.h"
#include "shim/address.h"
#include "shim/socket_file.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

/// When that was by the machine's clock (CLOCK_REALTIME).
timespec real_time(Instant at) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const Duration then = std::chrono::seconds(now.tv_sec) + Duration(now.tv_nsec) - (io::now() - at);
  return {.tv_sec = static_cast<time_t>(then / 1s), .tv_nsec = static_cast<long>((then % 1s).count())};
}

}  // namespace

void Ancillary::put(int level, int type, const void* data, size_t bytes) {
  if (room_ - size_ < sizeof(cmsghdr)) {
    cut_ = true;
    return;
  }
  cmsghdr head{};
  head.cmsg_len = CMSG_LEN(bytes);
  if (head.cmsg_len > room_ - size_) {
    cut_ = true;
    head.cmsg_len = room_ - size_;
  }
  head.cmsg_level = level;
  head.cmsg_type = type;
  std::memcpy(bytes_.data() + size_, &head, sizeof head);
  std::memcpy(bytes_.data() + size_ + CMSG_LEN(0), data, head.cmsg_len - CMSG_LEN(0));
  size_ += std::min(CMSG_SPACE(bytes), room_ - size_);
}

/// SO_TIMESTAMP or SO_TIMESTAMPNS.
void Ancillary::put_time(const TimeStamping& how, const timespec& time) {
  if (how.nanoseconds) {
    put(SOL_SOCKET, how.new_format ? SO_TIMESTAMPNS_NEW : SO_TIMESTAMPNS_OLD, &time, sizeof time);
  } else {
    const timeval coarse{.tv_sec = time.tv_sec, .tv_usec = time.tv_nsec / 1000};
    put(SOL_SOCKET, how.new_format ? SO_TIMESTAMP_NEW : SO_TIMESTAMP_OLD, &coarse, sizeof coarse);
  }
}

/// struct scm_timestamping: by the software's clock, one that is gone, and a card's.
void Ancillary::put_times(const TimeStamping& how, const timespec& time) {
  const timespec times[3] = {time, {}, {}};
  put(SOL_SOCKET, how.new_format ? SO_TIMESTAMPING_NEW : SO_TIMESTAMPING_OLD, times, sizeof times);
}

void Ancillary::put_arrival(const TimeStamping& how, Instant arrived) {
  const timespec time = real_time(arrived);
  if (how.on_receive) put_time(how, time);
  if ((how.flags & SOF_TIMESTAMPING_SOFTWARE) != 0 &&
      ((how.flags & SOF_TIMESTAMPING_RX_SOFTWARE) != 0 || (how.flags & time_stamping::kRxFilter) == 0))
    put_times(how, time);
}

void Ancillary::put_report(const TimeStamping& how, const Report& report, Bytes payload, bool ipv6) {
  const bool timed = report.what.ee_origin == SO_EE_ORIGIN_TIMESTAMPING;
  const timespec time = real_time(timed ? report.at : io::now());
  if (how.on_receive) put_time(how, time);
  if (timed && (how.flags & SOF_TIMESTAMPING_SOFTWARE) != 0) put_times(how, time);
  if (report.statistics) put(SOL_SOCKET, SCM_TIMESTAMPING_OPT_STATS, payload.data(), payload.size());
  // struct sock_extended_err with the offender's address behind it (SO_EE_OFFENDER).
  std::array<std::byte, sizeof(sock_extended_err) + sizeof(sockaddr_in6)> told{};
  std::memcpy(told.data(), &report.what, sizeof report.what);
  if (report.is_icmp()) {
    sockaddr_storage offender;
    const bool mapped = ipv6 && report.offender.is_v4();
    const socklen_t size =
        to_sockaddr({mapped ? mapped_address(report.offender) : report.offender, 0}, &offender);
    std::memcpy(told.data() + sizeof report.what, &offender, size);
  }
  if (ipv6)
    put(IPPROTO_IPV6, IPV6_RECVERR, told.data(), told.size());
  else
    put(IPPROTO_IP, IP_RECVERR, told.data(), sizeof(sock_extended_err) + sizeof(sockaddr_in));
}

void Ancillary::put_datagram(const DatagramArrival& datagram) {
  sockaddr_storage destination;
  const socklen_t size = to_sockaddr(datagram.destination, &destination);
  const bool v6 = datagram.destination.address.is_v6();
  const DatagramWishes& wishes = v6 ? datagram.wishes6 : datagram.wishes;
  if (datagram.wishes6.packet_info) {
    in6_pktinfo info{};
    const IpAddress& address = datagram.destination.address;
    std::memcpy(&info.ipi6_addr, (v6 ? address : mapped_address(address)).data(), sizeof info.ipi6_addr);
    info.ipi6_ifindex = static_cast<unsigned>(link_index());
    put(IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  }
  if (wishes.packet_info && !v6) {
    in_pktinfo info{};
    info.ipi_ifindex = link_index();
    info.ipi_addr = info.ipi_spec_dst = reinterpret_cast<sockaddr_in&>(destination).sin_addr;
    put(IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
  const int ttl = datagram.ttl;
  const int traffic_class = datagram.tos;
  if (v6) {
    if (wishes.ttl) put(IPPROTO_IPV6, IPV6_HOPLIMIT, &ttl, sizeof ttl);
    if (wishes.tos) put(IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof traffic_class);
    if (wishes.original_destination) put(IPPROTO_IPV6, IPV6_ORIGDSTADDR, &destination, size);
    return;
  }
  if (wishes.ttl) put(IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
  if (wishes.tos) put(IPPROTO_IP, IP_TOS, &datagram.tos, sizeof datagram.tos);
  if (wishes.original_destination) put(IPPROTO_IP, IP_ORIGDSTADDR, &destination, size);
}

Status Ancillary::copy_to(void* control) const { return copy_to_user(control, bytes_.data(), size_); }

}  // namespace ustack::shim
