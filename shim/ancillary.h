// What recvmsg(2) tells beside the bytes of a stream: TCP_INQ, times, reports of the error queue (cmsg(3)).
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <ctime>

#include "stack/base/result.h"
#include "stack/socket/report.h"

namespace ustack::shim {

struct DatagramArrival;

/// Control messages, made here and copied to the program as a whole. No lock.
class Ancillary {
 public:
  /// `room`: the program's msg_controllen, in bytes.
  explicit Ancillary(size_t room) : room_(room < bytes_.size() ? room : bytes_.size()) {}

  /// Appends a message, cut off where there is no more room (put_cmsg).
  void put(int level, int type, const void* data, size_t bytes);
  /// SO_TIMESTAMP* of a byte that came at `arrived` (tcp_recv_timestamp).
  void put_arrival(const TimeStamping& how, Instant arrived);
  /// All that a report says (ip_recv_error), whose payload is this.
  /// `ipv6`: as a socket of AF_INET6 tells it.
  void put_report(const TimeStamping& how, const Report& report, Bytes payload, bool ipv6);

  /// What ip(7) and ipv6(7) tell of a datagram on request (ip_cmsg_recv, ip6_datagram_recv_ctl).
  void put_datagram(const DatagramArrival& datagram);

  size_t size() const { return size_; }
  /// MSG_CTRUNC or 0.
  int flags() const { return cut_ ? MSG_CTRUNC : 0; }
  /// EFAULT.
  Status copy_to(void* control) const;

 private:
  void put_time(const TimeStamping& how, const timespec& time);
  void put_times(const TimeStamping& how, const timespec& time);

  /// More than all of the above together.
  std::array<std::byte, 1024> bytes_{};
  size_t room_;
  size_t size_ = 0;
  bool cut_ = false;
};

}  // namespace ustack::shim
